/* SPDX-License-Identifier: MIT */
/*
 * A child: a fork of the process in which regions are private mappings of their files, that show a cut. What is broken
 * off it, and how: region/view.h.
 *
 *   prepare   mappings, memory, a thread: all that allocates, while the program runs on; and a rehearsal of what
 *             could be forbidden: rehearse.c
 *   cut       faults are stalled, all is armed, the process is forked, faults go on: fork.c
 *   child     moves the mappings to the regions' addresses before it does anything else: arrive.c
 *   parent    a thread for each child opens what pages are broken off by, maps entries again, and waits for its end:
 *             watch.c
 *
 * Threads: the caller of uffdwp_fork(), one at a time; `uffdwp-child`, one for each child; in the child the thread that
 * forked. Never: to touch a region between the cut and the return of the fork.
 */
#ifndef UFFDWP_CHILD_CHILD_H
#define UFFDWP_CHILD_CHILD_H

#include <pthread.h>
#include <sys/types.h>

#include "cut/cut.h"
#include "fault/runtime.h"
#include "kernel/order.h"
#include "region/view.h"
#include "uffdwp.h"

/* That are opened when the child is there. */
#define CHILD_DESCRIPTORS 4

struct uffdwp_child {
	const struct kernel_ops *k;
	struct view_child in; /* what the fault path needs */
	struct uffdwp_view views[UFFDWP_FORK_REGIONS_MAX];
	struct cut cuts[UFFDWP_FORK_REGIONS_MAX];
	struct cut *sorted[UFFDWP_FORK_REGIONS_MAX]; /* by region */
	void *mapped[UFFDWP_FORK_REGIONS_MAX];       /* in the parent, until the fork; NULL: not */
	unsigned count;
	_Atomic int kept_free[CHILD_DESCRIPTORS]; /* until then their numbers are taken by these; -1: none */
	int ends[2]; /* fork(3): by which the parent learns the child's process id; -1: none */
	uint64_t wait_ns;
	uint32_t process; /* of the handle, by process_number() */
	int bare;
	int is_here; /* this process is the child */
	int paused;  /* the cut was made: faults are stalled, locks and signals are as cut_pause() wants them */
	sigset_t signals;
	uint64_t ends_since_ns; /* its thread's: since when it seems to end, again and again */
	uint64_t ends_last_ns;
	uint64_t begun_ns;
	uint64_t forked_at_ns;
	uint64_t fork_ns;
	uint64_t call_ns;
	int error;       /* of the cut */
	_Atomic int pid; /* as fork() has returned it; 0: it has not, -1: there is no child */
	pthread_t thread;
	_Atomic uint32_t runs; /* the thread is past what the C library does at its start */
	struct order order;
	_Atomic uint32_t owners; /* its thread, and the handle: the last frees it */
	_Atomic uint32_t state;  /* enum uffdwp_child_state */
};

struct child_request {
	struct uffdwp_region *const *regions;
	unsigned count;
	int bare;
	uint32_t arming;
	uint32_t policy;
	uint64_t private_bytes;
	uint64_t wait_ns;
	uint32_t window_max; /* pages */
	int (*cut_enter)(void *cut_user);
	void (*cut_leave)(void *cut_user);
	void *cut_user;
};

/* The process id, 0 in the child, or -errno, with text. *out: the handle, in the parent. */
pid_t child_fork(struct uffdwp *runtime, const struct child_request *request, struct text *text,
                 struct uffdwp_child **out);

/* In a process that was forked: fork(3) after a copy of what is shared with the parent was taken. */
pid_t child_fork_again(const struct kernel_ops *k, int bare);

void child_info(const struct uffdwp_child *child, struct uffdwp_child_info *info);

/* The handle is given back. */
void child_put(struct uffdwp_child *child);

/* Regions that can be in a child: of one runtime, as many as there are. At most `most` are in out[]; a thread that
 * closes one of these waits until they are unpinned. */
size_t child_pin_regions(const struct uffdwp *runtime, struct uffdwp_region **out, size_t most);
void child_unpin_regions(struct uffdwp_region *const *regions, size_t count);

#endif
