/* SPDX-License-Identifier: MIT */
/*
 * The other side of absent.c: what a lazy restore has fetched becomes memory.
 *
 * A page that is protected in the ledger is claimed, filled with the wp bit set, and set back (INV-REARM): so no job
 * takes the fill for a write. Others are filled plain. All that inside the epoch and not while faults are stalled: so
 * no arming comes between a look at the ledger and the fill that follows from it. When a snapshot has failed (RELEASE)
 * wp bits are cleared in bulk, and what is filled then is unprotected.
 *
 * Nothing waits here inside the epoch: a fill that has to wait returns to the caller, which comes again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/invariant.h"
#include "base/signals.h"
#include "fault/fault.h"
#include "fault/handler.h"
#include "kernel/abi.h"
#include "region/lazy.h"
#include "region/mapper.h"

/* What one call copies to another process, if a page is not larger: its handler waits for it. */
#define GATE_BYTES (64u << 10)

/* Pages [first, end), of one kind. */
struct run {
	struct uffdwp_region *region;
	uint64_t first;
	uint64_t end;
	const unsigned char *bytes; /* of `first` */
	uint64_t mode;              /* UFFDIO_COPY_MODE_* */
};

static int supply_copy(const struct run *run, uint64_t first, uint64_t end)
{
	const struct uffdwp_region *region = run->region;
	unsigned shift = region->page_shift;
	const unsigned char *bytes = run->bytes + ((first - run->first) << shift);

	if (region->is_private)
		return fault_copy_gated(run->region, first, end, bytes, run->mode);
	if (region->mappers)
		return mappers_copy(run->region, first, end, bytes, run->mode);
	return region->k->uffd_copy(region->uffd, (uintptr_t)region_address(region, first), bytes,
	                            (end - first) << shift, run->mode);
}

/* In one call; should that stop halfway, page by page. An entry that is not empty was filled by the first call, or
 * through the file: it stays. */
static int supply_copy_run(const struct run *run, uint64_t *until)
{
	const struct uffdwp_region *region = run->region;
	int at_once = !region->mappers || (run->end - run->first) << region->page_shift <= GATE_BYTES;
	int error = at_once ? supply_copy(run, run->first, run->end) : -EEXIST;

	*until = error ? run->first : run->end;
	if (!error || (run->end - run->first == 1 && error != -EEXIST))
		return error;
	for (; *until < run->end; (*until)++) {
		error = supply_copy(run, *until, *until + 1);
		if (error && error != -EEXIST)
			return error;
	}
	return 0;
}

static int supply_fill_protected(struct run *run, uint64_t *until)
{
	struct ledger *ledger = &run->region->ledger;
	enum ledger_state states[FAULT_SUPPLY_PAGES];
	uint64_t page = run->first;

	for (; page < run->end && page - run->first < FAULT_SUPPLY_PAGES; page++) {
		enum ledger_state state = ledger_get(ledger, page);

		if (!ledger_is_protected(state) || !ledger_move(ledger, page, state, LEDGER_CLAIMED))
			break;
		states[page - run->first] = state;
	}
	*until = run->first;
	if (page == run->first)
		return -EBUSY;
	run->end = page;
	run->mode |= UFFDIO_COPY_MODE_WP;
	int error = supply_copy_run(run, until);

	for (page = run->first; page < run->end; page++)
		ledger_set(ledger, page, states[page - run->first]);
	fault_wake_pages(run->region, run->first, run->end); /* threads that met the claim */
	return error;
}

static int supply_fill_plain(struct run *run, uint64_t *until)
{
	const struct ledger *ledger = &run->region->ledger;
	uint64_t page = run->first + 1;

	for (; page < run->end && page - run->first < FAULT_SUPPLY_PAGES; page++) {
		enum ledger_state state = ledger_get(ledger, page);

		if (ledger_is_protected(state) || state == LEDGER_CLAIMED)
			break;
	}
	run->end = page;
	return supply_copy_run(run, until);
}

static int supply_fill(struct run *run, enum phase phase, uint64_t *until)
{
	struct ledger *ledger = &run->region->ledger;
	enum ledger_state state = ledger_get(ledger, run->first);

	INVARIANT(EPOCH, invariant_inside() > 0);
	INVARIANT(ABSENT, region_is_absent(run->region, run->first)); /* FETCHING, by this thread */
	*until = run->first;
	if (phase == PHASE_STALL || state == LEDGER_CLAIMED)
		return -EBUSY;
	if (!ledger_is_protected(state))
		return supply_fill_plain(run, until);
	if (phase != PHASE_RELEASE)
		return supply_fill_protected(run, until);
	run->end = run->first + 1;
	return ledger_is_protected(ledger_leave(ledger, run->first)) ? supply_copy_run(run, until) : -EBUSY;
}

/* Should they vanish before the sweep comes by, it shall miss them. */
static void supply_note_content(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	struct preserve *preserve = atomic_load(&region->preserve);

	for (uint64_t page = first; preserve && preserve->content && page < end && page < preserve->end_page; page++)
		atomic_fetch_or(&preserve->content[page / 64], 1ull << (page % 64));
}

int fault_supply(struct uffdwp_region *region, uint64_t first, uint64_t end, const unsigned char *bytes,
                 uint64_t *until)
{
	struct run run = {region, first, end, bytes, UFFDIO_COPY_MODE_DONTWAKE};
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int error = supply_fill(&run, (enum phase)atomic_load(&region->phase), until);

	supply_note_content(region, first, *until);
	fault_count(&region->counters.pages_filled, *until - first);
	epoch_leave(ticket);
	return error;
}

void fault_settle(struct uffdwp_region *region, struct lazy *lazy, uint64_t first, uint64_t end, int error)
{
	if (first == end)
		return;
	lazy_settle(lazy, first, end, error);
	fault_wake_pages(region, first, end);
	fault_announce(region->k);
}

/* ---- discards ---- */

/* Fails a snapshot that has not saved a page which cannot be fetched. */
static void supply_fail_snapshot(struct uffdwp_region *region, struct lazy *lazy, uint64_t page)
{
	int error = lazy_page_error(lazy, page);

	sigset_t before;

	if (!error || ledger_get(&region->ledger, page) != LEDGER_ARMED)
		return;
	signals_block(&before);
	fault_fail_running(region, error, page);
	signals_restore(&before);
}

/* Fetches whatever can be fetched. */
static void supply_await_all(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t failed = first;

	while (first < end && fault_await(region, first, end, NULL, &failed))
		first = failed + 1;
}

/* With the region's lock held: `lazy` stays. */
static int supply_forget_pages(struct uffdwp_region *region, struct lazy *lazy, uint64_t first, uint64_t end)
{
	int failed = 0;

	for (uint64_t page = first; page < end; page++) {
		uint32_t seen = atomic_load(&fault_change);

		supply_fail_snapshot(region, lazy, page);
		while (!lazy_forget(lazy, page, &failed)) {
			fault_sleep(region->k, FAULT_ABSENT, seen);
			seen = atomic_load(&fault_change);
		}
	}
	return failed;
}

void fault_end_punch(struct uffdwp_region *region, uint64_t first, uint64_t end, int error)
{
	struct lazy *lazy = atomic_load(&region->lazy);

	for (uint64_t page = first; lazy && page < end; page++)
		lazy_end_punch(lazy, page, error);
	if (lazy && error) { /* what was read meanwhile is not the image's */
		fault_wake_pages(region, first, end);
		fault_announce(region->k);
	}
}

void fault_begin_punch(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	struct lazy *lazy = atomic_load(&region->lazy);

	if (!lazy)
		return;
	if (atomic_load(&region->preserve))
		supply_await_all(region, first, end);
	int failed = supply_forget_pages(region, lazy, first, end);

	fault_wake_pages(region, first, end);
	fault_announce(region->k);
	if (!failed)
		return;
	/* A thread that met a failed page before may still poison it; a hole punched into a file leaves poison where it
	 * is. */
	fault_epoch_wait();
	if (region->memory == UFFDWP_MEMORY_ANON)
		return;
	kernel_discard(region->k, region_address(region, first), (end - first) << region->page_shift);
	handler_settle(region);
}
