/* SPDX-License-Identifier: MIT */
/*
 * A guard: one thread of a runtime that looks after its handlers. Writers that met an armed page sleep until a
 * handler's thread has read their fault. If that thread has ended, or hangs, they would sleep for ever.
 *
 * Idea: while something is armed for delivery by a thread the guard looks at each handler now and then: has its thread
 * made a turn since the last look? One that has not, although a message waits to be read, and that is away
 * (handler_private.h), and that does not just wait for a CPU, is lost after some looks; one that has ended rings the
 * guard's bell. The guard then takes the place itself: it fails the snapshots that run, since a user should hear of it,
 * wakes the writers, and serves the handler's regions from then on. It neither allocates nor starts a thread for that:
 * the heap may be armed. So a runtime has no guard afterwards, until the next call that arms starts one; regions of a
 * second handler that ends before that die, as they would without a guard.
 *
 * A thread that stands still in the middle of its work is waited for: what it has in its hands only it can end. The
 * library lets it wait for nothing there; so either the machine is busy, or the kernel, or a debugger holds it.
 *
 * A false alarm costs snapshots, which fail with a text; images, views, tracks and restores stay right. It is rare:
 * time in which the process was stopped, or the guard did not run, does not count, and neither does time in which the
 * thread was ready to run and had no CPU.
 *
 * Threads: the guard's; guard_renew() of any caller, guard_stop() of the one that closes the runtime. What must never
 * happen: two threads serve the uffds of one handler.
 */
#ifndef UFFDWP_FAULT_GUARD_H
#define UFFDWP_FAULT_GUARD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "fault/handler.h"
#include "kernel/kernel.h"
#include "region/region.h"

/* Between two looks. A handler is lost at the fourth look that finds it still. */
#define GUARD_TICK_NS 100000000ull
#define GUARD_STILL 4u
/* The same where /proc does not say what the thread does, or the thread waits for a disk (its own pages may have been
 * swapped out). */
#define GUARD_STILL_UNKNOWN 30u

#define GUARD_HANDLERS_MAX 64

struct guard {
	const struct kernel_ops *k;
	struct handler *const *handlers;
	unsigned count;
	struct shift *fresh; /* for the place that it may take */
	pthread_t thread;
	_Atomic int state; /* guard.c; 0: no thread runs */
	struct region_bell bell;
};

/* Starts the thread unless it runs. Best effort: where it cannot be started the next call tries again. Not between a
 * cut and its end: it allocates. */
void guard_renew(struct guard *guard, const struct kernel_ops *k, struct handler *const *handlers, unsigned count);

/* Ends the thread. */
void guard_stop(struct guard *guard);

#endif
