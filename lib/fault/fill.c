/* SPDX-License-Identifier: MIT */
/*
 * What follows when an empty entry is filled, or cannot be: losses and fills are counted, a hole where content was
 * fails the snapshot, a refused call is tried again, or taken as final. How entries are filled: region/mechanism.h.
 * Part of the fault path.
 */
#include "fault/fill.h"

#include <errno.h>

#include "base/invariant.h"
#include "base/math.h"
#include "region/mapper.h"

/* How many fills in a row the kernel may refuse for want of memory before that is taken as final. */
#define FILL_RETRIES 64

/* After a move of the page tables all entries are empty, and none has lost anything by that. */
static int fill_empty_is_lost(const struct uffdwp_region *region)
{
	return region->mechanism->empty_is_lost && !atomic_load_explicit(&region->moved, memory_order_relaxed);
}

enum uffdwp_loss fill_cause_of(struct uffdwp_region *region, uint64_t page)
{
	return fill_empty_is_lost(region) && region_is_swapped(region, page) ? UFFDWP_LOSS_SWAP : UFFDWP_LOSS_ZAP;
}

void fill_count_loss(struct uffdwp_region *region, uint64_t page, enum fill fill, enum uffdwp_loss cause)
{
	if (fill_empty_is_lost(region) && fill != FILL_NOT_EMPTY)
		loss_add(region, fill == FILL_ZEROS ? UFFDWP_LOSS_HOLE : cause, page);
}

void fill_check_hole(struct uffdwp_region *region, uint64_t page, enum fill fill)
{
	struct preserve *preserve = atomic_load(&region->preserve);

	if (fill == FILL_ZEROS && preserve && page < preserve->end_page && preserve->content &&
	    atomic_load_explicit(&preserve->content[page / 64], memory_order_relaxed) >> (page % 64) & 1)
		fault_fail(region, preserve, -ENODATA, page);
}

void fault_unclaimed(struct fault *fault, uint64_t page)
{
	if (fault->by == FAULT_BY_HANDLER && page == fault->page)
		atomic_store(&fault->region->again, 1);
	else
		fault_wake_pages(fault->region, page, page + 1);
}

/* An event is pending: the thread that reads it comes back. */
static enum fault_verdict fill_again(const struct fault *fault)
{
	if (fault->by == FAULT_BY_HANDLER)
		atomic_store(&fault->region->again, 1);
	return FAULT_AGAIN;
}

/* 1: this page, or others that are counted along with it, was refused too often in a row. The count is not the page's
 * alone: threads that wait at different pages would begin it anew in turns, for ever. */
static int fill_is_refused_for_good(struct uffdwp_region *region, uint64_t page)
{
	_Atomic uint8_t *count = &region->refused[page % REGION_REFUSED];
	unsigned times = atomic_load_explicit(count, memory_order_relaxed) + 1u;
	int is_final = times >= FILL_RETRIES;

	atomic_store_explicit(count, (uint8_t)(is_final ? 0 : times), memory_order_relaxed);
	return is_final;
}

/* Nothing is registered there any more, or the kernel has no page. That may pass; when it does not, it shall say so
 * itself: under inline delivery the signal is passed on; a thread that sleeps is resumed by taking the page out of the
 * registration. */
static enum fault_verdict fill_refuse(struct fault *fault, int error)
{
	struct uffdwp_region *region = fault->region;

	if (error == -ENOENT || error == -ESRCH) {
		fault_wake_pages(region, fault->page, fault->page + 1);
		return FAULT_DONE;
	}
	if (!fill_is_refused_for_good(region, fault->page))
		return fill_again(fault);
	if (fault->by != FAULT_BY_HANDLER)
		return FAULT_REFUSED;
	if (ledger_move(&region->ledger, fault->page, LEDGER_ARMED, LEDGER_LOST) ||
	    ledger_move(&region->ledger, fault->page, LEDGER_WATCHED, LEDGER_LOST) ||
	    ledger_move(&region->ledger, fault->page, LEDGER_STORED, LEDGER_LOST)) {
		loss_add(region, UFFDWP_LOSS_UNKNOWN, fault->page);
		fault_fail_page(region, error, fault->page);
	}
	if (region->mappers)
		mappers_give_up_page(region, fault->page);
	else
		region->k->uffd_unregister(region->uffd, (uintptr_t)region_address(region, fault->page),
		                           region->page_bytes);
	atomic_store(&region->torn, 1); /* registered again before the next arming */
	return FAULT_DONE;
}

enum fault_verdict fault_unfilled(struct fault *fault, int error)
{
	return error == -EAGAIN ? fill_again(fault) : fill_refuse(fault, error);
}

void fill_count(struct uffdwp_region *region, uint64_t page, enum fill fill)
{
	_Atomic uint8_t *refused = &region->refused[page % REGION_REFUSED];

	if (atomic_load_explicit(refused, memory_order_relaxed))
		atomic_store_explicit(refused, 0, memory_order_relaxed);
	if (fill != FILL_NOT_EMPTY)
		fault_count(&region->counters.pages_filled, 1);
	if (fill == FILL_ZEROS)
		fault_count(&region->holes_filled, 1);
}

/* Which of these pages this thread has claimed from a state. */
static uint64_t fill_claim(struct uffdwp_region *region, uint64_t first, uint64_t wanted, enum ledger_state from)
{
	uint64_t claimed = 0;

	for (uint64_t left = wanted; left; left &= left - 1) {
		unsigned at = (unsigned)__builtin_ctzll(left);

		claimed |= (uint64_t)ledger_move(&region->ledger, first + at, from, LEDGER_CLAIMED) << at;
	}
	return claimed;
}

static void fill_unclaim(struct uffdwp_region *region, uint64_t first, uint64_t claimed, enum ledger_state to)
{
	for (; claimed; claimed &= claimed - 1)
		ledger_set(&region->ledger, first + (uint64_t)__builtin_ctzll(claimed), to);
}

/* Fills what was claimed, in runs. */
static void fill_claimed(struct uffdwp_region *region, uint64_t first, uint64_t claimed)
{
	while (claimed) {
		unsigned from = (unsigned)__builtin_ctzll(claimed);
		uint64_t rest = ~(claimed >> from);
		unsigned count = rest ? (unsigned)__builtin_ctzll(rest) : 64;

		if (from + count > 64)
			count = 64 - from;
		mechanism_fill_run(region, first + from, first + from + count, 1);
		claimed &= ~(math_low_bits(count) << from);
	}
}

void fault_fill_protected(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t wanted)
{
	uint64_t armed = fill_claim(region, first, wanted, LEDGER_ARMED);
	uint64_t watched = fill_claim(region, first, wanted & ~armed, LEDGER_WATCHED);

	if (!(armed | watched))
		return;
	fill_claimed(region, first, armed | watched);
	fill_unclaim(region, first, armed, LEDGER_ARMED);
	fill_unclaim(region, first, watched, LEDGER_WATCHED);
	fault_wake_pages(region, first, end); /* a thread that met a claim comes again */
}

int fault_fill(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;

	INVARIANT(REARM, !ledger_has(&region->ledger, fault->page, fault->page + 1,
	                             LEDGER_BITS_PROTECTED | LEDGER_BIT(CLAIMED)));
	int filled = region->mechanism->fill(region, fault->page, 0);

	if (filled < 0)
		return filled;
	if (fault->was_armed)
		fill_check_hole(region, fault->page, (enum fill)filled);
	fill_count_loss(region, fault->page, (enum fill)filled, fault->cause);
	fill_count(region, fault->page, (enum fill)filled);
	return filled;
}
