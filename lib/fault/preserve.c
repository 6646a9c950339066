/* SPDX-License-Identifier: MIT */
/*
 * A fault is resolved: claim, copy, mark saved, disarm, wake. The rules and invariants are in fault.h, the states of a
 * page in region/ledger.h. Part of the fault path.
 */
#include <errno.h>
#include <string.h>

#include "base/cpu.h"
#include "base/math.h"
#include "base/probe_points.h"
#include "base/signals.h"
#include "fault/fault.h"
#include "fault/window.h"
#include "kernel/abi.h"
#include "region/view.h"

/* How long to sleep before looking again where nobody can tell us when, and how often to look before sleeping. */
#define FAULT_NAP_NS 20000
#define FAULT_SPINS 2000

_Atomic uint32_t fault_change;
static _Atomic uint32_t fault_sleepers;

void fault_announce(const struct kernel_ops *k)
{
	/* Pairs with fault_nap(): a sleeper that is not counted yet will find the word moved. */
	atomic_fetch_add(&fault_change, 1);
	if (atomic_load(&fault_sleepers) > 0)
		k->futex_wake((const uint32_t *)&fault_change, INT32_MAX);
}

void fault_wake_region(struct uffdwp_region *region)
{
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, 0);

	if (region->uffd >= 0)
		region->k->uffd_wake(region->uffd, start, region->capacity_bytes);
}

void fault_enter_phase(struct uffdwp_region *region, enum phase phase)
{
	atomic_store(&region->phase, (uint32_t)phase);
	fault_epoch_wait();
}

int fault_wake_held(struct uffdwp_region *region)
{
	int inline_sleeps = atomic_load(&fault_sleepers) > 0;

	fault_announce(region->k);
	if (!atomic_exchange(&region->held, 0))
		return inline_sleeps;
	fault_wake_region(region);
	return 1;
}

void fault_wake_starved(struct uffdwp_region *region)
{
	atomic_store(&region->starved_since_ns, 0);
	fault_announce(region->k);
	if (atomic_exchange(&region->starved, 0))
		fault_wake_region(region);
}

void fault_fail(struct uffdwp_region *region, struct preserve *preserve, int error, uint64_t page)
{
	uint32_t preserving = PHASE_PRESERVE;
	int none = 0;

	if (!atomic_compare_exchange_strong(&preserve->error, &none, error))
		return;
	atomic_store(&preserve->error_page, page);
	/* Not if the phase has moved on: then the snapshot's own thread is ending it. */
	atomic_compare_exchange_strong(&region->phase, &preserving, (uint32_t)PHASE_RELEASE);
	fault_announce(region->k);
	atomic_store(&region->starved, 0);
	fault_wake_region(region);
}

void fault_fail_page(struct uffdwp_region *region, int error, uint64_t page)
{
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve && page < preserve->end_page)
		fault_fail(region, preserve, error, page);
}

void fault_fail_running(struct uffdwp_region *region, int error, uint64_t page)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	fault_fail_page(region, error, page);
	epoch_leave(ticket);
}

static int is_fault(const struct fault *fault)
{
	return fault->by == FAULT_BY_HANDLER || fault->by == FAULT_BY_WRITER;
}

/* The kernel has no mapping left for a border between protected pages and others (mprotect.c keeps away from that): the
 * last resort is to have no borders at all. */
static void let_all_go(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve)
		fault_fail(region, preserve, -ENOMEM, fault->page);
	for (uint64_t page = 0; page < region->ledger.count; page++)
		ledger_leave(&region->ledger, page);
	region->mechanism->disarm(region, 0, region->ledger.count);
}

/* What was filled plain carries no mark: alone it needs no disarming. */
static int open_pages(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;
	int filled = fault->access == FAULT_WRITE ? FILL_NOT_EMPTY : fault_fill(fault);

	if (filled < 0)
		return filled;
	if (filled == FILL_NOT_EMPTY || end - first > 1)
		return region->mechanism->disarm(region, first, end);
	fault_wake_pages(region, first, first + 1);
	return 0;
}

/* The fault is counted before its writer is woken, who may look at the counter; not if he will come back. */
static int unprotect(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;

	view_break(region, first, end);
	if (is_fault(fault))
		fault_count(&region->counters.faults, 1);
	int error = open_pages(fault, first, end);

	if (error && is_fault(fault))
		atomic_fetch_sub_explicit(&region->counters.faults, 1, memory_order_relaxed);
	return error;
}

/*
 * The mark may still be there although the ledger lets the page go (INV-IDEMPOTENT): take it off, wake its waiters.
 * Where that fails all are woken instead and fault again: others may rely on this wake. A handler does that only when
 * it has read everything, because the kernel hands out faults before the event that it waits for.
 */
static enum fault_verdict disarm(struct fault *fault, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = fault->region;

	PROBE3(release, region, first, end);
	int error = unprotect(fault, first, end);

	for (uint64_t page = first; page < end && !error; page++)
		ledger_disarmed(&region->ledger, page);
	if (!error)
		return FAULT_DONE;
	if (error == -ENOMEM && region->uffd < 0)
		let_all_go(fault);
	if (fault->by == FAULT_BY_HANDLER)
		atomic_store(&region->again, 1);
	else
		fault_wake_region(region);
	if (error == -EAGAIN)
		return FAULT_AGAIN;
	return fault->access == FAULT_WRITE ? FAULT_DONE : fault_unfilled(fault, error);
}

/* Pages are let go in aligned blocks of the mechanism's grain. */
static void grain_of(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	uint64_t grain = region->mechanism->grain ? region->mechanism->grain(region) : 1;

	*first = page & ~(grain - 1);
	*end = min_u64(*first + grain, region_pages(region));
}

/* The same, and whole blocks where most of it will be written anyway. */
static void block_of(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	grain_of(region, page, first, end);
	if (*end - *first <= 1)
		window_of_block(region, page, LEDGER_BLOCK_PAGES, first, end);
}

/* The state that the page was found in; if it was marked this thread lets it go. By one look: a page that is CLAIMED
 * now may be armed again a moment later. */
static enum ledger_state take_mark(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state;

	do
		state = ledger_get(&region->ledger, page);
	while (ledger_is_marked(state) && !ledger_move(&region->ledger, page, state, LEDGER_LEAVING));
	if (ledger_is_marked(state))
		fault_count(&region->counters.pages_disarmed, 1);
	return state;
}

/* No pre-image is wanted: let the page go, and its block; nothing of it before `lowest`, which a snapshot wants. */
static enum fault_verdict release(struct fault *fault, uint64_t lowest)
{
	struct uffdwp_region *region = fault->region;
	uint64_t first;
	uint64_t end;

	block_of(region, fault->page, &first, &end);
	if (first < lowest)
		first = lowest;
	enum ledger_state state = take_mark(region, fault->page);

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (!ledger_is_marked(state))
		fault_count(&region->counters.faults_repeated, 1);
	for (uint64_t page = first; page < end; page++) {
		if (page != fault->page && take_mark(region, page) == LEDGER_CLAIMED)
			return disarm(fault, fault->page, fault->page + 1); /* not over somebody's claim */
	}
	return disarm(fault, first, end);
}

/* 1: nobody wants the page's protection: it may be taken off. */
static int leave_watched(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_get(&region->ledger, page);

	if (state != LEDGER_WATCHED)
		return state != LEDGER_ARMED && state != LEDGER_CLAIMED;
	if (!ledger_move(&region->ledger, page, LEDGER_WATCHED, LEDGER_LEAVING))
		return 0;
	fault_count(&region->counters.pages_disarmed, 1);
	return 1;
}

/* A page that the running snapshot does not want, and what lies beside it in its block and is not wanted either. */
static enum fault_verdict release_watched(struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	struct ledger *ledger = &region->ledger;
	uint64_t first = fault->page;
	uint64_t end = fault->page + 1;
	uint64_t block_first;
	uint64_t block_end;

	if (!ledger_move(ledger, fault->page, LEDGER_WATCHED, LEDGER_LEAVING))
		return FAULT_BUSY; /* another writer was first, or its entry is being filled */
	block_of(region, fault->page, &block_first, &block_end);
	while (first > block_first && leave_watched(region, first - 1))
		first--;
	while (end < block_end && leave_watched(region, end))
		end++;
	fault_count(&region->counters.pages_disarmed, 1);
	return disarm(fault, first, end);
}

/*
 * Only the page that the writer faulted on is sure to be there, and only where the fault came from a mark on it; all
 * else is read by system calls, which neither crash nor wait. Of an empty entry that a handler was told of it is sure
 * that it was empty before any discard that is still to be read.
 */
static int copy_page(const struct fault *fault, uint64_t page, unsigned char *to)
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

/* A claimed page: 0 when its pre-image is kept and the page SAVED. The slot is lost to nobody on failure. -EAGAIN: it
 * is ARMED again. */
static int save_page(struct fault *fault, struct preserve *preserve, uint64_t page, uint32_t slot)
{
	struct uffdwp_region *region = fault->region;
	int error = copy_page(fault, page, pool_slot(&preserve->pool, slot));

	if (!error && preserve->pagemap >= 0 && region_marks(region, preserve->pagemap, page, page + 1) != 1)
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
	atomic_store_explicit(&preserve->slot_of[page], slot, memory_order_relaxed);
	ledger_set(&region->ledger, page, LEDGER_SAVED);
	return 0;
}

/* Claims and saves a run from `page` on, as far as pages are armed and memory is there. The end of the run; *error: of
 * its last page, which belongs to the run unless that is -EAGAIN. */
static uint64_t save_run(struct fault *fault, struct preserve *preserve, uint64_t page, uint64_t end, int *error)
{
	uint32_t slot;

	*error = 0;
	while (page < end && !*error) {
		if (fault_is_absent(fault->region, page)) /* its bytes are not memory's yet (INV-ABSENT) */
			break;
		if (!pool_take(&preserve->pool, &slot))
			break;
		if (!ledger_move(&fault->region->ledger, page, LEDGER_ARMED, LEDGER_CLAIMED)) {
			pool_give(&preserve->pool, slot);
			break;
		}
		*error = save_page(fault, preserve, page, slot);
		page += *error != -EAGAIN;
	}
	return page;
}

static enum fault_verdict starve(struct fault *fault, struct preserve *preserve)
{
	if (preserve->policy != UFFDWP_POLICY_ABORT)
		return FAULT_STARVED;
	fault_fail(fault->region, preserve, -ENOBUFS, fault->page);
	return FAULT_AGAIN;
}

static uint64_t wanted_end(const struct fault *fault, struct preserve *preserve)
{
	/* A window is pages that the writer is about to touch anyway: only the last slots are kept for single pages. */
	uint32_t most = pool_left(&preserve->pool) > 4 * preserve->window_max ? preserve->window_max : 1;
	uint64_t window = is_fault(fault) ? window_of_stream(fault->region, fault->page, most) : most;

	return min_u64(fault->page + window, min_u64(fault->limit, preserve->end_page));
}

/* `count` pages of [first, end) are not counted yet. */
static enum fault_verdict saved(struct fault *fault, struct preserve *preserve, uint64_t first, uint64_t end,
                                uint64_t count)
{
	PROBE3(save, fault->region, first, end);
	ring_push(&preserve->hot, (uint32_t)first);
	fault_count(is_fault(fault) ? &preserve->pages_fault : &preserve->pages_prepare, count);
	fault_count(&fault->region->counters.pages_disarmed, count);
	return disarm(fault, first, end);
}

/* The page's whole block, where the mechanism wants that; saves [page, end of block) and, if that went well, what lies
 * before the page. */
static enum fault_verdict preserve_block(struct fault *fault, struct preserve *preserve, uint64_t first, uint64_t end)
{
	int error;
	uint64_t upper = save_run(fault, preserve, fault->page + 1, end, &error);
	uint64_t lower = upper == end ? save_run(fault, preserve, first, fault->page, &error) : first;

	if (lower < fault->page) /* who comes there finds them saved */
		fault_count(&preserve->pages_fault, lower - first);
	uint64_t from = lower == fault->page ? first : fault->page;

	return saved(fault, preserve, from, upper, upper - from);
}

/* 1: the page may be let go along with the faulting one: it was saved just now, or needs no saving. */
static int save_beside(struct fault *fault, struct preserve *preserve, uint64_t page)
{
	int error;

	if (ledger_get(&fault->region->ledger, page) != LEDGER_ARMED)
		return leave_watched(fault->region, page);
	if (save_run(fault, preserve, page, page + 1, &error) == page || error)
		return 0;
	fault_count(&preserve->pages_fault, 1);
	fault_count(&fault->region->counters.pages_disarmed, 1);
	return 1;
}

/* The page is saved: what lies beside it, too, if it will be written soon and the pool is half empty. */
static enum fault_verdict saved_densely(struct fault *fault, struct preserve *preserve)
{
	uint64_t first = fault->page;
	uint64_t end = fault->page + 1;
	uint64_t window_first = first;
	uint64_t window_end = end;

	if (is_fault(fault) && pool_left(&preserve->pool) > preserve->pool.slots / 2)
		window_of_block(fault->region, fault->page, preserve->window_max, &window_first, &window_end);
	window_end = min_u64(window_end, preserve->end_page);
	while (end < window_end && save_beside(fault, preserve, end))
		end++;
	while (first > window_first && save_beside(fault, preserve, first - 1))
		first--;
	return saved(fault, preserve, first, end, 1);
}

static enum fault_verdict preserve_page(struct fault *fault, struct preserve *preserve)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = ledger_get(&region->ledger, fault->page);
	uint64_t first;
	uint64_t block_end;
	int error;

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (state == LEDGER_WATCHED)
		return release_watched(fault);
	if (state != LEDGER_ARMED) {
		fault_count(&region->counters.faults_repeated, 1);
		return disarm(fault, fault->page, fault->page + 1);
	}
	grain_of(region, fault->page, &first, &block_end);
	int single = block_end - first <= 1;

	if (!single && pool_left(&preserve->pool) < block_end - first) /* whole, or borders would be made */
		return starve(fault, preserve);
	uint64_t wanted = single ? wanted_end(fault, preserve) : fault->page + 1;
	uint64_t end = save_run(fault, preserve, fault->page, wanted, &error);

	if (end == fault->page && error == -EAGAIN)
		return FAULT_AGAIN;
	if (end == fault->page)
		return ledger_get(&region->ledger, fault->page) == LEDGER_ARMED ? starve(fault, preserve) : FAULT_BUSY;
	if (!single && !error)
		return preserve_block(fault, preserve, first, min_u64(block_end, preserve->end_page));
	if (end == fault->page + 1 && !error)
		return saved_densely(fault, preserve);
	return saved(fault, preserve, fault->page, end, end - fault->page);
}

static void take_brake(struct fault *fault)
{
	if (fault->by == FAULT_BY_PUNCH) /* page after page, with the region's lock held */
		return;
	fault->brake_ns = atomic_load_explicit(&fault->region->brake_ns, memory_order_relaxed);
	if (fault->brake_ns)
		fault_count(&fault->region->braked_ns, fault->brake_ns);
}

enum fault_verdict fault_let_go(struct fault *fault, enum phase phase)
{
	struct preserve *preserve = atomic_load(&fault->region->preserve);

	if (phase == PHASE_IDLE)
		take_brake(fault);
	if (phase != PHASE_PRESERVE)
		return release(fault, 0);
	if (fault->page >= preserve->end_page)
		return release(fault, preserve->end_page);
	return preserve_page(fault, preserve);
}

enum fault_verdict fault_resolve(struct fault *fault)
{
	enum phase phase = (enum phase)atomic_load(&fault->region->phase);

	enum fault_verdict verdict;

	PROBE4(fault, fault->region, fault->page, fault->access, fault->by);
	if (atomic_load(&fault->region->lazy) && fault_meets_restore(fault, phase, &verdict))
		return verdict;
	if (phase == PHASE_HOLD)
		return FAULT_HELD;
	return fault->access == FAULT_WRITE ? fault_let_go(fault, phase) : fault_empty(fault, phase);
}

/* The bound of policy `wait` for threads that sleep themselves: counted from when they first found no memory. */
static enum fault_verdict starve_bounded(struct fault *fault)
{
	struct preserve *preserve = atomic_load(&fault->region->preserve);
	uint64_t now = kernel_now_ns();

	if (!fault->until_ns) {
		fault_count(&preserve->waits, 1);
		fault->until_ns = now + preserve->wait_ns;
	}
	if (now < fault->until_ns)
		return FAULT_STARVED;
	fault_fail(fault->region, preserve, -ETIME, fault->page);
	return FAULT_AGAIN;
}

enum fault_verdict fault_resolve_patiently(struct fault *fault)
{
	enum fault_verdict verdict = fault_resolve(fault);

	for (unsigned spins = 0; verdict == FAULT_BUSY && spins < FAULT_SPINS; spins++) {
		cpu_relax();
		if (ledger_get(&fault->region->ledger, fault->page) != LEDGER_CLAIMED)
			verdict = fault_resolve(fault);
	}
	return verdict == FAULT_STARVED ? starve_bounded(fault) : verdict;
}

void fault_nap(const struct kernel_ops *k, enum fault_verdict verdict, uint32_t seen)
{
	/* A claimant is done in microseconds and announces nothing; what the others wait for is announced. */
	int brief = verdict == FAULT_BUSY || verdict == FAULT_AGAIN;

	atomic_fetch_add(&fault_sleepers, 1);
	k->futex_wait((const uint32_t *)&fault_change, seen, brief ? FAULT_NAP_NS : 200 * FAULT_NAP_NS);
	atomic_fetch_sub(&fault_sleepers, 1);
}

void fault_brake(const struct kernel_ops *k, uint32_t brake_ns)
{
	if (brake_ns)
		k->futex_wait((const uint32_t *)&fault_change, atomic_load(&fault_change), brake_ns);
}

void fault_barrier(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by)
{
	struct fault fault = {.region = region, .page = page, .limit = limit, .by = by};
	enum fault_verdict verdict;
	sigset_t before;

	do {
		uint32_t seen = atomic_load(&fault_change);

		fault.brake_ns = 0;
		fault.access = by == FAULT_BY_BARRIER && region->populate ? FAULT_WRITE_EMPTY : FAULT_WRITE;
		/* A signal handler that wrote to a page which this thread has claimed would wait for itself. */
		signals_block(&before);
		epoch_ticket ticket = epoch_enter(&fault_epoch);

		verdict = fault_resolve_patiently(&fault);
		epoch_leave(ticket);
		signals_restore(&before);
		fault_brake(region->k, fault.brake_ns);
		if (verdict != FAULT_DONE && verdict != FAULT_REFUSED)
			fault_nap(region->k, verdict, seen);
	} while (verdict != FAULT_DONE && verdict != FAULT_REFUSED);
}
