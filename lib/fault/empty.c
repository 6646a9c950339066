/* SPDX-License-Identifier: MIT */
/*
 * Accesses to empty page-table entries, of the mechanisms whose entries are their own (rearm, minor). Keeps INV-REARM
 * (region/rearm.c): of an armed page the entry is filled with the mark on, or only after the page was preserved.
 *
 *   page is      read                                 write
 *   ARMED        claim, fill with the mark, ARMED     as any write: claim, keep, mark saved, fill plain, disarm
 *                (or as a write, where that cannot
 *                be done in one step)
 *   WATCHED      the same, WATCHED again              as any write: let go, fill plain, disarm
 *   CLAIMED      wait for the claimant                wait for the claimant
 *   others       fill plain                           fill plain
 *
 * (Of the others, what still carries a mark is being let go: its bytes are safe, a write may land.)
 *
 * The claim keeps the sweep and others away while the entry is filled. Only a phase in which nothing disarms in bulk
 * re-arms: when a snapshot has failed (RELEASE) a read lets go as a write does.
 *
 * A page that is not armed is filled inside the epoch, so before a next arming begins. Part of the fault path.
 */
#include <errno.h>

#include "fault/fault.h"
#include "region/view.h"

/* How many fills in a row the kernel may refuse for want of memory before it is believed. */
#define EMPTY_PATIENCE 64

void fault_wake_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	if (region->uffd >= 0 && region->delivery != UFFDWP_DELIVERY_INLINE)
		region->k->uffd_wake(region->uffd, (uintptr_t)region_address(region, first),
		                     (end - first) << region->page_shift);
}

static void wake_page(struct uffdwp_region *region, uint64_t page)
{
	fault_wake_pages(region, page, page + 1);
}

/* Why the entry of an armed page is empty, if a page of the file turns out to be behind it. Asked before anything is
 * read: that brings the page back into memory. */
static enum uffdwp_loss cause_of(struct uffdwp_region *region, uint64_t page)
{
	return region->mechanism->empty_is_lost && region_is_swapped(region, page) ? UFFDWP_LOSS_SWAP : UFFDWP_LOSS_ZAP;
}

static void count_loss(struct uffdwp_region *region, uint64_t page, enum fill fill, enum uffdwp_loss cause)
{
	if (region->mechanism->empty_is_lost && fill != FILL_NOT_EMPTY)
		loss_add(region, fill == FILL_ZEROS ? UFFDWP_LOSS_HOLE : cause, page);
}

/* A page that was armed until this fault turns out to be a hole: if it had content at the cut, that is gone. */
static void check_hole(struct uffdwp_region *region, uint64_t page, enum fill fill)
{
	struct preserve *preserve = atomic_load(&region->preserve);

	if (fill == FILL_ZEROS && preserve && page < preserve->end_page && preserve->content &&
	    atomic_load_explicit(&preserve->content[page / 64], memory_order_relaxed) >> (page % 64) & 1)
		fault_fail(region, preserve, -ENODATA, page);
}

void fault_unclaimed(struct fault *fault, uint64_t page)
{
	if (fault->by == FAULT_BY_HANDLER)
		atomic_store(&fault->region->again, 1);
	else
		wake_page(fault->region, page);
}

/* An event is on its way: who reads it comes back. */
static enum fault_verdict again(const struct fault *fault)
{
	if (fault->by == FAULT_BY_HANDLER)
		atomic_store(&fault->region->again, 1);
	return FAULT_AGAIN;
}

/* How often in a row this page was refused. A hint: several pages at once are counted together or anew. */
static uint64_t refused_again(struct uffdwp_region *region, uint64_t page)
{
	uint64_t refused = atomic_load_explicit(&region->refused, memory_order_relaxed);
	uint64_t times = refused >> 8 == page ? (refused & 0xff) + 1 : 1;

	atomic_store_explicit(&region->refused, page << 8 | (times & 0xff), memory_order_relaxed);
	return times;
}

/* Nothing is registered there any more, or the kernel has no page. That may pass; when it does not, it shall say so
 * itself: under inline delivery the signal is passed on; a thread that sleeps is let go by taking the page out of the
 * registration. */
static enum fault_verdict refuse(struct fault *fault, int error)
{
	struct uffdwp_region *region = fault->region;

	if (error == -ENOENT || error == -ESRCH) {
		wake_page(region, fault->page);
		return FAULT_DONE;
	}
	if (refused_again(region, fault->page) < EMPTY_PATIENCE)
		return again(fault);
	if (fault->by != FAULT_BY_HANDLER)
		return FAULT_REFUSED;
	if (ledger_move(&region->ledger, fault->page, LEDGER_ARMED, LEDGER_LOST) ||
	    ledger_move(&region->ledger, fault->page, LEDGER_WATCHED, LEDGER_LOST)) {
		loss_add(region, UFFDWP_LOSS_UNKNOWN, fault->page);
		fault_fail_page(region, error, fault->page);
	}
	region->k->uffd_unregister(region->uffd, (uintptr_t)region_address(region, fault->page), region->page_bytes);
	atomic_store(&region->torn, 1); /* registered again before the next arming */
	return FAULT_DONE;
}

enum fault_verdict fault_unfilled(struct fault *fault, int error)
{
	return error == -EAGAIN ? again(fault) : refuse(fault, error);
}

static void count_filled(struct uffdwp_region *region, enum fill fill)
{
	if (fill != FILL_NOT_EMPTY)
		fault_count(&region->counters.pages_filled, 1);
}

/* 1: armed again and the reader goes on. 0: cannot be, it is a write. Else a negative errno. A hole that is found may
 * have had content: whoever tracks is told. */
static int rearm(struct fault *fault, enum ledger_state state)
{
	struct uffdwp_region *region = fault->region;

	if (!ledger_move(&region->ledger, fault->page, state, LEDGER_CLAIMED))
		return -EBUSY;
	int filled = region->mechanism->fill(region, fault->page, 1);

	if (filled == FILL_ZEROS)
		region_note_written(region, fault->page);
	ledger_set(&region->ledger, fault->page, state);
	if (filled < 0) {
		fault_unclaimed(fault, fault->page);
		return filled == -EOPNOTSUPP ? 0 : filled;
	}
	count_loss(region, fault->page, (enum fill)filled, fault->cause);
	if (state == LEDGER_ARMED)
		check_hole(region, fault->page, (enum fill)filled);
	if (filled != FILL_NOT_EMPTY)
		fault_count(&region->counters.pages_rearmed, 1);
	count_filled(region, (enum fill)filled);
	wake_page(region, fault->page);
	return 1;
}

/* A write to an armed page, or what counts as one. fault_fill() comes when its bytes are safe. */
static enum fault_verdict write_armed(struct fault *fault, enum phase phase)
{
	fault->access = FAULT_WRITE_EMPTY;
	fault->was_armed = ledger_get(&fault->region->ledger, fault->page) == LEDGER_ARMED;
	return fault_let_go(fault, phase);
}

/* A page that is not armed; one that is still on its way out may have been lost before: whoever fills it counts. */
static enum fault_verdict fill_plain(struct fault *fault, enum ledger_state state)
{
	struct uffdwp_region *region = fault->region;
	int is_leaving = state == LEDGER_SAVED || state == LEDGER_LEAVING;
	enum uffdwp_loss cause = is_leaving ? cause_of(region, fault->page) : UFFDWP_LOSS_HOLE;

	view_break(region, fault->page, fault->page + 1); /* who lets it go may not have come so far */
	int filled = region->mechanism->fill(region, fault->page, 0);

	if (filled < 0)
		return fault_unfilled(fault, filled);
	if (is_leaving)
		count_loss(region, fault->page, (enum fill)filled, cause);
	count_filled(region, (enum fill)filled);
	wake_page(region, fault->page);
	return FAULT_DONE;
}

int fault_fill(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	int filled = region->mechanism->fill(region, fault->page, 0);

	if (filled < 0)
		return filled;
	if (fault->was_armed)
		check_hole(region, fault->page, (enum fill)filled);
	count_loss(region, fault->page, (enum fill)filled, fault->cause);
	count_filled(region, (enum fill)filled);
	return filled;
}

enum fault_verdict fault_empty(struct fault *fault, enum phase phase)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = ledger_get(&region->ledger, fault->page);
	int error = 0;

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	/* A barrier may return only when the mark is off (INV-OPEN). */
	if (fault->by == FAULT_BY_BARRIER && (state == LEDGER_SAVED || state == LEDGER_LEAVING))
		return fault_let_go(fault, phase);
	if (!ledger_is_marked(state))
		return fill_plain(fault, state);
	fault->cause = cause_of(region, fault->page);
	if (fault->access == FAULT_READ_EMPTY && phase != PHASE_RELEASE)
		error = rearm(fault, state);
	if (error == -EBUSY)
		return FAULT_BUSY;
	if (error < 0)
		return fault_unfilled(fault, error);
	return error ? FAULT_DONE : write_armed(fault, phase);
}
