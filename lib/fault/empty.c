/* SPDX-License-Identifier: MIT */
/*
 * Accesses to empty page-table entries, where they come to us (region_owns_empty()). Keeps INV-REARM
 * (region/rearm.c): the entry of an armed page is filled with the wp bit set, or only after the page was preserved.
 *
 *   page is      read                                 write
 *   ARMED        claim, fill with wp bit, ARMED     as any write: claim, keep, set SAVED, fill plain, disarm
 *                (or as a write, where that cannot
 *                be done in one step)
 *   WATCHED,     the same, WATCHED, STORED again      as any write: unprotect, fill plain
 *   STORED
 *   CLAIMED      wait for the claimant                wait for the claimant
 *   others       fill plain                           fill plain
 *
 * (A page of the others that still carries a wp bit is being unprotected: its bytes are safe, a write may land.)
 *
 * The claim keeps the sweep and others away while the entry is filled. Only a phase in which nothing disarms in bulk
 * re-arms: when a snapshot has failed (RELEASE) a read unprotects as a write does.
 *
 * A page that is not armed is filled inside the epoch, so before a next arming begins. Part of the fault path.
 */
#include <errno.h>

#include "base/invariant.h"
#include "base/math.h"
#include "fault/fault.h"
#include "fault/fill.h"
#include "region/view.h"

/* Pages, aligned, that a read takes along after a move of the page tables: an event costs as much as mapping a hundred.
 */
#define AROUND_PAGES 64

/* What lies beside is empty as well, and a reader that goes on would fault at each page. */
static void empty_rearm_around(struct uffdwp_region *region, uint64_t page)
{
	uint64_t first = page & ~(uint64_t)(AROUND_PAGES - 1);
	uint64_t end = math_min_u64(first + AROUND_PAGES, region_pages(region));
	uint64_t beside = math_low_bits(end - first) & ~(1ull << (page - first));

	if (atomic_load_explicit(&region->moved, memory_order_relaxed) && !atomic_load(&region->lazy) &&
	    region->fills & UFFDWP_PROBE_FILL_CONTINUE_WP)
		fault_fill_protected(region, first, end, beside);
}

/* 1: armed again and the reader goes on. 0: cannot be, it is a write. Else a negative errno. A hole that is found may
 * have had content: it is reported to tracks. */
static int empty_rearm(struct fault *fault, enum ledger_state state)
{
	struct uffdwp_region *region = fault->region;

	if (!ledger_move(&region->ledger, fault->page, state, LEDGER_CLAIMED))
		return state == LEDGER_STORED ? -EAGAIN : -EBUSY; /* the sweep, which took it, wakes no thread */
	int filled = region->mechanism->fill(region, fault->page, 1);

	if (filled == FILL_ZEROS)
		region_note_written(region, fault->page);
	INVARIANT(CLAIM, ledger_get(&region->ledger, fault->page) == LEDGER_CLAIMED);
	ledger_set(&region->ledger, fault->page, state);
	if (filled == -EOPNOTSUPP) { /* this thread goes on with the page: no reason for others to wait */
		fault_wake_pages(region, fault->page, fault->page + 1);
		return 0;
	}
	if (filled < 0) {
		fault_unclaimed(fault, fault->page);
		return filled;
	}
	fill_count_loss(region, fault->page, (enum fill)filled, fault->cause);
	if (state == LEDGER_ARMED)
		fill_check_hole(region, fault->page, (enum fill)filled);
	if (filled != FILL_NOT_EMPTY)
		fault_count(&region->counters.pages_rearmed, 1);
	fill_count(region, fault->page, (enum fill)filled);
	fault_wake_pages(region, fault->page, fault->page + 1);
	empty_rearm_around(region, fault->page);
	return 1;
}

/* A write to an armed page, or what counts as one. fault_fill() comes when its bytes are safe. */
static enum fault_verdict empty_write_armed(struct fault *fault, enum phase phase)
{
	fault->access = FAULT_WRITE_EMPTY;
	fault->was_armed = ledger_get(&fault->region->ledger, fault->page) == LEDGER_ARMED;
	return fault_unprotect(fault, phase);
}

/* A page that is not armed; one that is being unprotected may have been lost before: the thread that fills it
 * counts. */
static enum fault_verdict empty_fill_plain(struct fault *fault, enum ledger_state state)
{
	struct uffdwp_region *region = fault->region;
	int is_leaving = state == LEDGER_SAVED || state == LEDGER_LEAVING;
	enum uffdwp_loss cause = is_leaving ? fill_cause_of(region, fault->page) : UFFDWP_LOSS_HOLE;

	INVARIANT(REARM, !ledger_has(&region->ledger, fault->page, fault->page + 1,
	                             LEDGER_BITS_PROTECTED | LEDGER_BIT(CLAIMED)));
	/* The thread that unprotects it may not have come so far. */
	if (view_break(region, fault->page, fault->page + 1))
		return fault_unfilled(fault, -EAGAIN);
	int filled = region->mechanism->fill(region, fault->page, 0);

	if (filled < 0)
		return fault_unfilled(fault, filled);
	if (is_leaving)
		fill_count_loss(region, fault->page, (enum fill)filled, cause);
	fill_count(region, fault->page, (enum fill)filled);
	fault_wake_pages(region, fault->page, fault->page + 1);
	return FAULT_DONE;
}

enum fault_verdict fault_empty(struct fault *fault, enum phase phase)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = ledger_get(&region->ledger, fault->page);
	int error = 0;

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	/* A barrier may return only when the wp bit is cleared (INV-OPEN). */
	if (fault->by == FAULT_BY_BARRIER && ledger_is_leaving(state))
		return fault_unprotect(fault, phase);
	if (!ledger_is_protected(state))
		return empty_fill_plain(fault, state);
	fault->cause = fill_cause_of(region, fault->page);
	if (fault->access == FAULT_READ_EMPTY && phase != PHASE_RELEASE)
		error = empty_rearm(fault, state);
	if (error == -EBUSY)
		return FAULT_BUSY;
	if (error < 0)
		return fault_unfilled(fault, error);
	return error ? FAULT_DONE : empty_write_armed(fault, phase);
}
