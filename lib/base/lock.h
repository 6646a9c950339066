/* SPDX-License-Identifier: MIT */
/*
 * The library's locks. A thread that holds one is not interrupted: a signal handler of the program that ran meanwhile
 * could write to an armed page, and wait for a thread of ours that wants the same lock; or be made to wait, as
 * collectors stop the world, for a thread that calls us. So signals are blocked from before a lock is taken until it
 * was given back; several locks are given back in the reverse order.
 *
 * Not blocked are SIGBUS and SIGSEGV: a thread that holds a lock may touch memory that is a region of inline delivery,
 * and a fault with its signal blocked kills the process. (While faults are stalled no such memory may be touched; there
 * all signals are blocked, see signals.h.)
 *
 * INV-LOCK: a function that asks for a lock, or for blocked signals, is called with it held, with them blocked; and a
 * lock is given back by the thread that took it.
 *
 * Nothing waits for long while it holds a lock. A thread that waits without a bound sleeps on a futex word instead.
 */
#ifndef UFFDWP_BASE_LOCK_H
#define UFFDWP_BASE_LOCK_H

#include <pthread.h>
#include <string.h>

#include "base/invariant.h"
#include "base/signals.h"

struct lock {
	pthread_mutex_t mutex;
	sigset_t before; /* the holder's */
};

#define LOCK_INIT                                                                                                      \
	{                                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER                                                                     \
	}

static inline void lock_init(struct lock *lock)
{
	pthread_mutex_init(&lock->mutex, NULL);
}

static inline void lock_fini(struct lock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

static inline void lock_take(struct lock *lock)
{
	sigset_t before;

	signals_block_but_faults(&before);
	pthread_mutex_lock(&lock->mutex);
	lock->before = before;
	INVARIANT_NOTE(invariant_take(lock));
}

/* 1: taken; 0: another thread has it. */
static inline int lock_try(struct lock *lock)
{
	sigset_t before;

	signals_block_but_faults(&before);
	if (pthread_mutex_trylock(&lock->mutex)) {
		signals_restore(&before);
		return 0;
	}
	lock->before = before;
	INVARIANT_NOTE(invariant_take(lock));
	return 1;
}

static inline void lock_give(struct lock *lock)
{
	sigset_t before = lock->before;

	INVARIANT(LOCK, invariant_holds(lock));
	INVARIANT_NOTE(invariant_give(lock));
	pthread_mutex_unlock(&lock->mutex);
	signals_restore(&before);
}

/* Gives the lock back while it sleeps until `condition` is signalled; takes it again. */
static inline void lock_wait(struct lock *lock, pthread_cond_t *condition)
{
	sigset_t before = lock->before; /* of others meanwhile */

	INVARIANT(LOCK, invariant_holds(lock));
	pthread_cond_wait(condition, &lock->mutex);
	lock->before = before;
}

/* Many readers, or one writer, which is not kept out by readers that come one after the other. What was blocked before
 * is kept by the holder; there may be several. Not from inside. */
struct shared_lock {
	pthread_rwlock_t lock;
};

#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
#define SHARED_LOCK_INIT                                                                                               \
	{                                                                                                              \
		PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP                                                      \
	}
#else
#define SHARED_LOCK_INIT                                                                                               \
	{                                                                                                              \
		PTHREAD_RWLOCK_INITIALIZER                                                                             \
	}
#endif

/* In a child of fork(), of a lock that a thread of its parent may have held (forks.h): what SHARED_LOCK_INIT or another
 * initial value makes. A struct lock has lock_init(). */
static inline void lock_shared_renew(struct shared_lock *lock, const struct shared_lock *fresh)
{
	memcpy(lock, fresh, sizeof(*lock));
}

static inline void lock_shared_read(struct shared_lock *lock, sigset_t *before)
{
	signals_block_but_faults(before);
	pthread_rwlock_rdlock(&lock->lock);
	INVARIANT_NOTE(invariant_take(lock));
}

static inline void lock_shared_write(struct shared_lock *lock, sigset_t *before)
{
	signals_block_but_faults(before);
	pthread_rwlock_wrlock(&lock->lock);
	INVARIANT_NOTE(invariant_take(lock));
}

static inline void lock_shared_give(struct shared_lock *lock, const sigset_t *before)
{
	INVARIANT(LOCK, invariant_holds(lock));
	INVARIANT_NOTE(invariant_give(lock));
	pthread_rwlock_unlock(&lock->lock);
	signals_restore(before);
}

#endif
