/* SPDX-License-Identifier: MIT */
/*
 * The ledger: one byte a page, what the runtime believes of it. The kernel's page tables are a cache of the ledger,
 * never the other way round. Nothing here takes a lock or makes a system call.
 *
 *           arm            claim (one winner)       pre-image is kept         disarmed
 *    FREE --------> ARMED ------------------> CLAIMED -----------------> SAVED --------> OPEN
 *     ^               |    nothing to keep       |  the sweep has it      |               |  the sweep took the
 * pre-image |               v                          v                        |               |
 *     +---------- LEAVING <----------------------+                        |               |
 *     |  disarmed                                                         |               |
 *     +-------------------------------------------------------------------+---------------+
 *
 * WATCHED is ARMED with nothing to keep: a track waits for the next write to the page, and a running snapshot has the
 * page already, or never wanted it. It is left as ARMED is, by a write alone; the sweep of a region that is tracked
 * leaves pages WATCHED where it would disarm them.
 *
 * INV-CLAIM: a page leaves ARMED by compare-and-swap only, and whoever wins saves it. Nobody takes the protection off a
 * CLAIMED page but its claimant, and he only after he has moved it on: the bytes are safe before a write can land.
 * INV-IDEMPOTENT: a page that is neither ARMED, WATCHED nor CLAIMED may be disarmed by anybody inside the epoch:
 * nothing is lost. INV-OPEN: a page that is FREE or OPEN carries no mark: its disarming has returned. SAVED and LEAVING
 * may still carry it.
 *
 * `touched` has a bit for each block of 64 pages: set after a page of it took a state in which it may carry no mark,
 * and cleared, before it is looked at, by whoever arms for the next snapshot; so he need not look at all pages.
 *
 * Threads: every entry is atomic. Arming (FREE -> ARMED or WATCHED) is done by one thread, under the region's lock and
 * while faults are held; see fault.h.
 */
#ifndef UFFDWP_REGION_LEDGER_H
#define UFFDWP_REGION_LEDGER_H

#include <stdatomic.h>
#include <stdint.h>

enum ledger_state {
	LEDGER_FREE = 0,
	LEDGER_ARMED = 1,
	LEDGER_CLAIMED = 2,
	LEDGER_SAVED = 3,
	LEDGER_LEAVING = 4,
	LEDGER_OPEN = 5,
	LEDGER_LOST = 6, /* was armed; an event took the mark and, for anonymous memory, the content */
	LEDGER_WATCHED = 7,
};

struct ledger {
	_Atomic uint8_t *pages;
	uint64_t count; /* entries, one for each page of the capacity */
	_Atomic uint64_t *touched;
};

#define LEDGER_BLOCK_PAGES 64
#define LEDGER_TOUCHED_PAGES (64 * LEDGER_BLOCK_PAGES) /* of a word of `touched` */

/* The page carries its mark, as far as is known, and nobody is letting it go. */
static inline int ledger_is_marked(enum ledger_state state)
{
	return state == LEDGER_ARMED || state == LEDGER_WATCHED;
}

static inline void ledger_touch(struct ledger *ledger, uint64_t page)
{
	_Atomic uint64_t *word = &ledger->touched[page / LEDGER_TOUCHED_PAGES];
	uint64_t bit = 1ull << (page / LEDGER_BLOCK_PAGES % 64);

	if (!(atomic_load_explicit(word, memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(word, bit, memory_order_release);
}

static inline enum ledger_state ledger_get(const struct ledger *ledger, uint64_t page)
{
	return (enum ledger_state)atomic_load_explicit(&ledger->pages[page], memory_order_acquire);
}

/* Release: what was written before (a pre-image) is seen by whoever reads the new state. */
static inline void ledger_set(struct ledger *ledger, uint64_t page, enum ledger_state state)
{
	atomic_store_explicit(&ledger->pages[page], (uint8_t)state, memory_order_release);
	if (!ledger_is_marked(state))
		ledger_touch(ledger, page);
}

/* 1: this thread moved the page from `from` to `to`. */
static inline int ledger_move(struct ledger *ledger, uint64_t page, enum ledger_state from, enum ledger_state to)
{
	uint8_t expected = (uint8_t)from;

	if (!atomic_compare_exchange_strong_explicit(&ledger->pages[page], &expected, (uint8_t)to, memory_order_acq_rel,
	                                             memory_order_acquire))
		return 0;
	if (!ledger_is_marked(to))
		ledger_touch(ledger, page);
	return 1;
}

/* 1: this thread lets the page go, without a pre-image. */
static inline int ledger_leave(struct ledger *ledger, uint64_t page)
{
	return ledger_move(ledger, page, LEDGER_ARMED, LEDGER_LEAVING) ||
	       ledger_move(ledger, page, LEDGER_WATCHED, LEDGER_LEAVING);
}

/* A disarming of this page has returned. */
static inline void ledger_disarmed(struct ledger *ledger, uint64_t page)
{
	switch (ledger_get(ledger, page)) {
	case LEDGER_LEAVING:
		ledger_move(ledger, page, LEDGER_LEAVING, LEDGER_FREE);
		break;
	case LEDGER_SAVED:
		ledger_move(ledger, page, LEDGER_SAVED, LEDGER_OPEN);
		break;
	default:
		break;
	}
}

/* Relaxed: the store to the phase that ends the holding of faults publishes it. */
static inline void ledger_set_range(struct ledger *ledger, uint64_t first, uint64_t end, enum ledger_state state)
{
	for (uint64_t page = first; page < end; page++)
		atomic_store_explicit(&ledger->pages[page], (uint8_t)state, memory_order_relaxed);
	for (uint64_t page = first; page < end && !ledger_is_marked(state); page += LEDGER_BLOCK_PAGES)
		ledger_touch(ledger, page);
	if (end > first && !ledger_is_marked(state))
		ledger_touch(ledger, end - 1);
}

static inline uint64_t ledger_count_marked(const struct ledger *ledger, uint64_t first, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t page = first; page < end; page++)
		count += (uint64_t)ledger_is_marked(
		        (enum ledger_state)atomic_load_explicit(&ledger->pages[page], memory_order_relaxed));
	return count;
}

#endif
