/* SPDX-License-Identifier: MIT */
/*
 * What the fault path knows of a lazy restore: for each page a byte that says whether its content is there yet. Nothing
 * here waits; system calls beside futexes are made elsewhere (fault/absent.c, fault/supply.c).
 *
 *    PENDING --want--> WANTED --claim--> FETCHING --settle--> DONE, or FAILED
 *       |                                 ^    |       |
 *       +--------------claim--------------+    |       +-- FAILED --forget--> DONE (discarded)
 *       +-- forget (also of WANTED) --> DONE   +-- drop --> DROPPED --settle--> DONE
 *
 * A page is absent until it is DONE or FAILED. DONE is for ever: then the page is as any other, its bytes are memory's.
 * DROPPED is a page whose memory another process has discarded while it was being fetched: what was read is not wanted.
 *
 * INV-ABSENT: the entry of a page that is absent or FAILED is filled by the restore alone, and no thread saves the
 * page, shows it or unprotects it. So no thread ever sees zeros, or an older content, where the image has something
 * else.
 *
 * A thread that wants a page sets a bit for it, and the threads that fetch look for bits: nothing can be full, and an
 * untouched restore of any size costs address space only.
 *
 * INV-WAKE (fault/fault.h) is kept thus: a thread that finds a page absent asks for it, and sleeps; a thread that
 * settles pages wakes all that sleep at them, after the state says so.
 *
 * Threads: lazy_want() and lazy_state() anywhere inside the epoch, also in signal handlers. The rest: the threads that
 * fetch, and slow calls with the region's lock held. Freed by the restore after it was unpublished, or by the region.
 */
#ifndef UFFDWP_REGION_LAZY_H
#define UFFDWP_REGION_LAZY_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum lazy_state {
	LAZY_PENDING = 0, /* as memory comes from the kernel */
	LAZY_WANTED = 1,
	LAZY_FETCHING = 2,
	LAZY_DROPPED = 3, /* FETCHING, and discarded since */
	LAZY_DONE = 4,
	LAZY_PUNCHED = 5,  /* DONE, if the discard that follows goes well */
	LAZY_FAILED = 100, /* and above: this and the errno */
};

struct lazy {
	const struct kernel_ops *k;
	uint64_t end_page; /* pages [0, end_page) are the restore's */
	_Atomic uint8_t *pages;
	_Atomic uint64_t *wanted; /* a bit for each page that was WANTED */
	_Atomic uint64_t *full;   /* a bit for each word of `wanted` that may have one */

	_Atomic uint64_t left; /* absent pages */
	_Atomic uint64_t failed;
	_Atomic uint64_t demanded; /* fetched because a thread waited */
	_Atomic int error;         /* the first of a page, negative errno */
	_Atomic uint64_t error_page;
	_Atomic int stop; /* negative errno: nothing more is fetched, what is absent fails with it */

	/* The order of first accesses; NULL, 0: not asked for. */
	_Atomic uint64_t *touched; /* a bit for each page that was accessed before it was there */
	_Atomic uint64_t *touches; /* page + 1, in order; 0: a thread is about to store it */
	uint64_t touches_max;
	_Atomic uint64_t touch_count; /* may be more */

	_Atomic uint32_t kicks; /* moves when there is work: threads that fetch sleep on it */
	_Atomic uint32_t idle;  /* how many do */
	_Atomic uint32_t ended; /* 1: no page is absent any more; callers sleep on it */
	int tag;                /* of ended_fd, see kernel/own.h */
	_Atomic int ended_fd;   /* eventfd, readable when it has ended; -1: not asked for */
};

struct uffdwp_region;

/* NULL: no memory. */
struct lazy *lazy_new(const struct kernel_ops *k, uint64_t pages);
void lazy_free(const struct kernel_ops *k, struct lazy *lazy);

/* A descriptor that is readable when it has ended, the same each time, or -errno. Callers take turns. */
int lazy_fd(struct lazy *lazy);

/* enum lazy_state, or of a failed page LAZY_FAILED and its errno; pages beyond the restore, and those that are being
 * punched, are DONE. (signal) */
static inline unsigned lazy_state(const struct lazy *lazy, uint64_t page)
{
	unsigned state = page < lazy->end_page ? atomic_load_explicit(&lazy->pages[page], memory_order_acquire)
	                                       : (unsigned)LAZY_DONE;

	return state == LAZY_PUNCHED ? (unsigned)LAZY_DONE : state;
}

/* (signal) */
static inline int lazy_is_absent(const struct lazy *lazy, uint64_t page)
{
	return lazy_state(lazy, page) < LAZY_DONE;
}

/* The negative errno of a failed page; else 0. (signal) */
static inline int lazy_page_error(const struct lazy *lazy, uint64_t page)
{
	unsigned state = lazy_state(lazy, page);

	return state > LAZY_FAILED ? (int)LAZY_FAILED - (int)state : 0;
}

/* 1: the region is being restored, and the page is not there yet or will never be. Inside the epoch. (signal) */
int region_is_absent(const struct uffdwp_region *region, uint64_t page);

/* Asks for a page, if it is PENDING. (signal) */
void lazy_want(struct lazy *lazy, uint64_t page);

/* From now on accesses are noted, up to so many. Before it is published. -ENOMEM. */
int lazy_note_touches(struct lazy *lazy, uint64_t max);
/* A thread accesses a page that is absent. (signal) */
void lazy_touch(struct lazy *lazy, uint64_t page);
/* Gives the first `most` pages in the order of their first access, as byte offsets; how many were noted. */
uint64_t lazy_touches(const struct lazy *lazy, unsigned page_shift, uint64_t *offsets, uint64_t most);

/* 1: some page that was wanted is FETCHING now, by the caller. */
int lazy_take_wanted(struct lazy *lazy, uint64_t *page);

/* 1: it was PENDING or WANTED, and is FETCHING now, by the caller. */
int lazy_claim(struct lazy *lazy, uint64_t page);

/* Pages [first, end), FETCHING by the caller, are there (0) or failed (negative errno), but those that were DROPPED,
 * which are zeros. The caller wakes then. */
void lazy_settle(struct lazy *lazy, uint64_t first, uint64_t end, int error);

/* A page needs no content any more: 1: it is DONE, or PUNCHED; 0: it is FETCHING. What was FAILED sets *failed. */
int lazy_forget(struct lazy *lazy, uint64_t page, int *failed);

/* Another process has discarded the page: it is zeros, whatever the restore has or reads for it. Waits for nothing. The
 * caller wakes then. */
void lazy_drop(struct lazy *lazy, uint64_t page);

/* What became of the discard of a page that was forgotten for it: it is DONE, or failed with that error. */
void lazy_end_punch(struct lazy *lazy, uint64_t page, int error);

/* Nothing more is fetched, for this reason; the first counts. (signal) */
void lazy_stop(struct lazy *lazy, int error);

/* What is neither there nor being fetched fails. The caller wakes then. */
void lazy_fail_rest(struct lazy *lazy, int error);

/* Wakes one, or all, of the threads that fetch. (signal) */
void lazy_kick(struct lazy *lazy, int all);

/* Sleeps until `kicks` is no longer `seen`. */
void lazy_idle(struct lazy *lazy, uint32_t seen);

#endif
