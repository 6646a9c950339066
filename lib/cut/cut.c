/* SPDX-License-Identifier: MIT */
/* See cut.h. */
#include "cut/cut.h"

#include <errno.h>

#include "base/invariant.h"
#include "base/math.h"
#include "base/probe_points.h"
#include "base/signals.h"
#include "base/trace.h"
#include "cut/move.h"
#include "fault/audit.h"
#include "fault/handler.h"
#include "fault/phase.h"
#include "fault/runtime.h"
#include "kernel/backoff.h"
#include "kernel/procfs.h"
#include "region/run.h"

/* What may be armed in the rounds during one stall of faults: calls of the kernel, and pages. Writers wait so long. */
#define PORTION_CALLS 12
#define PORTION_PAGES 2048

/* Pages that are looked at while faults are stalled. */
#define PORTION_BLOCKS 64

/* Pages are armed in calls of this many, so that a call does not keep the kernel's locks for ever. */
#define ARM_PAGES 65536

/* A round of so few calls is short: the pause will be like it. */
#define SHORT_CALLS 4

/* Rounds end after so many, or so long: 0.3 s for each GiB, and a moment. */
#define ROUNDS_MAX 64
#define ROUNDS_NS_PER_MIB 290000ull
#define ROUNDS_NS_LEAST 20000000ull

/* How long the caller of begin runs at a time meanwhile. */
#define ROUNDS_SLICE_NS 300000

/* How long a fault sleeps where rounds do not get shorter. */
static const uint32_t brakes_ns[] = {0, 50000, 200000, 800000};

#define BRAKES (sizeof(brakes_ns) / sizeof(brakes_ns[0]))

/* One pass over a region, or a portion of it. */
struct pass {
	struct cut *cut;
	struct uffdwp_region *region;
	uint64_t end_page;
	struct run run; /* to be armed */
	uint64_t armed;
	uint64_t calls;
	int looks;        /* what is armed may have got content since it was looked at: see content.c */
	uint64_t woke_ns; /* the last stall took so long, and a thread slept meanwhile; else 0 */
	int error;
};

static uint64_t cut_bitmap_bytes(const struct cut *cut)
{
	return math_bitmap_bytes(cut->pages_most);
}

void cut_set_length(struct cut *cut, uint64_t length_bytes)
{
	cut->length_bytes = length_bytes;
	cut->end_page = math_round_up(length_bytes, cut->region->page_bytes) >> cut->region->page_shift;
	if (cut->preserve)
		cut->preserve->end_page = cut->end_page;
}

void cut_init(struct cut *cut, struct uffdwp_region *region, uint64_t length_bytes)
{
	cut->k = region->k;
	cut->region = region;
	cut->pages_most = region->ledger.count;
	cut_set_length(cut, length_bytes);
}

int cut_has_rounds(const struct uffdwp_region *region)
{
	uint32_t id = region->mechanism->id;

	if (id != UFFDWP_MECHANISM_MARKER && id != UFFDWP_MECHANISM_REARM)
		return 0;
	/* There are few huge pages; and some are bare though they are armed (sweep_loses_wp_when_read()). */
	return region->uffd >= 0 && !region_loses_wp_bits(region) && region->memory != UFFDWP_MEMORY_HUGETLB;
}

static int cut_wants_kept(const struct cut *cut)
{
	return cut->keeps && cut_has_rounds(cut->region);
}

/* Some discards raise no event (fallocate(2)), others are reported too early: what had content at the last cut and is a
 * hole now has changed. Before the rounds: what is discarded outside of the library after this look is seen by the
 * next. */
static void cut_note_discarded(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	const _Atomic uint64_t *now = cut->preserve->content;

	lock_take(&region->lock);
	for (uint64_t word = 0; region->kept_content && word * 64 < cut->end_page; word++) {
		uint64_t gone = atomic_load(&region->kept_content[word]) & ~atomic_load(&now[word]);

		for (; gone; gone &= gone - 1)
			region_note_changed(region, word * 64 + (uint64_t)__builtin_ctzll(gone));
	}
	lock_give(&region->lock);
}

/* A discard of before the cut, whose event the handler has read and not acted on: acted on later it would be taken for
 * one that came after. */
static void cut_settle_discards(const struct cut *cut)
{
	const struct uffdwp_region *region = cut->region;

	if (region->handler && (cut->increment || region_loses_wp_bits(region) || region->fd < 0))
		handler_settle(region);
}

int cut_choose(struct cut *cut, uint32_t asked, struct text *text)
{
	struct probe_arming found = {0};

	cut->swap_on = procfs_swap_on(cut->k) != 0; /* where it cannot be asked, it may be */
	cut->arming = UFFDWP_ARMING_ROUNDS;
	if (asked == UFFDWP_ARMING_ROUNDS)
		return 0;
	int error = move_check(cut, asked == UFFDWP_ARMING_MOVE, &found);

	if (!error)
		error = move_open(cut, &found);
	if (error && asked == UFFDWP_ARMING_MOVE)
		return text_fail(text, error, "page tables cannot be moved: %s", found.reason);
	if (error)
		TRACE("region %p: rounds of arming, page tables are not moved: %s", (void *)cut->region, found.reason);
	else
		cut->arming = UFFDWP_ARMING_MOVE;
	cut->may_fall_back = asked == UFFDWP_ARMING_AUTO;
	return 0;
}

int cut_fall_back(struct cut *cut)
{
	if (!cut->may_fall_back)
		return 0;
	cut->arming = UFFDWP_ARMING_ROUNDS;
	if (cut->looks_late) /* also at what is protected already */
		content_look(cut, 0, cut->end_page);
	cut->looks_late = 0;
	return 1;
}

int cut_open(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	lock_take(&region->lock);
	int error = cut_wants_kept(cut) ? region_note_changes(region) : 0;

	lock_give(&region->lock);
	if (error)
		return error;
	cut_settle_discards(cut);
	if (!atomic_load(&region->changed))
		return 0;
	cut->pages_changed = pages_new(cut->k, cut_bitmap_bytes(cut));
	if (!cut->pages_changed)
		return -ENOMEM;
	pages_touch(cut->k, (void *)cut->pages_changed, cut_bitmap_bytes(cut));
	if (cut->increment)
		cut_note_discarded(cut);
	return 0;
}

void cut_close(struct cut *cut)
{
	move_close(cut);
	pages_free(cut->k, (void *)cut->pages_changed, cut_bitmap_bytes(cut));
	cut->pages_changed = NULL;
}

/* ---- a pass, while faults are stalled ---- */

static void cut_arm_run(struct pass *pass)
{
	if (pass->run.end > pass->run.first && !pass->error && !pass->cut->moved) {
		pass->error = region_arm_run(pass->region, pass->run.first, pass->run.end);
		pass->calls++;
		if (pass->error && cut_is_beside(pass->cut))
			beside_distrust(pass->region, pass->run.first, pass->run.end);
		if (pass->looks)
			content_look(pass->cut, pass->run.first, pass->run.end);
	}
	pass->run = (struct run){0};
}

/* Increments only: what did not change stays WATCHED, for the tracks that watch it. */
static enum ledger_state cut_state_of(const struct pass *pass, uint64_t page)
{
	_Atomic uint64_t *changed = atomic_load(&pass->region->changed);

	if (!pass->cut->increment)
		return LEDGER_ARMED;
	return atomic_load(&changed[page / 64]) >> (page % 64) & 1 ? LEDGER_ARMED : LEDGER_WATCHED;
}

static void cut_look_at(struct pass *pass, uint64_t page)
{
	struct ledger *ledger = &pass->region->ledger;
	enum ledger_state state = ledger_get(ledger, page);
	int beside = cut_is_beside(pass->cut);

	if (beside && state == LEDGER_CLAIMED) /* by the sweep, which leaves it protected */
		return;
	if (ledger_is_protected(state)) {
		/* Only an event may be faster: then the page is LOST, and found by the next pass. */
		if (!beside && state != cut_state_of(pass, page))
			ledger_move(ledger, page, state, cut_state_of(pass, page));
		return;
	}
	region_note_written(pass->region, page);
	if (!run_join(&pass->run, ledger, page)) {
		cut_arm_run(pass);
		run_join(&pass->run, ledger, page);
	}
	if (beside)
		beside_arm_page(pass->region, page);
	else
		ledger_set(ledger, page, LEDGER_ARMED);
	pass->armed++;
}

static void cut_look_at_block(struct pass *pass, uint64_t block)
{
	struct ledger *ledger = &pass->region->ledger;
	uint64_t first = block * LEDGER_BLOCK_PAGES;
	uint64_t end = math_min_u64(first + LEDGER_BLOCK_PAGES, pass->end_page);

	ledger_look(ledger, block);
	for (uint64_t page = first; page < end; page++)
		cut_look_at(pass, page);
	if (first + LEDGER_BLOCK_PAGES > pass->end_page)
		ledger_touch(ledger, first); /* what lies beyond the cut is not armed */
}

/* The next block at or after `from` that was touched, or lies at or after `all_from`. */
static uint64_t cut_next_block(const struct ledger *ledger, uint64_t from, uint64_t end, uint64_t all_from)
{
	uint64_t stop = math_min_u64(end, from > all_from ? from : all_from);

	for (uint64_t block = from; block < stop; block = (block / 64 + 1) * 64) {
		uint64_t bits =
		        atomic_load_explicit(&ledger->touched[block / 64], memory_order_acquire) >> (block % 64);

		if (bits)
			return math_min_u64(block + (uint64_t)__builtin_ctzll(bits), stop);
	}
	return stop;
}

static uint64_t cut_block_count(uint64_t pages)
{
	return (pages + LEDGER_BLOCK_PAGES - 1) / LEDGER_BLOCK_PAGES;
}

static struct pass cut_pass_of(struct cut *cut)
{
	return (struct pass){.cut = cut, .region = cut->region, .end_page = cut->end_page};
}

/* ---- rounds ---- */

/* What a round has left unlooked at ends after the blocks of this portion. */
static uint64_t cut_stall_portion(struct pass *pass, uint64_t block, uint64_t blocks, uint64_t all_from)
{
	struct uffdwp_region *region = pass->region;
	uint64_t calls = pass->calls;
	uint64_t armed = pass->armed;
	sigset_t before;

	signals_block(&before);
	uint64_t start = kernel_now_ns();

	enum phase phase = phase_stall(region);

	for (unsigned i = 0; i < PORTION_BLOCKS && block < blocks && !pass->error; i++) {
		if (pass->calls - calls >= PORTION_CALLS || pass->armed - armed >= PORTION_PAGES)
			break;
		cut_look_at_block(pass, block);
		block = cut_next_block(&region->ledger, block + 1, blocks, all_from);
	}
	cut_arm_run(pass);
	phase_move(region, phase);
	uint64_t stalled_ns = kernel_now_ns() - start;

	pass->woke_ns = phase_wake(region) ? stalled_ns : 0;
	signals_restore(&before);
	if (stalled_ns > pass->cut->stalled_most_ns)
		pass->cut->stalled_most_ns = stalled_ns;
	return block;
}

static uint64_t cut_bound_ns(const struct cut *cut)
{
	return ROUNDS_NS_LEAST + (cut->length_bytes >> 20) * ROUNDS_NS_PER_MIB;
}

static uint64_t cut_spent_ns(const struct cut *cut)
{
	return kernel_now_ns() - cut->rounds_begun_ns;
}

static void cut_brake(struct uffdwp_region *region, unsigned level)
{
	if (brakes_ns[level] > atomic_load(&region->brake_ns))
		atomic_store(&region->brake_ns, brakes_ns[level]);
}

/* Writers may also leave the rounds no CPU to be short. */
static void cut_brake_if_slow(const struct cut *cut)
{
	uint64_t eighths = cut_spent_ns(cut) * 8 / cut_bound_ns(cut);

	cut_brake(cut->region, eighths >= 4 ? 3 : eighths >= 2 ? 2 : eighths >= 1);
}

/* From block `all_from` on all are looked at. */
static void cut_make_round(struct pass *pass, uint64_t all_from)
{
	struct uffdwp_region *region = pass->region;
	uint64_t blocks = cut_block_count(pass->end_page);
	uint64_t block = cut_next_block(&region->ledger, 0, blocks, all_from);

	while (block < blocks && !pass->error) {
		lock_take(&region->lock);
		beside_begin(pass->cut);
		if (atomic_load(&region->dead) ||
		    (atomic_load(&region->phase) != PHASE_IDLE && !cut_is_beside(pass->cut)))
			pass->error = -ESTALE;
		else
			block = cut_stall_portion(pass, block, blocks, all_from);
		lock_give(&region->lock);
		cut_brake_if_slow(pass->cut);
		if (pass->woke_ns)
			phase_pause(region, pass->woke_ns);
	}
}

/* A failed portion: its pages are ARMED in the ledger and bare, perhaps. */
static void cut_take_back(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	lock_take(&region->lock);
	if (!atomic_load(&region->dead) && !cut_is_beside(cut)) /* else beside_distrust() was called */
		phase_quiesce(region);
	lock_give(&region->lock);
}

/* Whether what was left protected still is: wp bits may have been cleared outside of the library. */
static void cut_audit_wp_bits(const struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	sigset_t before;
	int pagemap = runtime_shows_wp_bits(region->runtime) > 0 ? runtime_pagemap(region->runtime) : -EOPNOTSUPP;

	lock_take(&region->lock);
	signals_block(&before);
	int is_unsure = (pagemap < 0 || audit_run(region, pagemap, &audit)) && !atomic_load(&region->dead);

	if (is_unsure && cut_is_beside(cut))
		beside_distrust(region, 0, region_pages(region));
	else if (is_unsure)
		phase_quiesce(region); /* everything counts as changed, and is armed anew */
	signals_restore(&before);
	lock_give(&region->lock);
	losses_report(region);
	if (pagemap >= 0)
		region->k->close(pagemap);
}

static void cut_enter_rounds(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	cut->rounds_begun_ns = kernel_now_ns();
	cut->braked_before_ns = atomic_load(&region->braked_ns);
	lock_take(&region->lock);
	region->rounds = 1;
	beside_begin(cut);
	(void)region_mend(region); /* what is not registered refuses to be armed, and says so then */
	uint32_t was_active = region_activate(region);

	lock_give(&region->lock);
	if (was_active && !region->mappers) /* page tables of other processes are not looked at */
		cut_audit_wp_bits(cut);
}

struct rounds {
	uint64_t last_armed;
	unsigned brake;
	int ended;
};

static void cut_go_round(struct cut *cut, struct rounds *rounds)
{
	struct pass pass = cut_pass_of(cut);

	pass.looks = cut->rounds > 0;
	cut_make_round(&pass, cut->rounds ? UINT64_MAX : 0);
	if (!cut->rounds++)
		content_look_again(cut);
	cut->rounds_pages += pass.armed;
	PROBE4(round, cut->region, cut->rounds, pass.armed, pass.calls);
	if (pass.error)
		cut_take_back(cut);
	else if (cut->rounds > 2 && pass.armed * 2 > rounds->last_armed && rounds->brake + 1 < BRAKES)
		cut_brake(cut->region, ++rounds->brake);
	rounds->last_armed = pass.armed;
	/* The first is unknown: a call of it may have armed very much. */
	rounds->ended = pass.error || cut->rounds >= ROUNDS_MAX ||
	                (cut->rounds > 1 && (pass.calls <= SHORT_CALLS || cut_spent_ns(cut) > cut_bound_ns(cut)));
	if (!pass.error)
		cut->rounds_end_page = pass.end_page;
}

static void cut_end_rounds(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	atomic_store(&region->brake_ns, 0);
	cut->rounds_ns = kernel_now_ns() - cut->rounds_begun_ns;
	cut->braked_ns = atomic_load(&region->braked_ns) - cut->braked_before_ns;
}

static void cut_run_rounds(struct cut *const *cuts, size_t count)
{
	struct rounds rounds[CUT_COUNT_MAX] = {0};
	size_t ended = 0;

	for (size_t i = 0; i < count; i++) {
		rounds[i].ended = cuts[i]->arming == UFFDWP_ARMING_MOVE || !cut_has_rounds(cuts[i]->region);
		if (cuts[i]->arming == UFFDWP_ARMING_MOVE && cuts[i]->increment)
			cut_audit_wp_bits(cuts[i]);
		ended += (size_t)rounds[i].ended;
		if (!rounds[i].ended)
			cut_enter_rounds(cuts[i]);
	}
	while (ended < count) { /* in turns: what was short must not have time to grow */
		for (size_t i = 0; i < count; i++) {
			if (rounds[i].ended)
				continue;
			cut_go_round(cuts[i], &rounds[i]);
			ended += (size_t)rounds[i].ended;
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (cuts[i]->rounds)
			cut_end_rounds(cuts[i]);
	}
}

/* Where writers leave no CPU free, a thread that has let them pass would wait for milliseconds each time. */
void cut_rounds(struct cut *const *cuts, size_t count)
{
	const struct kernel_ops *k = cuts[0]->k;
	int64_t slice_ns = k->sched_slice(ROUNDS_SLICE_NS);

	cut_run_rounds(cuts, count);
	if (slice_ns >= 0)
		k->sched_slice((uint64_t)slice_ns);
}

void cut_forget(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	if (!cut->rounds)
		return;
	lock_take(&region->lock);
	region->rounds = 0;
	phase_quiesce_if_unwanted(region);
	lock_give(&region->lock);
}

/* ---- the pause ---- */

/* What the rounds left, and what they have not seen: the region may have grown since. */
static int cut_arm_rest(struct cut *cut)
{
	struct pass pass = cut_pass_of(cut);
	struct ledger *ledger = &cut->region->ledger;
	uint64_t blocks = cut_block_count(pass.end_page);
	uint64_t all_from = cut->rounds_end_page / LEDGER_BLOCK_PAGES;
	uint64_t block = cut_next_block(ledger, 0, blocks, all_from);

	pass.looks = 1;
	for (; block < blocks && !pass.error; block = cut_next_block(ledger, block + 1, blocks, all_from))
		cut_look_at_block(&pass, block);
	cut_arm_run(&pass);
	cut->pause_pages = pass.armed;
	return pass.error;
}

/* The wp bits will say that nothing was written: what was not yet reported to a track is noted (INV-TRACK). */
static int cut_arm_all(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t end_page = cut->end_page;
	int error = 0;

	for (uint64_t page = 0; page < end_page && atomic_load(&region->tracked); page++) {
		if (!ledger_is_protected(ledger_get(&region->ledger, page)))
			region_note_written(region, page);
	}
	/* Where empty entries are ours none is filled now, and region_huge_content() fills those that it asks about. */
	if (region_owns_empty(region))
		content_look(cut, 0, end_page);
	ledger_set_range(&region->ledger, 0, end_page, LEDGER_ARMED);
	for (uint64_t page = 0; page < end_page && !error; page += ARM_PAGES)
		error = region_arm_run(region, page, math_min_u64(page + ARM_PAGES, end_page));
	if (!region_owns_empty(region))
		content_look(cut, 0, end_page);
	return error;
}

/* All pages are armed by the move; what others want to know of those that were not is noted. */
static void cut_follow_move(struct cut *cut)
{
	struct pass pass = cut_pass_of(cut);
	struct ledger *ledger = &cut->region->ledger;

	/* Where there are pre-images, what was noted of changes is taken along (cut_take_changes()). */
	int notes = atomic_load(&cut->region->tracked) || (!cut->preserve && atomic_load(&cut->region->changed));

	if (!notes && !cut->increment && !cut_is_beside(cut)) {
		ledger_set_range(ledger, 0, cut->end_page, LEDGER_ARMED);
		return;
	}
	for (uint64_t block = 0; block < cut_block_count(pass.end_page); block++)
		cut_look_at_block(&pass, block);
}

static int cut_arm(struct cut *cut)
{
	if (cut->arming == UFFDWP_ARMING_MOVE) {
		int error = move_arm(cut);

		if (!error)
			cut_follow_move(cut);
		if (!error || !cut_fall_back(cut))
			return error;
	}
	return cut_has_rounds(cut->region) ? cut_arm_rest(cut) : cut_arm_all(cut);
}

/* 1: the page is to be disarmed; else nothing is to be done. Writers unprotect pages meanwhile, and threads that fill
 * entries claim them for a moment. */
static int cut_release_page(const struct kernel_ops *k, struct ledger *ledger, uint64_t page)
{
	enum ledger_state state;
	enum ledger_state next;
	unsigned turn = 0;

	do {
		while ((state = ledger_get(ledger, page)) == LEDGER_CLAIMED)
			kernel_back_off(k, &turn);
		if (state == LEDGER_WATCHED || state == LEDGER_FREE)
			return 0;
		next = ledger_is_protected(state) ? LEDGER_WATCHED : LEDGER_LEAVING;
	} while (!ledger_move(ledger, page, state, next));
	return next == LEDGER_LEAVING;
}

/* The cut's user failed, and others still show a cut of their own: what is protected stays so, or all of it would be
 * broken off them. */
static void cut_keep_protection(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	for (uint64_t page = 0; page < cut->end_page; page++) {
		if (cut_release_page(region->k, &region->ledger, page))
			phase_disarm(region, page, page + 1);
	}
}

/* While faults are stalled or released: nothing is armed any more. */
static void cut_disarm_all(struct cut *cut)
{
	uint64_t end_page = cut->end_page;

	struct ledger *ledger = &cut->region->ledger;

	ledger_set_range(ledger, 0, end_page, LEDGER_LEAVING);
	for (uint64_t page = 0; page < end_page; page += ARM_PAGES)
		phase_disarm(cut->region, page, math_min_u64(page + ARM_PAGES, end_page));
	region_unkeep(cut->region, REGION_UNKEPT_FAILED);
}

/* With the region's lock held. */
static void cut_leave_region(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	phase_move(region, PHASE_IDLE);
	fault_epoch_wait();
	atomic_store(&region->preserve, NULL);
	if (!region_shares_moves(region)) /* else entries that another has moved away may be empty still */
		atomic_store(&region->moved, 0);
	if (cut->end_page >= region_pages(region))
		region->caller_armed = 0; /* what the caller had armed was unprotected with the rest */
	atomic_store(&region->active, (uint32_t)region_is_active(region));
	fault_epoch_wait(); /* and no thread uses the pool any more */
	phase_wake(region);
	fault_wake_starved(region);
	/* The track that wanted the wp bits is gone, or an earlier cut has left some beyond the end of this one. */
	if ((cut->preserve && cut->preserve->keeps) || cut->end_page < region_pages(region))
		phase_quiesce_if_unwanted(region);
}

/* The owner frees the old one. */
static void cut_keep_content(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	_Atomic uint64_t *content = cut->preserve->content;

	cut->preserve->content = region->kept_content;
	region->kept_content = content;
}

void cut_leave(struct cut *cut, int error)
{
	struct uffdwp_region *region = cut->region;

	/* The phase is RELEASE after a failure: a thread that holds the lock and waits in a barrier goes on by that. */
	lock_take(&region->lock);
	region->kept = !error && cut_wants_kept(cut);
	if (!region->kept)
		region->unkept = error ? REGION_UNKEPT_FAILED : REGION_UNKEPT_NO_FLAG;
	if (error) { /* only now: the thread that had the lock may have moved the phase for a moment */
		fault_epoch_wait();
		if (region_breaks_pages(region))
			cut_keep_protection(cut);
		else
			cut_disarm_all(cut);
	}
	cut_leave_region(cut);
	if (region->kept) /* only now no thread looks at it through region->preserve */
		cut_keep_content(cut);
	lock_give(&region->lock);
}

static void cut_stall(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	region->rounds = 0;
	int is_coarse = cut->preserve && cut->preserve->window_max > 1 && !region->caller_armed &&
	                !atomic_load(&region->tracked) && !region_breaks_pages(region);

	atomic_store(&region->coarse, (uint32_t)(is_coarse ? REGION_COARSE_BLOCKS : REGION_EXACT));
	if (cut->preserve)
		atomic_store(&cut->preserve->keeps, region_is_wanted(region) || cut->increment || cut_wants_kept(cut));
	beside_begin(cut);
	(void)region_activate(region);
	phase_stall_begin(region);
}

/* From now on what is written belongs to the next increment. While faults are stalled: two pointers change places. */
static void cut_take_changes(struct cut *cut)
{
	if (cut->pages_changed)
		cut->pages_changed = atomic_exchange(&cut->region->changed, cut->pages_changed);
}

/* The next increment may be longer than this image: it has all that lies beyond, whether written or not. With the
 * region's lock held, which a collect needs. */
static void cut_note_beyond(struct cut *cut)
{
	uint64_t first = cut->length_bytes >> cut->region->page_shift; /* a last partial page, too */

	region_note_changed_range(cut->region, first, region_pages(cut->region));
}

static void cut_give_up(struct cut *const *cuts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int others_see = region_breaks_pages(cuts[i]->region);

		if (cut_is_beside(cuts[i])) { /* what it has armed the end of the other unprotects */
			phase_resume(cuts[i]->region, PHASE_PRESERVE);
			continue;
		}
		if (others_see && cuts[i]->moved)
			cut_keep_protection(cuts[i]);
		else if (!others_see || cuts[i]->arming != UFFDWP_ARMING_MOVE) /* else nothing was armed */
			cut_disarm_all(cuts[i]);
		cut_leave_region(cuts[i]);
	}
}

/* Nothing but an event may be faster, which leaves pages LOST. */
static inline int cut_is_armed(const struct cut *cut)
{
	return !ledger_has(&cut->region->ledger, 0, cut->end_page,
	                   LEDGER_BIT(FREE) | LEDGER_BIT(OPEN) | LEDGER_BIT(LEAVING) | LEDGER_BIT(SAVED)) &&
	       cut->end_page <= cut->pages_most && cut->end_page <= region_pages(cut->region);
}

/* INV-CUT holds because from here to cut_resume() no fault is resolved. */
int cut_pause(struct cut *const *cuts, size_t count)
{
	uint64_t start = kernel_now_ns();
	int error = 0;

	for (size_t i = 0; i < count; i++) {
		INVARIANT(LOCK, invariant_holds(&cuts[i]->region->lock));
		cuts[i]->stalled_at_ns = start;
		cut_stall(cuts[i]);
	}
	fault_epoch_wait();
	for (size_t i = 0; i < count && !error; i++) {
		if (cuts[i]->preserve)
			atomic_store(&cuts[i]->region->preserve, cuts[i]->preserve);
		error = cut_arm(cuts[i]);
		if (!error && cuts[i]->establish)
			error = cuts[i]->establish(cuts[i]->owner);
		cuts[i]->refused = error != 0;
	}
	if (error)
		cut_give_up(cuts, count);
	for (size_t i = 0; i < count; i++)
		move_came(cuts[i]);
	return error;
}

void cut_resume(struct cut *const *cuts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		INVARIANT(CUT, atomic_load(&cuts[i]->region->phase) == PHASE_STALL && cut_is_armed(cuts[i]));
		cut_take_changes(cuts[i]);
		cuts[i]->faults_before = atomic_load(&cuts[i]->region->counters.faults);
		if (cuts[i]->preserve)
			atomic_store(&cuts[i]->preserve->looks, cuts[i]->looks_late);
		phase_move(cuts[i]->region, atomic_load(&cuts[i]->region->preserve) ? PHASE_PRESERVE : PHASE_IDLE);
	}
	uint64_t now = kernel_now_ns();

	for (size_t i = 0; i < count; i++) {
		cuts[i]->pause_ns = now - cuts[i]->stalled_at_ns;
		PROBE3(cut, cuts[i]->region, cuts[i]->pause_ns, cuts[i]->pause_pages);
		phase_wake(cuts[i]->region);
	}
}

int cut_establish(struct cut *const *cuts, size_t count)
{
	sigset_t before;

	signals_block(&before);
	int error = cut_pause(cuts, count);

	if (!error)
		cut_resume(cuts, count);
	signals_restore(&before);
	for (size_t i = 0; i < count; i++) {
		if (!error && cuts[i]->pages_changed)
			cut_note_beyond(cuts[i]);
	}
	return error;
}
