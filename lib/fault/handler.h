/* SPDX-License-Identifier: MIT */
/*
 * A handler: one thread that reads the uffds of many regions, resolves the faults of those with thread delivery, and
 * follows the kernel's events for all (a thread in madvise(2), mremap(2) or munmap(2) sleeps until its event was read).
 *
 * Threads: the handler's own, and callers of handler_add() and handler_remove(), which wait for it. A handler waits for
 * no other thread: no lock that a faulting thread may have, no disk. It blocks all signals.
 *
 * When its thread ends for whatever reason (pthread_cancel() by the program, a loop that broke), or stands still while
 * writers wait, another thread takes its place (guard.h): snapshots that run fail, writers, views, tracks and restores
 * go on. Where there is none, or the program has closed the library's descriptors, the regions are unregistered: all
 * writers go on, running snapshots fail, the regions are dead.
 */
#ifndef UFFDWP_FAULT_HANDLER_H
#define UFFDWP_FAULT_HANDLER_H

#include <sched.h>

#include "region/region.h"

#define HANDLER_REGIONS_MAX 1024

struct handler;
struct mapper;

struct handler_place {
	const cpu_set_t *cpus; /* NULL: any */
	int node;              /* -1: any */
};

/* 0, -EAGAIN (no thread), -ENOMEM, -EINVAL (CPUs that are not available), ... */
int handler_start(const struct kernel_ops *k, const struct handler_place *place, struct handler **out);

/* Ends the thread; it has no regions any more. */
void handler_stop(struct handler *handler);

/* From now on the handler reads region->uffd. -ENFILE, -EOWNERDEAD. */
int handler_add(struct handler *handler, struct uffdwp_region *region);

/* The same of the uffd of one mapper more, and of its pidfd. -ENFILE, -EOWNERDEAD. */
int handler_join(struct handler *handler, struct mapper *mapper);

/* After the return nothing of the handler refers to the mapper's descriptors. */
void handler_part(struct handler *handler, struct mapper *mapper);

/* After the return nothing of the handler refers to the region or its uffd. */
void handler_remove(struct handler *handler, struct uffdwp_region *region);

/* After the return it has acted on every event that it had read. */
void handler_sync(struct handler *handler);

/* The same of one region's events, and no wait for the thread where it has none in its hands: a call that raises an
 * event returns when the event was read. */
void handler_settle(const struct uffdwp_region *region);

/* 0; -EBADF, -ESTALE: the program has closed its descriptor (and opened another); then the thread has ended, and its
 * regions are dead. */
int handler_check(struct handler *handler);

/* Its thread's id; 0: it has not begun yet. */
uint32_t handler_thread(struct handler *handler);

/* How many regions it has: new ones go where there are fewest. */
unsigned handler_load(const struct handler *handler);

/* ---- succession: for guard.c ---- */

struct region_bell;
struct shift;

enum handler_look {
	HANDLER_QUIET,   /* nothing of its regions is armed for a thread */
	HANDLER_WATCHED, /* something is */
	HANDLER_LOST,    /* its thread has ended, or stands still while writers wait: it is to be replaced */
};

/* What a look remembers for the next one; zeros at first. */
struct handler_pulse {
	uint64_t turn;
	uint64_t cpu_ns; /* that the thread had run */
	unsigned still;  /* looks in a row at which it stood still */
};

/* From now on the bell is rung when its thread ends, and when something of its regions is armed; its regions are left
 * to the thread that looks. NULL: no more. */
void handler_guard(struct handler *handler, struct region_bell *bell);

/* `late`: this look is not to be counted as one more, the looking thread itself did not run for a while. */
enum handler_look handler_look_at(struct handler *handler, struct handler_pulse *pulse, int late);

/* The calling thread takes the place of the lost one, with a fresh shift: 1; handler_serve() is to be called. 0: the
 * lost one has come back. -errno: it cannot be replaced, all its regions are dead now. */
int handler_take_place(struct handler *handler, const struct handler_pulse *pulse, struct shift *fresh);

/* Frees what is left of threads that were replaced and have ended since. Threads: a caller's, no cut is under way. */
void handler_reap(struct handler *handler);

/* ---- tests only ---- */

enum handler_provocation { HANDLER_SERVES, HANDLER_ENDS, HANDLER_SLEEPS, HANDLER_SPINS };

/* What its thread does instead of its next wait: ends, or stands still until HANDLER_SERVES is asked for. */
void handler_provoke(struct handler *handler, enum handler_provocation what);

#endif
