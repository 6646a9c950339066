/* SPDX-License-Identifier: MIT */
/*
 * A thread that is not cancelled for a while: pthread_cancel(3) would end it inside of some read(2) or close(2), with a
 * lock held, inside the epoch, or with a snapshot half made, and all others would wait for it for ever. What was asked
 * for meanwhile happens at the thread's next cancellation point after.
 *
 * Threads: any, each for itself; nests. Async-signal-safe (POSIX.1-2024). Only deferred cancellation: a thread of the
 * asynchronous type may be cancelled before the state is set, and right when it is put back.
 */
#ifndef UFFDWP_BASE_CANCEL_H
#define UFFDWP_BASE_CANCEL_H

#include <pthread.h>

/* The state of before, for cancel_restore(). */
static inline int cancel_disable(void)
{
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

static inline void cancel_restore(const int *before)
{
	pthread_setcancelstate(*before, NULL);
}

/* From here to the end of the block, however it is left. */
#define CANCEL_DISABLED() __attribute__((cleanup(cancel_restore), unused)) const int cancel_state = cancel_disable()

#endif
