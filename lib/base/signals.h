/* SPDX-License-Identifier: MIT */
/*
 * All signals of this thread, blocked for a while: while faults are stalled, or it is inside the epoch, where nothing
 * of the caller's memory may be touched.
 *
 * All but SIGBUS and SIGSEGV: while it holds a lock (lock.h), and in the library's own threads: the C library allocates
 * when a thread is made, and the caller's heap may be a region of inline delivery, where a fault with its signal
 * blocked kills.
 *
 * And the two signals that writing raises, deferred around calls in a thread of the caller, where they would end the
 * program: SIGXFSZ (RLIMIT_FSIZE) and SIGPIPE. Async-signal-safe.
 */
#ifndef UFFDWP_BASE_SIGNALS_H
#define UFFDWP_BASE_SIGNALS_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline void signals_block(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static inline void signals_block_but_faults(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_BLOCK, &all, before);
}

static inline void signals_restore(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

struct signals_held {
	sigset_t before;  /* the mask */
	sigset_t pending; /* then */
};

static inline void signals_hold_io(struct signals_held *held)
{
	sigset_t io;

	sigemptyset(&io);
	sigaddset(&io, SIGXFSZ);
	sigaddset(&io, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &io, &held->before);
	sigpending(&held->pending);
}

/* error: of what was done meanwhile, 0 or -errno; the signal that came with it is taken away. Not sigtimedwait(3),
 * which is a cancellation point. errno is kept. */
static inline void signals_release_io(const struct signals_held *held, int error)
{
	int number = error == -EFBIG ? SIGXFSZ : error == -EPIPE ? SIGPIPE : 0;
	const struct timespec now = {0, 0};
	int saved = errno;
	sigset_t one;

	sigemptyset(&one);
	if (number)
		sigaddset(&one, number);
	if (number && !sigismember(&held->pending, number))
		syscall(SYS_rt_sigtimedwait, &one, NULL, &now, (size_t)(_NSIG / 8));
	pthread_sigmask(SIG_SETMASK, &held->before, NULL);
	errno = saved;
}

#endif
