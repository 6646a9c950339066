/* SPDX-License-Identifier: MIT */
/*
 * A handler: one thread that reads the uffds of many regions, resolves the faults of those with thread delivery, and
 * follows the kernel's events for all (a thread in madvise(2), mremap(2) or munmap(2) sleeps until its event was read).
 *
 * Threads: the handler's own, and callers of handler_add() and handler_remove(), which wait for it. A handler waits for
 * no other thread: no lock that a faulting thread may have, no disk. It blocks all signals.
 *
 * When its thread ends for whatever reason (pthread_cancel() by the program, a loop that broke), its regions are
 * unregistered at its end: all writers go on, running snapshots fail, the regions are dead.
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

/* 0; -EBADF, -ESTALE: the program has closed its descriptor (and opened another); then the thread has ended, and its
 * regions are dead. */
int handler_check(struct handler *handler);

/* How many regions it has: new ones go where there are fewest. */
unsigned handler_load(const struct handler *handler);

#endif
