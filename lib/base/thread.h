/* SPDX-License-Identifier: MIT */
/*
 * The library's threads: each is started here, and begins here.
 *
 * A thread of ours has all signals blocked but SIGBUS and SIGSEGV (signals.h says why), so that the program's handlers
 * run in threads of the program. pthread_create() allocates: never between a cut and its end.
 */
#ifndef UFFDWP_BASE_THREAD_H
#define UFFDWP_BASE_THREAD_H

#include <pthread.h>
#include <sched.h>
#include <stddef.h>

#include "base/cancel.h"

/* Where a thread runs; all zeros: anywhere, on a stack of the C library's. */
struct thread_place {
	const cpu_set_t *cpus; /* NULL: any */
	void *stack;           /* NULL: the C library's */
	size_t stack_bytes;
};

/* `place` NULL: anywhere. 0 or -errno. */
int thread_spawn(pthread_t *thread, const struct thread_place *place, void *(*run)(void *), void *argument);

/* First in a thread of the library that does more than one call: what debuggers and ps(1) call it (at most 15 bytes);
 * and no thread cancels it, but where it allows that for a while. */
static inline void thread_begin(const char *name)
{
	pthread_setname_np(pthread_self(), name);
	cancel_disable();
}

/*
 * Runs a call in a thread of its own, for which the caller's thread waits; neither is cancelled meanwhile. What it is
 * for: the kernel keeps notes of each task that made an io_uring or submitted to one, and when the ring is closed it
 * interrupts those tasks, a little later: a caller's thread would see EINTR of epoll_wait(2) or nanosleep(2) without a
 * signal. A thread that has ended is interrupted no more. 0 after run(argument) has returned and its thread has ended;
 * or -errno: no thread, and nothing was run.
 */
int thread_apart(void *(*run)(void *), void *argument);

#endif
