/* SPDX-License-Identifier: MIT */
/*
 * The ledger: one byte a page, what the runtime believes of it. The kernel's page tables are a cache of the ledger,
 * never the reverse. Nothing here takes a lock or makes a system call.
 *
 *           arm            claim (one thread)       pre-image is kept         disarmed
 *    FREE --------> ARMED ------------------> CLAIMED -----------------> SAVED --------> OPEN
 *     ^               |    nothing to keep       |  the sweep has it      |               |  the sweep took the
 * pre-image |               v                          v                        |               |
 *     +---------- LEAVING <----------------------+                        |               |
 *     |  disarmed                                                         |               |
 *     +-------------------------------------------------------------------+---------------+
 *
 * WATCHED is ARMED with nothing to keep: a track, or a child, waits for the next write to the page, and a running
 * snapshot has the page already, or never wanted it. It is left as ARMED is, by a write alone; the sweep of a region
 * whose protection others want leaves pages WATCHED where it would disarm them.
 *
 * STORED is WATCHED with a pre-image that waits in the pool for the sweep: a cut that is made beside a running snapshot
 * (cut/beside.c) has armed the page again after the snapshot had saved it.
 *
 *           arm for others           the sweep has it
 *    SAVED ---------------> STORED -------------------> WATCHED
 *    OPEN       ^              |
 *               +--------------+ a write: SAVED; to keep is nothing any more
 *
 * INV-LEDGER: a page changes its state only as the table of ledger_may_become() has it.
 *
 * INV-CLAIM: a page leaves ARMED by compare-and-swap only, and the thread whose compare-and-swap succeeds saves it. No
 * thread takes the protection off a CLAIMED page but its claimant, which does so only after it has moved the page on:
 * the bytes are safe before a write can land. INV-IDEMPOTENT: a page that is neither ARMED, WATCHED, STORED nor CLAIMED
 * may be disarmed by any thread inside the epoch that has broken it off all views: nothing is lost. INV-OPEN: a page
 * that is FREE or OPEN carries no wp bit: its disarming has returned. SAVED, LEAVING and LOST may still carry it:
 * MADV_FREE sends the event of a discard, and leaves the wp bit where it is.
 *
 * `touched` has a bit for each block of 64 pages: set after a page of it took a state in which it may carry no wp bit,
 * and cleared, before it is looked at, by the thread that arms for the next snapshot; so that thread need not look at
 * all pages.
 *
 * Threads: every entry is atomic. Arming (FREE -> ARMED or WATCHED) is done by one thread, under the region's lock and
 * while faults are stalled; see fault.h. Then only the sweep moves pages, from ARMED over CLAIMED to WATCHED, and takes
 * what was saved: what it may meet is moved by compare-and-swap.
 */
#ifndef UFFDWP_REGION_LEDGER_H
#define UFFDWP_REGION_LEDGER_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/invariant.h"

enum ledger_state {
	LEDGER_FREE = 0,
	LEDGER_ARMED = 1,
	LEDGER_CLAIMED = 2,
	LEDGER_SAVED = 3,
	LEDGER_LEAVING = 4,
	LEDGER_OPEN = 5,
	LEDGER_LOST = 6, /* was armed; an event took the content, and the wp bit, or perhaps not: FREE when disarmed */
	LEDGER_WATCHED = 7,
	LEDGER_STORED = 8,
};

struct ledger {
	_Atomic uint8_t *pages;
	uint64_t count; /* entries, one for each page of the capacity */
	_Atomic uint64_t *touched;
};

#define LEDGER_BLOCK_PAGES 64
#define LEDGER_TOUCHED_PAGES (64 * LEDGER_BLOCK_PAGES) /* of a word of `touched` */

#define LEDGER_BIT(name) (1u << LEDGER_##name)

/* ledger_is_protected() of several. */
#define LEDGER_BITS_PROTECTED (LEDGER_BIT(ARMED) | LEDGER_BIT(WATCHED) | LEDGER_BIT(STORED))

/* Arming takes a page from any state in which no thread works on it; the sweep frees what it has taken a slot of; what
 * a snapshot that failed has left is about to be FREE. */
static inline int ledger_may_become(enum ledger_state from, enum ledger_state to)
{
	static const uint16_t next[] = {
	        [LEDGER_FREE] = LEDGER_BIT(ARMED) | LEDGER_BIT(WATCHED) | LEDGER_BIT(FREE),
	        [LEDGER_ARMED] = LEDGER_BIT(CLAIMED) | LEDGER_BIT(LEAVING) | LEDGER_BIT(LOST) | LEDGER_BIT(WATCHED),
	        [LEDGER_WATCHED] = LEDGER_BIT(CLAIMED) | LEDGER_BIT(LEAVING) | LEDGER_BIT(LOST) | LEDGER_BIT(ARMED),
	        [LEDGER_STORED] = LEDGER_BIT(CLAIMED) | LEDGER_BIT(LEAVING) | LEDGER_BIT(LOST) | LEDGER_BIT(WATCHED) |
	                          LEDGER_BIT(SAVED),
	        [LEDGER_CLAIMED] = LEDGER_BIT(SAVED) | LEDGER_BIT(LEAVING) | LEDGER_BIT(ARMED) | LEDGER_BIT(WATCHED) |
	                           LEDGER_BIT(STORED),
	        [LEDGER_SAVED] = LEDGER_BIT(OPEN) | LEDGER_BIT(FREE) | LEDGER_BIT(LEAVING) | LEDGER_BIT(STORED),
	        [LEDGER_LEAVING] = LEDGER_BIT(FREE) | LEDGER_BIT(ARMED) | LEDGER_BIT(WATCHED) | LEDGER_BIT(LEAVING),
	        [LEDGER_OPEN] = LEDGER_BIT(FREE) | LEDGER_BIT(LEAVING) | LEDGER_BIT(STORED),
	        [LEDGER_LOST] = LEDGER_BIT(FREE) | LEDGER_BIT(ARMED) | LEDGER_BIT(WATCHED) | LEDGER_BIT(LEAVING),
	};

	return next[from] >> to & 1;
}

/* The page carries its wp bit, as far as is known, and no thread is unprotecting it. */
static inline int ledger_is_protected(enum ledger_state state)
{
	return state == LEDGER_ARMED || state == LEDGER_WATCHED || state == LEDGER_STORED;
}

/* After the page's state was stored. That store, this load, the clearing of the bit in ledger_look() and the load of
 * the state that follows there are all sequentially consistent: either this thread finds the bit cleared, and sets it,
 * or the thread that cleared it finds the state. */
static inline void ledger_touch(struct ledger *ledger, uint64_t page)
{
	_Atomic uint64_t *word = &ledger->touched[page / LEDGER_TOUCHED_PAGES];
	uint64_t bit = 1ull << (page / LEDGER_BLOCK_PAGES % 64);

	if (!(atomic_load(word) & bit))
		atomic_fetch_or(word, bit);
}

/* The same after stores that are relaxed: the exchange orders them. */
static inline void ledger_touch_anew(struct ledger *ledger, uint64_t page)
{
	atomic_fetch_or(&ledger->touched[page / LEDGER_TOUCHED_PAGES], 1ull << (page / LEDGER_BLOCK_PAGES % 64));
}

/* Clears the bit of a block, before its pages are looked at by ledger_get(). Partner: ledger_touch(). */
static inline void ledger_look(struct ledger *ledger, uint64_t block)
{
	atomic_fetch_and(&ledger->touched[block / 64], ~(1ull << (block % 64)));
}

static inline enum ledger_state ledger_get(const struct ledger *ledger, uint64_t page)
{
	return (enum ledger_state)atomic_load(&ledger->pages[page]);
}

/* Release: what was written before (a pre-image) is seen by a thread that reads the new state. */
static inline void ledger_set(struct ledger *ledger, uint64_t page, enum ledger_state state)
{
	INVARIANT(LEDGER, ledger_may_become(ledger_get(ledger, page), state));
	atomic_store(&ledger->pages[page], (uint8_t)state);
	if (!ledger_is_protected(state))
		ledger_touch(ledger, page);
}

/* 1: this thread moved the page from `from` to `to`. */
static inline int ledger_move(struct ledger *ledger, uint64_t page, enum ledger_state from, enum ledger_state to)
{
	uint8_t expected = (uint8_t)from;

	INVARIANT(LEDGER, ledger_may_become(from, to));
	if (!atomic_compare_exchange_strong_explicit(&ledger->pages[page], &expected, (uint8_t)to, memory_order_seq_cst,
	                                             memory_order_seq_cst))
		return 0;
	if (!ledger_is_protected(to))
		ledger_touch(ledger, page);
	return 1;
}

/* The state that the page was found in: if that is protected, this thread unprotects the page, without a pre-image. By
 * one look: a page that is CLAIMED now may be protected again a moment later. */
static inline enum ledger_state ledger_leave(struct ledger *ledger, uint64_t page)
{
	enum ledger_state state;

	do
		state = ledger_get(ledger, page);
	while (ledger_is_protected(state) && !ledger_move(ledger, page, state, LEDGER_LEAVING));
	return state;
}

/* The page needs no pre-image any more, and its wp bit may still be there. */
static inline int ledger_is_leaving(enum ledger_state state)
{
	return state == LEDGER_SAVED || state == LEDGER_LEAVING || state == LEDGER_LOST;
}

/* A disarming of this page has returned. */
static inline void ledger_disarmed(struct ledger *ledger, uint64_t page)
{
	enum ledger_state state = ledger_get(ledger, page);

	switch (state) {
	case LEDGER_LEAVING:
	case LEDGER_LOST:
		ledger_move(ledger, page, state, LEDGER_FREE);
		break;
	case LEDGER_SAVED:
		ledger_move(ledger, page, LEDGER_SAVED, LEDGER_OPEN);
		break;
	default:
		break;
	}
}

/* 1: one of pages [first, end) is in one of these states, LEDGER_BIT()s. */
static inline int ledger_has(const struct ledger *ledger, uint64_t first, uint64_t end, unsigned states)
{
	for (uint64_t page = first; page < end; page++) {
		if (states >> ledger_get(ledger, page) & 1)
			return 1;
	}
	return 0;
}

/* Several pages of the ledger, aligned. */
typedef unsigned long __attribute__((may_alias)) ledger_word;

/* Relaxed. A word at a time: its store stores each of its bytes at once on every machine. */
static inline void ledger_fill(struct ledger *ledger, uint64_t first, uint64_t end, enum ledger_state state)
{
	uint64_t page = first;

	for (; page < end && page % sizeof(ledger_word); page++)
		atomic_store_explicit(&ledger->pages[page], (uint8_t)state, memory_order_relaxed);
	for (; page + sizeof(ledger_word) <= end; page += sizeof(ledger_word))
		__atomic_store_n((ledger_word *)(void *)&ledger->pages[page],
		                 (ledger_word)state * (~(ledger_word)0 / 0xff), __ATOMIC_RELAXED);
	for (; page < end; page++)
		atomic_store_explicit(&ledger->pages[page], (uint8_t)state, memory_order_relaxed);
}

static inline int ledger_range_may_become(const struct ledger *ledger, uint64_t first, uint64_t end,
                                          enum ledger_state state)
{
	int may = 1;

	for (uint64_t page = first; page < end && may; page++) {
		enum ledger_state now = ledger_get(ledger, page);

		may = now == state || state == LEDGER_LEAVING || ledger_may_become(now, state);
	}
	return may;
}

/* While faults are stalled, so that any page may be LEAVING next: nothing of it is needed any more. The store to the
 * phase that ends the stall publishes it. */
static inline void ledger_set_range(struct ledger *ledger, uint64_t first, uint64_t end, enum ledger_state state)
{
	INVARIANT(LEDGER, ledger_range_may_become(ledger, first, end, state));
	ledger_fill(ledger, first, end, state);
	for (uint64_t page = first; page < end && !ledger_is_protected(state); page += LEDGER_BLOCK_PAGES)
		ledger_touch_anew(ledger, page);
	if (end > first && !ledger_is_protected(state))
		ledger_touch_anew(ledger, end - 1);
}

static inline uint64_t ledger_count_protected(const struct ledger *ledger, uint64_t first, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t page = first; page < end; page++)
		count += (uint64_t)ledger_is_protected(
		        (enum ledger_state)atomic_load_explicit(&ledger->pages[page], memory_order_relaxed));
	return count;
}

#endif
