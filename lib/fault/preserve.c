/* SPDX-License-Identifier: MIT */
/*
 * A fault is resolved: claim, copy, set SAVED, disarm, wake. The rules and invariants are in fault.h, the states of a
 * page in region/ledger.h. Part of the fault path.
 */
#include <errno.h>
#include <string.h>

#include "base/invariant.h"
#include "base/math.h"
#include "base/probe_points.h"
#include "fault/fault.h"
#include "fault/fill.h"
#include "fault/window.h"
#include "kernel/abi.h"
#include "region/lazy.h"
#include "region/view.h"

/* How many times in a row, some 20 us apart, the kernel may refuse to unprotect a page of an inline writer before that
 * is taken as final. */
#define DISARM_RETRIES 250

static int preserve_is_fault(const struct fault *fault)
{
	return fault->by == FAULT_BY_HANDLER || fault->by == FAULT_BY_WRITER;
}

/* The kernel has no mapping left for a border between protected pages and others (mprotect.c keeps away from that): the
 * last resort is to have no borders at all. */
static void preserve_unprotect_all(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve)
		fault_fail(region, preserve, -ENOMEM, fault->page);
	for (uint64_t page = 0; page < region->ledger.count; page++)
		ledger_leave(&region->ledger, page);
	region->mechanism->disarm(region, 0, region->ledger.count);
}

/* What was filled plain carries no wp bit: alone it needs no disarming. */
static int preserve_open_pages(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;
	int filled = fault->access == FAULT_WRITE ? FILL_NOT_EMPTY : fault_fill(fault);

	if (filled < 0)
		return filled;
	/* After a move of the page tables what lies beside is empty, too, and would fault once more. */
	if (filled != FILL_NOT_EMPTY && end - first > 1 && atomic_load_explicit(&region->moved, memory_order_relaxed))
		mechanism_fill_run(region, first, end, 0);
	if (filled == FILL_NOT_EMPTY || end - first > 1)
		return region->mechanism->disarm(region, first, end);
	fault_wake_pages(region, first, first + 1);
	return 0;
}

/* The fault is counted before its writer is woken, because the writer may look at the counter; not if the writer will
 * come back. */
static int preserve_unprotect(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;

	INVARIANT(IDEMPOTENT, !ledger_has(&region->ledger, first, end, LEDGER_BITS_PROTECTED));
	INVARIANT(CLAIM, !ledger_has(&region->ledger, first, end, LEDGER_BIT(CLAIMED)));
	if (view_break(region, first, end)) /* a child has to be known, or to end, before: writes are stalled so long */
		return -EAGAIN;
	INVARIANT(VIEW, view_are_broken(region, first, end));
	if (preserve_is_fault(fault)) {
		fault_count(&region->counters.faults, 1);
		fault->counted++;
	}
	int error = preserve_open_pages(fault, first, end);

	if (error && preserve_is_fault(fault)) {
		atomic_fetch_sub_explicit(&region->counters.faults, 1, memory_order_relaxed);
		fault->counted--;
	}
	return error;
}

/* The kernel refuses to unprotect the page, for want of memory, or for good: by a limit or a filter that the program
 * has set since. A writer that only faulted again would do so for ever: in the end it gets its signal. */
static enum fault_verdict preserve_still_protected(struct fault *fault)
{
	if (fault->by != FAULT_BY_WRITER)
		return FAULT_DONE;
	return ++fault->refusals < DISARM_RETRIES ? FAULT_AGAIN : FAULT_REFUSED;
}

/* Nothing is registered there any more: the region came to rest, or is being closed, since the thread was stopped. The
 * kernel has taken the protection away with the registration, and nothing stops the access when it is repeated. */
static int preserve_is_at_rest(const struct fault *fault, int error)
{
	return fault->region->uffd >= 0 && (error == -ENOENT || error == -ESRCH) && fault->by != FAULT_BY_HANDLER;
}

/*
 * The wp bit may still be there although the ledger says that the page is unprotected (INV-IDEMPOTENT): clear it, wake
 * its waiters. Where that fails all are woken instead and fault again: others may rely on this wake. A handler does
 * that only when it has read everything, because the kernel hands out faults before the event that the handler waits
 * for.
 */
static enum fault_verdict preserve_disarm(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;

	PROBE3(release, region, first, end);
	int error = preserve_unprotect(fault, first, end);

	for (uint64_t page = first; page < end && !error; page++)
		ledger_disarmed(&region->ledger, page);
	if (!error || preserve_is_at_rest(fault, error))
		return FAULT_DONE;
	if (error == -ENOMEM && region->uffd < 0)
		preserve_unprotect_all(fault);
	if (fault->by == FAULT_BY_HANDLER)
		atomic_store(&region->again, 1);
	else
		fault_wake_region(region);
	if (error == -EAGAIN)
		return FAULT_AGAIN;
	return fault->access == FAULT_WRITE ? preserve_still_protected(fault) : fault_unfilled(fault, error);
}

/* Pages are unprotected in aligned blocks of the mechanism's granularity. */
static void preserve_granule(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	uint64_t granularity = region->mechanism->granularity ? region->mechanism->granularity(region) : 1;

	*first = page & ~(granularity - 1);
	*end = math_min_u64(*first + granularity, region_pages(region));
}

/* The same, and whole blocks where most of it will be written anyway. */
static void preserve_block_of(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	preserve_granule(region, page, first, end);
	if (*end - *first <= 1 && !window_of_area(region, page, first, end))
		window_of_block(region, page, LEDGER_BLOCK_PAGES, first, end);
}

static enum ledger_state preserve_leave(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_leave(&region->ledger, page);

	if (ledger_is_protected(state))
		fault_count(&region->counters.pages_disarmed, 1);
	return state;
}

/* No pre-image is wanted: unprotects the page, and its block; nothing of it before `lowest`, which a snapshot wants. */
static enum fault_verdict preserve_unprotect_unwanted(struct fault *fault, uint64_t lowest)
{
	struct uffdwp_region *region = fault->region;
	uint64_t first;
	uint64_t end;

	preserve_block_of(region, fault->page, &first, &end);
	if (first < lowest)
		first = lowest;
	enum ledger_state state = preserve_leave(region, fault->page);

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (!ledger_is_protected(state))
		fault_count(&region->counters.faults_repeated, 1);
	for (uint64_t page = first; page < end; page++) {
		if (page != fault->page && preserve_leave(region, page) == LEDGER_CLAIMED)
			return preserve_disarm(fault, fault->page,
			                       fault->page + 1); /* not over the claim of another thread */
	}
	return preserve_disarm(fault, first, end);
}

/* 1: no job wants the page's protection: it may be taken off. */
static int preserve_leave_watched(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_get(&region->ledger, page);

	if (state != LEDGER_WATCHED)
		return !ledger_is_protected(state) && state != LEDGER_CLAIMED;
	if (!ledger_move(&region->ledger, page, LEDGER_WATCHED, LEDGER_LEAVING))
		return 0;
	fault_count(&region->counters.pages_disarmed, 1);
	return 1;
}

/* A page that the running snapshot does not want, and what lies beside it in its block and is not wanted either. */
static enum fault_verdict preserve_unprotect_watched(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	struct ledger *ledger = &region->ledger;
	uint64_t first = fault->page;
	uint64_t end = fault->page + 1;
	uint64_t block_first;
	uint64_t block_end;

	if (!ledger_move(ledger, fault->page, LEDGER_WATCHED, LEDGER_LEAVING))
		return FAULT_BUSY; /* another writer was first, or its entry is being filled */
	preserve_block_of(region, fault->page, &block_first, &block_end);
	while (first > block_first && preserve_leave_watched(region, first - 1))
		first--;
	while (end < block_end && preserve_leave_watched(region, end))
		end++;
	fault_count(&region->counters.pages_disarmed, 1);
	return preserve_disarm(fault, first, end);
}

/*
 * Only the page that the writer faulted on is sure to be there, and only where the fault came from its wp bit; all else
 * is read by system calls, which neither crash nor wait. An empty entry that was reported to a handler was surely empty
 * before any discard that is still to be read.
 */
static int preserve_copy_page(const struct fault *fault, uint64_t page, unsigned char *to)
{
	struct uffdwp_region *region = fault->region;
	uint64_t offset = page << region->page_shift;

	if (page == fault->page && fault->by == FAULT_BY_WRITER && region_shows_page(region)) {
		memcpy(to, region_address(region, page), region->page_bytes);
		return 0;
	}
	if (page == fault->page && fault->by == FAULT_BY_HANDLER && fault->access != FAULT_WRITE)
		return region_read_empty(region, offset, to, region->page_bytes);
	return region_read(region, offset, to, region->page_bytes);
}

/* Where no event reports a discard, and to read a page that is gone gives it zeros: it is looked at before. */
static int preserve_has_vanished(const struct fault *fault, const struct preserve *preserve, uint64_t page)
{
	struct uffdwp_region *region = fault->region;

	return region_reads_zeros(region) && preserve->content &&
	       atomic_load_explicit(&preserve->content[page / 64], memory_order_relaxed) >> (page % 64) & 1 &&
	       !region_content(region, page, page + 1, 1);
}

/* The kernel may clear a wp bit of anonymous memory at any time; other memory, and under mprotect, can have pages
 * beside the one that stopped the writer that the owner has unprotected. */
static int preserve_is_unsure(const struct fault *fault, uint64_t page)
{
	return region_may_merge(fault->region) || page != fault->page || !preserve_is_fault(fault);
}

/* Nothing would stop a write to this claimed page: it may have been written since the cut. */
static int preserve_has_lost(struct uffdwp_region *region, const struct preserve *preserve, uint64_t page)
{
	if (region->uffd >= 0 && preserve->pagemap < 0)
		return 0;
	if (!region_bare(region, preserve->pagemap, page, page + 1))
		return 0;
	region_note_bare(region);
	return 1;
}

/* A claimed page: 0 when its pre-image is kept and the page SAVED. On failure the slot goes back to the pool. -EAGAIN:
 * it is ARMED again. */
static int preserve_save_page(struct fault *fault, struct preserve *preserve, uint64_t page, uint32_t slot)
{
	struct uffdwp_region *region = fault->region;
	INVARIANT(CLAIM, ledger_get(&region->ledger, page) == LEDGER_CLAIMED);
	INVARIANT(ABSENT, !region_is_absent(region, page));
	int error = preserve_has_vanished(fault, preserve, page)
	                    ? -ENODATA
	                    : preserve_copy_page(fault, page, pool_slot(&preserve->pool, slot));

	if (!error && preserve_is_unsure(fault, page) && preserve_has_lost(region, preserve, page))
		error = -ENODATA;
	if (error) {
		pool_give(&preserve->pool, slot);
		ledger_set(&region->ledger, page, error == -EAGAIN ? LEDGER_ARMED : LEDGER_LEAVING);
		if (error == -EAGAIN)
			fault_unclaimed(fault, page);
		else
			fault_fail(region, preserve, error, page);
		return error;
	}
	INVARIANT(SAFE, slot < preserve->pool.slots && page < preserve->end_page);
	atomic_store_explicit(&preserve->slot_of[page], slot, memory_order_relaxed);
	ledger_set(&region->ledger, page, LEDGER_SAVED);
	return 0;
}

/* Claims and saves a run from `page` on, as far as pages are armed and memory is there. The end of the run; *error: of
 * its last page, which belongs to the run unless that is -EAGAIN. */
static uint64_t preserve_save_run(struct fault *fault, struct preserve *preserve, uint64_t page, uint64_t end,
                                  int *error)
{
	uint32_t slot;

	*error = 0;
	while (page < end && !*error) {
		if (region_is_absent(fault->region, page)) /* its bytes are not memory's yet (INV-ABSENT) */
			break;
		if (!pool_take(&preserve->pool, &slot))
			break;
		if (!ledger_move(&fault->region->ledger, page, LEDGER_ARMED, LEDGER_CLAIMED)) {
			pool_give(&preserve->pool, slot);
			break;
		}
		*error = preserve_save_page(fault, preserve, page, slot);
		page += *error != -EAGAIN;
	}
	return page;
}

static enum fault_verdict preserve_starve(struct fault *fault, struct preserve *preserve)
{
	if (preserve->policy != UFFDWP_POLICY_ABORT)
		return FAULT_STARVED;
	fault_fail(fault->region, preserve, -ENOBUFS, fault->page);
	return FAULT_AGAIN;
}

/* The page was not saved: no memory was left for it, or another thread had it for a moment. */
static enum fault_verdict preserve_unsaved(struct fault *fault, struct preserve *preserve)
{
	if (ledger_get(&fault->region->ledger, fault->page) != LEDGER_ARMED)
		return FAULT_BUSY;
	if (!pool_left(&preserve->pool))
		return preserve_starve(fault, preserve);
	fault_unclaimed(fault, fault->page);
	return FAULT_AGAIN;
}

static uint64_t preserve_wanted_end(const struct fault *fault, struct preserve *preserve)
{
	/* A window is pages that the writer is about to touch anyway: only the last slots are kept for single pages. */
	uint32_t most = pool_left(&preserve->pool) > 4 * preserve->window_max ? preserve->window_max : 1;
	uint64_t window = preserve_is_fault(fault) ? window_of_stream(fault->region, fault->page, most) : most;

	return math_min_u64(fault->page + window, math_min_u64(fault->limit, preserve->end_page));
}

/* `count` pages of [first, end) are not counted yet. */
static enum fault_verdict preserve_saved(struct fault *fault, struct preserve *preserve, uint64_t first, uint64_t end,
                                         uint64_t count)
{
	PROBE3(save, fault->region, first, end);
	ring_push(&preserve->hot, (uint32_t)first);
	fault_count(preserve_is_fault(fault) ? &preserve->pages_fault : &preserve->pages_prepare, count);
	fault_count(&fault->region->counters.pages_disarmed, count);
	return preserve_disarm(fault, first, end);
}

/* The page's whole block, where the mechanism wants that; saves [page, end of block) and, if that went well, what lies
 * before the page. */
static enum fault_verdict preserve_block(struct fault *fault, struct preserve *preserve, uint64_t first, uint64_t end)
{
	int error;
	uint64_t upper = preserve_save_run(fault, preserve, fault->page + 1, end, &error);
	uint64_t lower = upper == end ? preserve_save_run(fault, preserve, first, fault->page, &error) : first;

	if (lower < fault->page) /* a thread that comes there finds them saved */
		fault_count(&preserve->pages_fault, lower - first);
	uint64_t from = lower == fault->page ? first : fault->page;

	return preserve_saved(fault, preserve, from, upper, upper - from);
}

/* 1: the page may be unprotected along with the faulting one: it was saved just now, or needs no saving. */
static int preserve_save_beside(struct fault *fault, struct preserve *preserve, uint64_t page)
{
	int error;

	if (ledger_get(&fault->region->ledger, page) != LEDGER_ARMED)
		return preserve_leave_watched(fault->region, page);
	if (preserve_save_run(fault, preserve, page, page + 1, &error) == page || error)
		return 0;
	fault_count(&preserve->pages_fault, 1);
	fault_count(&fault->region->counters.pages_disarmed, 1);
	return 1;
}

/* The page is saved: what lies beside it, too, if it will be written soon and the pool is half empty. */
static enum fault_verdict preserve_saved_densely(struct fault *fault, struct preserve *preserve)
{
	uint64_t first = fault->page;
	uint64_t end = fault->page + 1;
	uint64_t window_first = first;
	uint64_t window_end = end;

	if (preserve_is_fault(fault) && pool_left(&preserve->pool) > preserve->pool.slots / 2)
		window_of_block(fault->region, fault->page, preserve->window_max, &window_first, &window_end);
	window_end = math_min_u64(window_end, preserve->end_page);
	while (end < window_end && preserve_save_beside(fault, preserve, end))
		end++;
	while (first > window_first && preserve_save_beside(fault, preserve, first - 1))
		first--;
	return preserve_saved(fault, preserve, first, end, 1);
}

/* The state that the page was found in: if that is STORED, this thread unprotects it. No other wakes its waiters: the
 * sweep, which leaves it WATCHED, does not. */
static enum ledger_state preserve_leave_stored(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state;

	do
		state = ledger_get(&region->ledger, page);
	while (state == LEDGER_STORED && !ledger_move(&region->ledger, page, LEDGER_STORED, LEDGER_SAVED));
	if (state == LEDGER_STORED)
		fault_count(&region->counters.pages_disarmed, 1);
	return state;
}

static enum fault_verdict preserve_page(struct fault *fault, struct preserve *preserve)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = preserve_leave_stored(region, fault->page);
	uint64_t first;
	uint64_t block_end;
	int error;

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (state == LEDGER_WATCHED)
		return preserve_unprotect_watched(fault);
	if (state != LEDGER_ARMED) {
		fault_count(&region->counters.faults_repeated, state != LEDGER_STORED);
		return preserve_disarm(fault, fault->page, fault->page + 1);
	}
	preserve_granule(region, fault->page, &first, &block_end);
	int single = block_end - first <= 1;

	if (!single && pool_left(&preserve->pool) < block_end - first) /* whole, or borders would be made */
		return preserve_starve(fault, preserve);
	uint64_t wanted = single ? preserve_wanted_end(fault, preserve) : fault->page + 1;
	uint64_t end = preserve_save_run(fault, preserve, fault->page, wanted, &error);

	if (end == fault->page && error == -EAGAIN)
		return FAULT_AGAIN;
	if (end == fault->page)
		return preserve_unsaved(fault, preserve);
	if (!single && !error)
		return preserve_block(fault, preserve, first, math_min_u64(block_end, preserve->end_page));
	if (end == fault->page + 1 && !error)
		return preserve_saved_densely(fault, preserve);
	return preserve_saved(fault, preserve, fault->page, end, end - fault->page);
}

static void preserve_take_brake(struct fault *fault)
{
	if (fault->by == FAULT_BY_PUNCH) /* page after page, with the region's lock held */
		return;
	fault->brake_ns = atomic_load_explicit(&fault->region->brake_ns, memory_order_relaxed);
	if (fault->brake_ns)
		fault_count(&fault->region->braked_ns, fault->brake_ns);
}

enum fault_verdict fault_unprotect(struct fault *fault, enum phase phase)
{
	struct preserve *preserve = atomic_load(&fault->region->preserve);

	INVARIANT(CUT, phase != PHASE_STALL);
	INVARIANT(EPOCH, phase != PHASE_PRESERVE || preserve);
	if (phase == PHASE_IDLE)
		preserve_take_brake(fault);
	if (phase != PHASE_PRESERVE)
		return preserve_unprotect_unwanted(fault, 0);
	if (fault->page >= preserve->end_page)
		return preserve_unprotect_unwanted(fault, preserve->end_page);
	return preserve_page(fault, preserve);
}
