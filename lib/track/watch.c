/* SPDX-License-Identifier: MIT */
/*
 * Tracking by the ledger of a region. A page that is ARMED or WATCHED was not written since it was armed, unless a bit
 * of `written` says otherwise; every other page was, or may have been.
 *
 * A collect looks at pages in portions, each while faults are stalled (PHASE_STALL): no fault is under way then
 * (INV-EPOCH), only the sweep of a snapshot moves pages, from ARMED over CLAIMED to WATCHED, and takes what a writer
 * has saved. So portions are short, and the pages of one are looked at and armed as at one moment (INV-TRACK).
 *
 * While a snapshot runs, two kinds of pages are reported and not armed, so that they are reported again until it has
 * ended: those whose pre-image waits for the sweep (SAVED, OPEN), which keeps account of slots by these states; and all
 * that are not armed, if the snapshot was begun before the region was tracked: its sweep disarms whole batches.
 *
 * Threads: any, with the region's lock held. Signals are blocked while faults are stalled.
 */
#include <errno.h>

#include "base/invariant.h"
#include "base/math.h"
#include "base/signals.h"
#include "base/trace.h"
#include "fault/audit.h"
#include "fault/fault.h"
#include "fault/phase.h"
#include "fault/runtime.h"
#include "region/run.h"
#include "track/track.h"

/* Pages that are looked at in one portion, and how many of them are armed at most: writers wait so long. */
#define PORTION_PAGES 65536
#define PORTION_ARMED 4096

/* The same where the kernel's view is read, too. */
#define PORTION_READ 8192

struct portion {
	struct uffdwp_region *region;
	struct findings *found;
	struct run run; /* to be armed */
	uint64_t base;  /* the address of page 0 */
	uint64_t end;   /* pages before it are looked at */
	uint64_t armed;
	int peek;
	int snapshot; /* runs */
	int may_arm;
	int pagemap; /* of memory that loses its wp bits; else -1 */
};

/* What could not be armed is as it was: reported, and written. Pages that were ARMED before keep their state and, as
 * far as is known, their wp bits. With faults stalled. */
static void watch_unarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (!ledger_move(&region->ledger, page, LEDGER_WATCHED, LEDGER_LEAVING))
			continue;
		region_note_written(region, page);
		if (region_disarm_run(region, page, page + 1) == 0)
			ledger_disarmed(&region->ledger, page);
	}
}

static void watch_arm(struct portion *portion)
{
	struct uffdwp_region *region = portion->region;
	struct run *run = &portion->run;
	int error = run->end > run->first ? region_arm_run(region, run->first, run->end) : 0;

	if (error) {
		TRACE("region %p: pages [%llu, %llu) could not be armed again: %d", (void *)region,
		      (unsigned long long)run->first, (unsigned long long)run->end, error);
		watch_unarm(region, run->first, run->end);
	}
	*run = (struct run){0};
}

static void watch_arm_page(struct portion *portion, uint64_t page)
{
	INVARIANT(TRACK, atomic_load(&portion->region->phase) == PHASE_STALL);
	if (!run_join(&portion->run, &portion->region->ledger, page)) {
		watch_arm(portion);
		run_join(&portion->run, &portion->region->ledger, page);
	}
	region_note_changed(portion->region, page);
	ledger_set(&portion->region->ledger, page, LEDGER_WATCHED);
	portion->armed++;
}

/* 0: there is no room. */
static int watch_report(struct portion *portion, uint64_t page)
{
	struct findings *found = portion->found;
	unsigned shift = portion->region->page_shift;
	uint64_t start = portion->base + (page << shift);
	struct uffdwp_written *next = found->at + found->count;

	if (found->count && next[-1].end == start) {
		next[-1].end = start + (1ull << shift);
		return 1;
	}
	if (found->count == found->room)
		return 0;
	*next = (struct uffdwp_written){start, start + (1ull << shift), UFFDWP_TRACK_WRITTEN};
	found->count++;
	return 1;
}

/* A claim that is not a fault's is the sweep's, which found the page armed. */
static int watch_was_written(const struct portion *portion, enum ledger_state state, uint64_t noted, uint64_t page)
{
	if (noted >> (page % 64) & 1)
		return 1;
	if (portion->region->soft_dirty)
		return 0;
	return !ledger_is_protected(state) && state != LEDGER_CLAIMED;
}

static int watch_wants_arming(const struct portion *portion, enum ledger_state state)
{
	if (portion->peek || !portion->may_arm || ledger_is_protected(state) || state == LEDGER_CLAIMED)
		return 0;
	return !portion->snapshot || (state != LEDGER_SAVED && state != LEDGER_OPEN);
}

/* 0: there is no room for this page. */
static int watch_look_at(struct portion *portion, uint64_t noted, uint64_t page)
{
	struct uffdwp_region *region = portion->region;
	enum ledger_state state = ledger_get(&region->ledger, page);

	if (!watch_was_written(portion, state, noted, page))
		return 1;
	if (!watch_report(portion, page))
		return 0;
	if (!portion->peek)
		atomic_fetch_and(&atomic_load(&region->written)[page / 64], ~(1ull << (page % 64)));
	if (watch_wants_arming(portion, state))
		watch_arm_page(portion, page);
	return 1;
}

/* The common case at a byte's glance: 64 pages that are all armed. */
static int watch_is_clean(const struct portion *portion, uint64_t noted, uint64_t page, uint64_t end)
{
	const struct ledger *ledger = &portion->region->ledger;
	int clean = 1;

	if (noted || page % 64 || end - page < 64)
		return 0;
	if (portion->region->soft_dirty)
		return 1;
	for (uint64_t i = page; i < page + 64; i++)
		clean &= ledger_is_protected(
		        (enum ledger_state)atomic_load_explicit(&ledger->pages[i], memory_order_relaxed));
	return clean;
}

static void watch_look(struct portion *portion, uint64_t page, uint64_t end)
{
	_Atomic uint64_t *written = atomic_load(&portion->region->written);

	while (page < end && portion->armed < PORTION_ARMED) {
		uint64_t noted = atomic_load_explicit(&written[page / 64], memory_order_acquire);

		if (watch_is_clean(portion, noted, page, end)) {
			page += 64;
			continue;
		}
		uint64_t word_end = math_min_u64((page / 64 + 1) * 64, end);

		while (page < word_end && watch_look_at(portion, noted, page))
			page++;
		if (page < word_end)
			break;
	}
	watch_arm(portion);
	portion->end = page;
}

/*
 * Anonymous memory loses wp bits: with its content (MADV_DONTNEED: the event was read before the kernel took them, and
 * what a collect armed between is bare), or by KSM, which sends no event. No thread resolves faults now, so a page that
 * is protected in the ledger and not in the kernel is one.
 */
static void watch_find_bare(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end)
{
	struct ledger *ledger = &region->ledger;
	enum uffdwp_loss cause = region_loses_wp_bits(region) ? UFFDWP_LOSS_ZAP : UFFDWP_LOSS_UNKNOWN;

	for (uint64_t page = first; page < end; page += 64) {
		uint64_t bare = region_bare(region, pagemap, page, math_min_u64(page + 64, end));

		for (; bare; bare &= bare - 1) {
			uint64_t one = page + (uint64_t)__builtin_ctzll(bare);

			if (!ledger_move(ledger, one, LEDGER_WATCHED, LEDGER_LOST) &&
			    !ledger_move(ledger, one, LEDGER_ARMED, LEDGER_LOST))
				continue;
			loss_note(region, cause, one);
			region_note_bare(region);
		}
	}
}

static void watch_look_stalled(struct portion *portion, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = portion->region;
	sigset_t before;

	signals_block(&before);
	enum phase phase = phase_stall(region);

	if (portion->pagemap >= 0)
		watch_find_bare(region, portion->pagemap, first, end);
	watch_look(portion, first, end);
	phase_resume(region, phase);
	signals_restore(&before);
}

/* What MADV_DONTNEED throws away under mprotect(2) raises no event: an anonymous page that is nowhere counts as
 * written. */
static void watch_note_emptied(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page += 64) {
		uint64_t stop = math_min_u64(page + 64, end);
		uint64_t emptied = ~region_content(region, page, stop, 0) & math_low_bits(stop - page);

		for (; emptied; emptied &= emptied - 1)
			region_note_written(region, page + (uint64_t)__builtin_ctzll(emptied));
	}
}

static void watch_scan_portion(struct portion *portion, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = portion->region;

	if (region->uffd < 0 && region->memory == UFFDWP_MEMORY_ANON && !region->soft_dirty)
		watch_note_emptied(region, first, end);
	if (region->soft_dirty || (portion->peek && portion->pagemap < 0))
		watch_look(portion, first, end);
	else
		watch_look_stalled(portion, first, end);
}

/* 1: wp bits vanish without a word, and the kernel shows them. */
static int watch_reads_wp_bits(const struct uffdwp_region *region)
{
	return region_loses_wp_bits(region) || (region_may_merge(region) && runtime_shows_wp_bits(region->runtime) > 0);
}

static int watch_scan_locked(struct uffdwp_region *region, const struct piece *piece, int peek, struct findings *found)
{
	unsigned shift = region->page_shift;
	int reads = watch_reads_wp_bits(region);
	uint64_t most = reads ? PORTION_READ : PORTION_PAGES;
	uint64_t end = piece->first + math_min_u64((piece->end - piece->start) >> shift, most);
	struct preserve *preserve = atomic_load(&region->preserve);
	struct portion portion = {.region = region,
	                          .found = found,
	                          .base = piece->start - (piece->first << shift),
	                          .peek = peek,
	                          .snapshot = preserve != NULL,
	                          .may_arm = !region->soft_dirty && (!preserve || preserve->keeps),
	                          .pagemap = -1};

	INVARIANT(LOCK, invariant_holds(&region->lock) && invariant_holds(&tracks_lock));
	if (atomic_load(&region->dead))
		return -ESTALE;
	if (reads) {
		portion.pagemap = runtime_pagemap(region->runtime);
		if (portion.pagemap < 0)
			return portion.pagemap;
	}
	found->count = 0;
	watch_scan_portion(&portion, piece->first, end);
	if (portion.pagemap >= 0)
		region->k->close(portion.pagemap);
	INVARIANT(TRACK, portion.end >= piece->first && portion.end <= end);
	found->until = piece->start + ((portion.end - piece->first) << shift);
	return 0;
}

/* Under mprotect the owner can make armed pages writable, and no event says so: they are armed again, and written. */
static int watch_find_writable(struct uffdwp_region *region)
{
	struct uffdwp_audit audit = {.sz = sizeof(audit)};

	return audit_run(region, -1, &audit);
}

int watch_prepare(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	int error = atomic_load(&region->dead) ? -ESTALE : region->soft_dirty ? 0 : region_prepare(region);

	if (!error && region->uffd < 0 && !region->soft_dirty)
		error = watch_find_writable(region);
	lock_give(&region->lock);
	return error;
}

int watch_scan(struct uffdwp_region *region, const struct piece *piece, int peek, struct findings *found)
{
	lock_take(&region->lock);
	int error = watch_scan_locked(region, piece, peek, found);

	lock_give(&region->lock);
	return error;
}

int watch_begin(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	lock_take(&region->lock);
	int error = atomic_load(&region->dead) ? -ESTALE : region->is_private ? -EOPNOTSUPP : region_track(region);

	for (uint64_t page = first; page < end && !error; page++)
		region_note_uncollected(region, page);
	lock_give(&region->lock);
	return error;
}

void watch_end(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region_untrack(region);
	phase_quiesce_if_unwanted(region);
	lock_give(&region->lock);
}
