/* SPDX-License-Identifier: MIT */
/*
 * All signals of this thread, blocked for a while: while it holds what a signal handler might wait for, or while it
 * makes a thread that shall never see one. Async-signal-safe.
 */
#ifndef UFFDWP_BASE_SIGNALS_H
#define UFFDWP_BASE_SIGNALS_H

#include <pthread.h>
#include <signal.h>

static inline void signals_block(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static inline void signals_restore(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

#endif
