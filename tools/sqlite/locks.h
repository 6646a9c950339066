/* SPDX-License-Identifier: MIT */
/*
 * The five lock levels of SQLite, for the connections of one process that share one database.
 *
 * Words: a holder is one connection's file. SHARED is counted; RESERVED, PENDING and EXCLUSIVE have one owner each. A
 * connection that asks for EXCLUSIVE while others read is refused but keeps PENDING, which lets no new reader in. A cut
 * is a snapshot's own SHARED: no connection writes while it is held.
 *
 * Hand-over: SQLite's busy handler sleeps through the VFS. Instead of sleeping blindly the thread waits until the
 * refused level is available: microseconds, not the milliseconds of a sleep. But the handler counts each sleep in full.
 * A thread that wakes early and is then refused again would spend its time in a few such rounds, so it wakes only to
 * what no other thread takes first: for SHARED and EXCLUSIVE the wait is a part of the second try, locks_take(); for
 * RESERVED, before which SQLite has given its SHARED back and takes it again, locks_wait() leaves a baton: only that
 * thread is let in. A thread may take a level again and again while another waits (it is running, its caches are warm),
 * but only for a millisecond: then the longest waiter for RESERVED gets the baton, and readers their SHARED.
 *
 * Threads: all functions from any thread; a holder belongs to one connection and is used by one thread at a time.
 *
 * What must never happen: EXCLUSIVE beside a reader or a cut; two owners of RESERVED; a baton that is not fetched and
 * blocks the others (it expires).
 */
#ifndef UFFDWP_SQLITE_LOCKS_H
#define UFFDWP_SQLITE_LOCKS_H

#include <pthread.h>
#include <stdint.h>

/* The numbers of SQLITE_LOCK_*, and one of ours. */
enum lock_level {
	LOCK_NONE = 0,
	LOCK_SHARED = 1,
	LOCK_RESERVED = 2,
	LOCK_PENDING = 3,
	LOCK_EXCLUSIVE = 4,
	LOCK_CUT = 5 /* for waiters only */
};

struct lock_holder {
	enum lock_level level;
};

struct lock_waiter;

struct locks {
	pthread_mutex_t mutex;
	unsigned shared; /* holders at SHARED and above, and cuts */
	const struct lock_holder *reserved;
	const struct lock_holder *pending; /* also while exclusive */
	const struct lock_holder *exclusive;
	struct lock_waiter *waiters; /* first come first */
	const void *baton;           /* the thread that alone may take RESERVED, until then */
	uint64_t baton_until_ns;
};

void locks_init(struct locks *locks);
void locks_fini(struct locks *locks);

/* Raises a holder to SHARED, RESERVED or EXCLUSIVE. until_ns: waits for SHARED until then, and for EXCLUSIVE with
 * PENDING; 0: not at all. since_ns: when this thread was refused first. 0 or -EBUSY (the holder may stay at PENDING).
 */
int locks_take(struct locks *locks, struct lock_holder *holder, enum lock_level wanted, uint64_t since_ns,
               uint64_t until_ns);

/* Lowers a holder to SHARED or NONE and wakes the waiters that this helps. */
void locks_drop(struct locks *locks, struct lock_holder *holder, enum lock_level level);

/* 1: some connection holds RESERVED or more. */
int locks_reserved(struct locks *locks);

/* 1: no connection holds RESERVED or more, and `test` is true while none can get it. */
int locks_free_and(struct locks *locks, int (*test)(const char *name), const char *name);

/* Waits until this thread may be given `wanted`, or until then. RESERVED is kept for it for a moment after. */
void locks_wait(struct locks *locks, enum lock_level wanted, uint64_t since_ns, uint64_t until_ns);

/* Takes a SHARED for a cut as soon as no connection holds EXCLUSIVE: 0 or -ETIMEDOUT. */
int locks_cut_enter(struct locks *locks, uint64_t timeout_ns);
void locks_cut_leave(struct locks *locks);

uint64_t locks_now_ns(void);

#endif
