/* SPDX-License-Identifier: MIT */
/*
 * A fault is resolved: claim, copy, mark saved, disarm, wake. The rules and invariants are in fault.h, the states of a
 * page in region/ledger.h. Part of the fault path.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/cpu.h"
#include "fault/fault.h"
#include "kernel/abi.h"

/* How long to sleep before looking again where nobody can tell us when, and how often to look before sleeping. */
#define FAULT_NAP_NS 20000
#define FAULT_SPINS 2000

_Atomic uint32_t fault_change;
static _Atomic uint32_t fault_sleepers;

static void count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

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

	region->k->uffd_wake(region->uffd, start, region->capacity_bytes);
}

void fault_enter_phase(struct uffdwp_region *region, enum phase phase)
{
	atomic_store(&region->phase, (uint32_t)phase);
	fault_epoch_wait();
}

void fault_wake_held(struct uffdwp_region *region)
{
	fault_announce(region->k);
	if (atomic_exchange(&region->held, 0))
		fault_wake_region(region);
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

/*
 * The mark may still be there although the ledger lets the page go (INV-IDEMPOTENT): take it off, wake its waiters.
 * Where that fails all are woken instead and fault again: others may rely on this wake. A handler does that only when
 * it has read everything, because the kernel hands out faults before the event that it waits for.
 */
static enum fault_verdict disarm(struct uffdwp_region *region, uint64_t first, uint64_t end, enum fault_by by)
{
	int error = region->mechanism->disarm(region, first, end);

	for (uint64_t page = first; page < end && !error; page++)
		ledger_disarmed(&region->ledger, page);
	if (!error)
		return FAULT_DONE;
	if (by == FAULT_BY_HANDLER)
		atomic_store(&region->again, 1);
	else
		fault_wake_region(region);
	return error == -EAGAIN ? FAULT_AGAIN : FAULT_DONE;
}

/* No pre-image is wanted: let the page go. */
static enum fault_verdict release(struct uffdwp_region *region, uint64_t page, enum fault_by by)
{
	if (ledger_move(&region->ledger, page, LEDGER_ARMED, LEDGER_LEAVING))
		count(&region->counters.pages_disarmed, 1);
	else if (ledger_get(&region->ledger, page) == LEDGER_CLAIMED)
		return FAULT_BUSY;
	else
		count(&region->counters.faults_repeated, 1);
	return disarm(region, page, page + 1, by);
}

/*
 * The window: how many pages a fault takes with it. A stream remembers where a writer's last window ended; a fault near
 * there doubles the window, a fault anywhere else starts a stream of one page. Packed: end page above, width in 8 bits.
 */
#define STREAM_SLACK 32

static uint32_t window_of(struct uffdwp_region *region, uint64_t page, uint32_t most)
{
	for (unsigned i = 0; i < REGION_STREAMS; i++) {
		uint64_t stream = atomic_load_explicit(&region->streams[i], memory_order_relaxed);
		uint64_t end = stream >> 8;
		uint32_t width = (uint32_t)(stream & 0xff);

		if (!width || page + width < end || page > end + STREAM_SLACK)
			continue;
		width = width * 2 < most ? width * 2 : most;
		atomic_store_explicit(&region->streams[i], (page + width) << 8 | width, memory_order_relaxed);
		return width;
	}
	uint32_t next = atomic_fetch_add_explicit(&region->stream_next, 1, memory_order_relaxed) % REGION_STREAMS;

	atomic_store_explicit(&region->streams[next], (page + 1) << 8 | 1, memory_order_relaxed);
	return 1;
}

/* Only the page that the writer faulted on is sure to be there; all else is read by system calls, which cannot crash.
 */
static int copy_page(struct uffdwp_region *region, uint64_t page, unsigned char *to, int is_there)
{
	if (!is_there)
		return region_read(region, page << region->page_shift, to, region->page_bytes);
	memcpy(to, region_address(region, page), region->page_bytes);
	return 0;
}

/* A claimed page: 1 when its pre-image is kept and the page SAVED. The slot is lost to nobody on failure. */
static int save_page(struct uffdwp_region *region, struct preserve *preserve, uint64_t page, uint32_t slot,
                     int is_there)
{
	int error = copy_page(region, page, pool_slot(&preserve->pool, slot), is_there);

	if (!error && preserve->pagemap >= 0 && region_marks(region, preserve->pagemap, page, page + 1) != 1)
		error = -ENODATA;
	if (error) {
		pool_give(&preserve->pool, slot);
		ledger_set(&region->ledger, page, LEDGER_LEAVING);
		fault_fail(region, preserve, error, page);
		return 0;
	}
	atomic_store_explicit(&preserve->slot_of[page], slot, memory_order_relaxed);
	ledger_set(&region->ledger, page, LEDGER_SAVED);
	return 1;
}

/* Claims and saves a run from `page` on, as far as pages are armed and memory is there. The end of the run. */
static uint64_t save_run(struct uffdwp_region *region, struct preserve *preserve, uint64_t page, uint64_t end,
                         enum fault_by by)
{
	int is_there = by == FAULT_BY_WRITER;
	uint32_t slot;

	while (page < end) {
		if (!pool_take(&preserve->pool, &slot))
			break;
		if (!ledger_move(&region->ledger, page, LEDGER_ARMED, LEDGER_CLAIMED)) {
			pool_give(&preserve->pool, slot);
			break;
		}
		page++;
		if (!save_page(region, preserve, page - 1, slot, is_there))
			break;
		is_there = 0;
	}
	return page;
}

static enum fault_verdict starve(struct uffdwp_region *region, struct preserve *preserve, uint64_t page)
{
	if (preserve->policy != UFFDWP_POLICY_ABORT)
		return FAULT_STARVED;
	fault_fail(region, preserve, -ENOBUFS, page);
	return FAULT_AGAIN;
}

static void count_saved(struct preserve *preserve, uint64_t pages, enum fault_by by)
{
	int barrier = by == FAULT_BY_BARRIER || by == FAULT_BY_PUNCH;

	count(barrier ? &preserve->pages_prepare : &preserve->pages_fault, pages);
}

static enum fault_verdict preserve_page(struct uffdwp_region *region, struct preserve *preserve, uint64_t page,
                                        uint64_t limit, enum fault_by by)
{
	enum ledger_state state = ledger_get(&region->ledger, page);

	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (state != LEDGER_ARMED) {
		count(&region->counters.faults_repeated, 1);
		return disarm(region, page, page + 1, by);
	}
	/* A window is pages that the writer is about to touch anyway: only the last slots are kept for single pages. */
	uint32_t most = pool_left(&preserve->pool) > 4 * preserve->window_max ? preserve->window_max : 1;
	uint64_t wanted = by == FAULT_BY_HANDLER || by == FAULT_BY_WRITER ? window_of(region, page, most) : most;
	uint64_t end = save_run(region, preserve, page, page + wanted < limit ? page + wanted : limit, by);

	if (end == page)
		return ledger_get(&region->ledger, page) == LEDGER_ARMED ? starve(region, preserve, page) : FAULT_BUSY;
	ring_push(&preserve->hot, (uint32_t)page);
	count_saved(preserve, end - page, by);
	count(&region->counters.pages_disarmed, end - page);
	return disarm(region, page, end, by);
}

enum fault_verdict fault_resolve(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by)
{
	enum phase phase = (enum phase)atomic_load(&region->phase);
	struct preserve *preserve = atomic_load(&region->preserve);

	if (phase == PHASE_HOLD)
		return FAULT_HELD;
	if (phase != PHASE_PRESERVE || page >= preserve->end_page)
		return release(region, page, by);
	return preserve_page(region, preserve, page, limit < preserve->end_page ? limit : preserve->end_page, by);
}

/* The bound of policy `wait` for threads that sleep themselves: counted from when they first found no memory. */
static enum fault_verdict starve_bounded(struct uffdwp_region *region, uint64_t page, uint64_t *until_ns)
{
	struct preserve *preserve = atomic_load(&region->preserve);
	uint64_t now = kernel_now_ns();

	if (!*until_ns) {
		count(&preserve->waits, 1);
		*until_ns = now + preserve->wait_ns;
	}
	if (now < *until_ns)
		return FAULT_STARVED;
	fault_fail(region, preserve, -ETIME, page);
	return FAULT_AGAIN;
}

enum fault_verdict fault_resolve_patiently(struct uffdwp_region *region, uint64_t page, uint64_t limit,
                                           enum fault_by by, uint64_t *until_ns)
{
	enum fault_verdict verdict = fault_resolve(region, page, limit, by);

	for (unsigned spins = 0; verdict == FAULT_BUSY && spins < FAULT_SPINS; spins++) {
		cpu_relax();
		if (ledger_get(&region->ledger, page) != LEDGER_CLAIMED)
			verdict = fault_resolve(region, page, limit, by);
	}
	return verdict == FAULT_STARVED ? starve_bounded(region, page, until_ns) : verdict;
}

void fault_nap(const struct kernel_ops *k, enum fault_verdict verdict, uint32_t seen)
{
	/* A claimant is done in microseconds and announces nothing; what the others wait for is announced. */
	int brief = verdict == FAULT_BUSY || verdict == FAULT_AGAIN;

	atomic_fetch_add(&fault_sleepers, 1);
	k->futex_wait((const uint32_t *)&fault_change, seen, brief ? FAULT_NAP_NS : 200 * FAULT_NAP_NS);
	atomic_fetch_sub(&fault_sleepers, 1);
}

void fault_barrier(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by)
{
	enum fault_verdict verdict;
	uint64_t until_ns = 0;
	sigset_t all;
	sigset_t before;

	sigfillset(&all);
	do {
		uint32_t seen = atomic_load(&fault_change);

		/* A signal handler that wrote to a page which this thread has claimed would wait for itself. */
		pthread_sigmask(SIG_SETMASK, &all, &before);
		epoch_ticket ticket = epoch_enter(&fault_epoch);

		verdict = fault_resolve_patiently(region, page, limit, by, &until_ns);
		epoch_leave(ticket);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (verdict != FAULT_DONE)
			fault_nap(region->k, verdict, seen);
	} while (verdict != FAULT_DONE);
}
