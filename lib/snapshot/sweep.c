/* SPDX-License-Identifier: MIT */
/*
 * The sweep: saves the pages that are not written, and collects the pre-images that faults have put into the pool.
 *
 * It goes through the region chunk by chunk. It claims the pages of a chunk that are still armed, batch by batch,
 * copies them by system calls (never through the mapping, which may vanish), unprotects them, and adds the pre-images
 * that it finds SAVED: so every chunk goes to the sink whole and in one piece, whichever thread saved its pages. Faults
 * leave hints (`hot`): when the pool runs low the sweep jumps to the chunks that have its oldest slots, unless the sink
 * wants them in order.
 *
 * Content that vanished without a fault (a hole punched outside of the library) shows as a page that had data at the
 * cut, that no thread claimed, and that is a hole after it was read: the snapshot fails (-ENODATA).
 */
#include <errno.h>
#include <string.h>

#include "base/invariant.h"
#include "base/math.h"
#include "cut/cut.h"
#include "cut/move.h"
#include "fault/handler.h"
#include "kernel/backoff.h"
#include "region/view.h"
#include "snapshot/snapshot.h"

enum page_kind { PAGE_NOTHING, PAGE_LIVE, PAGE_SLOT };

struct batch {
	uint64_t first;
	uint64_t end;
	unsigned char *buffer; /* of `first` */
	unsigned live;
	unsigned slots;
	int wp; /* some page may still carry its wp bit */
	unsigned char kinds[SWEEP_BATCH_PAGES];
};

static int sweep_stopped(const struct uffdwp_snapshot *snapshot)
{
	return atomic_load_explicit(&snapshot->preserve.error, memory_order_relaxed);
}

static int sweep_fail(struct uffdwp_snapshot *snapshot, int error, uint64_t page)
{
	fault_fail(snapshot->region, &snapshot->preserve, error, page);
	return atomic_load(&snapshot->preserve.error); /* of several the first counts */
}

/* A claimant is copying and will be done in microseconds, or as soon as it has the CPU again. */
static enum ledger_state sweep_settled_state(const struct uffdwp_snapshot *snapshot, uint64_t page)
{
	const struct ledger *ledger = &snapshot->region->ledger;
	enum ledger_state state = ledger_get(ledger, page);
	unsigned turn = 0;

	while (state == LEDGER_CLAIMED) {
		kernel_back_off(snapshot->k, &turn);
		state = ledger_get(ledger, page);
	}
	return state;
}

/* Increments only: a discard was noted while the cut was made, after the page had been looked at: it belongs to the
 * next one. */
static int sweep_give_back(struct uffdwp_snapshot *snapshot, uint64_t page)
{
	if (!snapshot->cut.increment || ledger_get(&snapshot->region->ledger, page) != LEDGER_WATCHED)
		return 0;
	atomic_fetch_and(&snapshot->cut.pages_changed[page / 64], ~(1ull << (page % 64)));
	region_note_changed(snapshot->region, page);
	return 1;
}

/* -ENODATA: a page was lost, and its content at the cut. */
static int sweep_claim_batch(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	struct ledger *ledger = &snapshot->region->ledger;
	int error = 0;

	batch->live = 0;
	batch->slots = 0;
	batch->wp = 0;
	for (uint64_t page = batch->first; page < batch->end; page++) {
		unsigned char *kind = &batch->kinds[page - batch->first];

		enum ledger_state state;

		*kind = PAGE_NOTHING;
		if (!cut_wants(&snapshot->cut, page) || sweep_give_back(snapshot, page))
			continue;
		do { /* a claim that only filled its entry gives it back */
			if (ledger_move(ledger, page, LEDGER_ARMED, LEDGER_CLAIMED))
				*kind = PAGE_LIVE;
			state = *kind == PAGE_LIVE ? LEDGER_ARMED : sweep_settled_state(snapshot, page);
		} while (state == LEDGER_ARMED && *kind != PAGE_LIVE);
		if (*kind == PAGE_LIVE) {
			batch->live++;
			batch->wp = 1;
			continue;
		}
		if (state == LEDGER_SAVED || state == LEDGER_OPEN || state == LEDGER_STORED) {
			*kind = PAGE_SLOT;
			batch->slots++;
			batch->wp |= state == LEDGER_SAVED;
		} else { /* LOST, or unprotected by whatever went wrong: its content at the cut is nowhere */
			error = sweep_fail(snapshot, -ENODATA, page);
		}
	}
	return error;
}

/* Pages that still stop a write had their content when they were read. */
static int sweep_check_protection(struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = snapshot->region;
	int pagemap = snapshot->preserve.pagemap;
	uintptr_t base;
	uint64_t bare;

	do {
		base = atomic_load(&region->base);
		bare = region_bare(region, pagemap, first, end);
	} while (bare && !sweep_stopped(snapshot) && region_has_moved(region, base));
	if (!bare)
		return 0;
	region_note_bare(region);
	return sweep_fail(snapshot, atomic_load(&region->unmapped) ? -ESTALE : -ENODATA,
	                  first + (uint64_t)__builtin_ctzll(bare));
}

/* Which of pages [first, end) had content at the cut and have none now. */
static uint64_t sweep_vanished_bits(const struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	uint64_t now = region_content(snapshot->region, first, end, 1);
	uint64_t vanished = 0;

	for (uint64_t page = first; page < end; page++)
		vanished |= (uint64_t)(snapshot_had_content(snapshot, page) && !(now >> (page - first) & 1))
		            << (page - first);
	return vanished;
}

/* Live pages [first, end) were read: any that had content at the cut and has none now may have lost it before. */
static int sweep_check_vanished(struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = snapshot->region;
	int error =
	        snapshot->preserve.pagemap >= 0 || region->uffd < 0 ? sweep_check_protection(snapshot, first, end) : 0;
	uint64_t vanished;
	uintptr_t base;

	if (error || region_loses_wp_bits(region)) /* those lose both together */
		return error;
	do {
		base = atomic_load(&region->base);
		vanished = sweep_vanished_bits(snapshot, first, end);
	} while (vanished && !sweep_stopped(snapshot) && region_has_moved(region, base));
	if (!vanished)
		return 0;
	uint64_t page = first + (uint64_t)__builtin_ctzll(vanished);

	return sweep_fail(snapshot, region_is_mapped(region, page) ? -ENODATA : -ESTALE, page);
}

/* How many of the pages from `page` on are alike in `bits`, bit 0 of which is `first`. */
static uint64_t sweep_alike_until(uint64_t bits, uint64_t first, uint64_t page, uint64_t end)
{
	uint64_t kind = bits >> (page - first) & 1;

	while (page < end && (bits >> (page - first) & 1) == kind)
		page++;
	return page;
}

/* Where the region is not where it was, an event says where it is now; an owner may move it again and again. */
static int sweep_read_followed(struct uffdwp_snapshot *snapshot, uint64_t offset, void *to, size_t length)
{
	struct uffdwp_region *region = snapshot->region;
	uintptr_t base;
	int error;

	do {
		base = atomic_load(&region->base);
		error = region_read(region, offset, to, length);
	} while (error == -ESTALE && !sweep_stopped(snapshot) && region_has_moved(region, base));
	return error;
}

/* Whether an empty entry was discarded just now is known when the handler has acted on what it had read: it fails the
 * snapshot then, because the pages are claimed. */
static int sweep_read_settled(struct uffdwp_snapshot *snapshot, uint64_t offset, void *to, size_t length)
{
	struct uffdwp_region *region = snapshot->region;
	int error = sweep_read_followed(snapshot, offset, to, length);

	if (error != -EAGAIN)
		return error;
	handler_settle(region);
	return region_read_empty(region, offset, to, length);
}

/* Reads the data of live pages [first, end), zeros the holes between. */
static int sweep_read_run(struct uffdwp_snapshot *snapshot, unsigned char *to, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t data = region_data(region, first, end);
	unsigned shift = region->page_shift;
	int error = region_reads_zeros(region) ? sweep_check_vanished(snapshot, first, end) : 0;

	if (error)
		return error;

	for (uint64_t page = first, next; page < end && !error; page = next) {
		unsigned char *at = to + ((page - first) << shift);

		next = sweep_alike_until(data, first, page, end);
		if (data >> (page - first) & 1) {
			error = sweep_read_settled(snapshot, page << shift, at, (next - page) << shift);
			atomic_fetch_add_explicit(&snapshot->pages_sweep, next - page, memory_order_relaxed);
		} else {
			memset(at, 0, (next - page) << shift);
			atomic_fetch_add_explicit(&snapshot->pages_hole, next - page, memory_order_relaxed);
		}
	}
	return error ? sweep_fail(snapshot, error, first) : sweep_check_vanished(snapshot, first, end);
}

static int sweep_read_live(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	unsigned shift = snapshot->region->page_shift;
	int error = 0;

	for (uint64_t page = batch->first; page < batch->end && !error;) {
		uint64_t end = page;

		while (end < batch->end && batch->kinds[end - batch->first] == PAGE_LIVE)
			end++;
		if (end > page)
			error = sweep_read_run(snapshot, batch->buffer + ((page - batch->first) << shift), page, end);
		page = end + 1;
	}
	return error;
}

/* Whether a huge page had content is found out by filling its entry plain (region_content()): the wp bit is cleared
 * then. */
static int sweep_loses_wp_when_read(const struct uffdwp_region *region)
{
	return region->memory == UFFDWP_MEMORY_HUGETLB && region_owns_empty(region);
}

/* One call: the sweep may be inside the epoch, where no thread waits. 0; -EBUSY: a child has to be known, or to end,
 * before; or -errno. */
static int sweep_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = view_break(region, first, end) ? -EBUSY : region->mechanism->disarm(region, first, end);

	for (uint64_t page = first; page < end && !error; page++)
		ledger_disarmed(&region->ledger, page);
	return error;
}

/* What was saved or is being unprotected, page by page, for between may lie what is WATCHED. The first error, after all
 * were tried. */
static int sweep_disarm_pages(struct uffdwp_region *region, const struct batch *batch)
{
	int worst = 0;

	for (uint64_t page = batch->first; page < batch->end; page++) {
		enum page_kind kind = (enum page_kind)batch->kinds[page - batch->first];
		enum ledger_state state = kind == PAGE_NOTHING ? LEDGER_FREE : ledger_get(&region->ledger, page);

		if (state == LEDGER_SAVED || state == LEDGER_LEAVING) {
			int error = sweep_disarm(region, page, page + 1);

			worst = worst ? worst : error;
		}
	}
	return worst;
}

/* Where others want the protection they stay protected instead; a thread that waits for the claim comes again. What a
 * writer has saved is left to it where it has to be broken off views before (INV-VIEW), or while a cut is arming (such
 * a page is LEAVING next, and armed by the cut, or unprotected by the writer). */
static int sweep_keep_watched(struct uffdwp_snapshot *snapshot, const struct batch *batch, int is_first)
{
	struct uffdwp_region *region = snapshot->region;
	struct ledger *ledger = &region->ledger;
	int disarms = atomic_load(&region->phase) != PHASE_STALL && !region_breaks_pages(region);

	for (uint64_t page = batch->first; page < batch->end && is_first; page++) {
		if (batch->kinds[page - batch->first] == PAGE_LIVE)
			ledger_set(ledger, page, sweep_loses_wp_when_read(region) ? LEDGER_LEAVING : LEDGER_WATCHED);
	}
	int error = disarms ? sweep_disarm_pages(region, batch) : 0;

	if (batch->live > 0 && is_first)
		fault_wake_pages(region, batch->first, batch->end);
	return error;
}

static int sweep_unprotect(struct uffdwp_snapshot *snapshot, const struct batch *batch, int is_first)
{
	struct uffdwp_region *region = snapshot->region;

	if (!is_first)
		return sweep_disarm_pages(region, batch);
	for (uint64_t page = batch->first; page < batch->end; page++) {
		if (batch->kinds[page - batch->first] == PAGE_LIVE)
			ledger_set(&region->ledger, page, LEDGER_LEAVING);
	}
	INVARIANT(IDEMPOTENT, !ledger_has(&region->ledger, batch->first, batch->end, LEDGER_BITS_PROTECTED));
	INVARIANT(CLAIM, !ledger_has(&region->ledger, batch->first, batch->end, LEDGER_BIT(CLAIMED)));
	/* An entry that was moved away and not filled yet would be a fault once more. */
	if (snapshot->cut.moved && batch->end > snapshot->cut.filled_end)
		mechanism_fill_run(region, batch->first, batch->end, 0);
	/* The whole batch in one call: what lies between is unprotected as well (INV-IDEMPOTENT). */
	return sweep_disarm(region, batch->first, batch->end);
}

/* Where a child may come, inside the epoch: a cut that is made beside this snapshot has raised `keeps` before it arms
 * anything, and waits until no thread has seen else. Other regions may be moved by their owners, and are waited for. */
static int sweep_release_once(struct uffdwp_snapshot *snapshot, const struct batch *batch, int is_first)
{
	int is_inside = region_fits_child(snapshot->region);
	epoch_ticket ticket = is_inside ? epoch_enter(&fault_epoch) : 0;
	int error = atomic_load(&snapshot->preserve.keeps) ? sweep_keep_watched(snapshot, batch, is_first)
	                                                   : sweep_unprotect(snapshot, batch, is_first);

	if (is_inside)
		epoch_leave(ticket);
	return error;
}

/* 1: the same again: an event of the owner's has to be read first, memory has moved, or a child is being made. */
static int sweep_tries_again(struct uffdwp_region *region, int error, uintptr_t base_before, uint64_t until_ns)
{
	return error == -EBUSY || (error == -EAGAIN && kernel_now_ns() < until_ns) ||
	       (error == -ENOENT && region_has_moved(region, base_before));
}

/* Live pages are safe in our memory, or the snapshot has failed: they go (INV-SAFE). What has to happen first is waited
 * for outside of the epoch: the thread that reads an event may wait for the epoch itself. Another cut may come
 * meanwhile, which arms what is LEAVING: all is looked at anew. */
static void sweep_release(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	struct uffdwp_region *region = snapshot->region;
	uintptr_t base = atomic_load(&region->base);
	unsigned turn = BACKOFF_YIELD;
	int error = sweep_release_once(snapshot, batch, 1);
	uint64_t until_ns = error ? kernel_now_ns() + REGION_EVENT_NS : 0;

	while (error && sweep_tries_again(region, error, base, until_ns)) {
		kernel_back_off(region->k, &turn);
		base = atomic_load(&region->base);
		error = sweep_release_once(snapshot, batch, 0);
	}
	if (error) {
		atomic_store(&region->clinging, 1);
		fault_wake_region(region);
	}
}

static enum ledger_state sweep_state_without_slot(enum ledger_state state)
{
	switch (state) {
	case LEDGER_OPEN:
		return LEDGER_FREE;
	case LEDGER_STORED:
		return LEDGER_WATCHED;
	case LEDGER_SAVED:
		return LEDGER_LEAVING;
	default: /* the snapshot has failed, and the page was unprotected */
		return state;
	}
}

/* Its pre-image is taken. A page that is not unprotected yet is LEAVING: a write, or a barrier, takes the bit off. A
 * cut may arm it meanwhile. */
static void sweep_end_slot(const struct uffdwp_snapshot *snapshot, uint64_t page)
{
	enum ledger_state state;
	enum ledger_state next;

	do {
		state = sweep_settled_state(snapshot, page);
		next = sweep_state_without_slot(state);
	} while (state != next && !ledger_move(&snapshot->region->ledger, page, state, next));
}

static void sweep_take_slots(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	struct preserve *preserve = &snapshot->preserve;
	unsigned shift = snapshot->region->page_shift;

	for (uint64_t page = batch->first; page < batch->end; page++) {
		if (batch->kinds[page - batch->first] != PAGE_SLOT)
			continue;
		uint32_t slot = atomic_load_explicit(&preserve->slot_of[page], memory_order_relaxed);

		INVARIANT(SAFE, slot < preserve->pool.slots);
		memcpy(batch->buffer + ((page - batch->first) << shift), pool_slot(&preserve->pool, slot),
		       snapshot->region->page_bytes);
		sweep_end_slot(snapshot, page);
		pool_give(&preserve->pool, slot);
	}
	if (!snapshot->freed_slots)
		snapshot->freed_since_ns = kernel_now_ns();
	snapshot->freed_slots += batch->slots;
}

/* Writers that starve are woken when it is worth it: a few long waits disturb less than one for every chunk. */
static void sweep_wake_starved(struct uffdwp_snapshot *snapshot, int at_once)
{
	const struct pool *pool = &snapshot->preserve.pool;

	if (!snapshot->freed_slots)
		return;
	if (at_once || snapshot->freed_slots >= pool->slots / SWEEP_WAKE_SHARE ||
	    kernel_now_ns() - snapshot->freed_since_ns >= SWEEP_WAKE_NS) {
		snapshot->freed_slots = 0;
		fault_wake_starved(snapshot->region);
	}
}

/* What a lazy restore has not fetched yet has to come before it is claimed: it is filled under a claim. */
static int sweep_await_restore(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	const _Atomic int *stop = &snapshot->preserve.error;
	uint64_t page = batch->first;

	if (!atomic_load(&snapshot->region->lazy))
		return 0;
	for (uint64_t end; page < batch->end; page = end + 1) {
		uint64_t failed = page;

		for (end = page; end < batch->end && cut_wants(&snapshot->cut, end);)
			end++;
		int error = fault_await(snapshot->region, page, end, stop, &failed);

		if (error)
			return sweep_fail(snapshot, fault_unfetched_error(error),
			                  failed); /* an own error stands already */
	}
	return 0;
}

static int sweep_save_batch(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	int error = sweep_await_restore(snapshot, batch);

	if (error)
		return error;
	error = sweep_claim_batch(snapshot, batch);

	if (batch->live > 0 && !error)
		error = sweep_read_live(snapshot, batch);
	if (batch->wp)
		sweep_release(snapshot, batch);
	if (batch->slots > 0)
		sweep_take_slots(snapshot, batch);
	return error ? error : sweep_stopped(snapshot);
}

static int sweep_fill_chunk(struct uffdwp_snapshot *snapshot, uint64_t index, struct chunk *chunk)
{
	unsigned shift = snapshot->region->page_shift;
	uint64_t first = index * snapshot->chunk_pages;
	uint64_t end = math_min_u64(first + snapshot->chunk_pages, snapshot->preserve.end_page);
	struct batch batch;
	int error = 0;

	for (uint64_t page = first; page < end && !error; page = batch.end) {
		batch.first = page;
		batch.end = math_min_u64(page + SWEEP_BATCH_PAGES, end);
		batch.buffer = chunk->buffer + ((page - first) << shift);
		error = sweep_save_batch(snapshot, &batch);
	}
	chunk->offset = first << shift;
	chunk->length = (end - first) << shift;
	chunk->busy = 1;
	return error;
}

/* From the end to the start, unless the sink wants the other order: a sequential writer, which mostly goes up, then
 * meets the sweep once instead of racing with it. */
static uint64_t sweep_cursor_chunk(const struct uffdwp_snapshot *snapshot, uint64_t chunks)
{
	return snapshot->sink.ops->ordered ? snapshot->cursor : chunks - 1 - snapshot->cursor;
}

static int sweep_runs_low(const struct pool *pool)
{
	return pool_left(pool) < pool->slots / 2;
}

/* A chunk that has the oldest pre-images, when the pool runs low; else the next in order. */
static int sweep_next_chunk(struct uffdwp_snapshot *snapshot, uint64_t chunks, uint64_t *index)
{
	struct preserve *preserve = &snapshot->preserve;
	uint32_t page;

	while (!snapshot->sink.ops->ordered && sweep_runs_low(&preserve->pool) && ring_pop(&preserve->hot, &page)) {
		*index = page / snapshot->chunk_pages;
		if (!snapshot->swept[*index])
			return 1;
	}
	while (snapshot->cursor < chunks && snapshot->swept[sweep_cursor_chunk(snapshot, chunks)])
		snapshot->cursor++;
	*index = sweep_cursor_chunk(snapshot, chunks);
	return snapshot->cursor < chunks;
}

static struct chunk *sweep_idle_chunk(struct uffdwp_snapshot *snapshot)
{
	for (unsigned i = 0; i < snapshot->chunk_count; i++) {
		if (!snapshot->chunks[i].busy)
			return &snapshot->chunks[i];
	}
	return NULL;
}

static unsigned sweep_busy_chunks(const struct uffdwp_snapshot *snapshot)
{
	unsigned busy = 0;

	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		busy += (unsigned)(snapshot->chunks[i].busy != 0);
	return busy;
}

/* What of a chunk goes to the sink. */
static uint64_t sweep_content_bytes(const struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	struct chunk_run run = {0, 0};
	uint64_t bytes = 0;

	if (snapshot->sink.ops->ordered)
		return chunk->length;
	while (chunk_next_run(chunk, run.offset + run.length, &run))
		bytes += run.length;
	return bytes;
}

static void sweep_count_rate(struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	if (snapshot->rate.rate_bytes)
		bucket_take(&snapshot->rate, sweep_content_bytes(snapshot, chunk), kernel_now_ns());
}

/* Until the rate allows more, or the pool runs low: writers pay for a slow disk, but not for a rate that was chosen. A
 * failure, which wakes no thread here, is seen when the sleep is over; so is a program that closed the descriptors. */
static int sweep_keep_rate(struct uffdwp_snapshot *snapshot)
{
	const struct sink_ops *sink = snapshot->sink.ops;
	const struct preserve *preserve = &snapshot->preserve;
	uint64_t left_ns;
	int error = 0;

	while (!error && !sweep_stopped(snapshot) && !sweep_runs_low(&preserve->pool) &&
	       (left_ns = bucket_wait_ns(&snapshot->rate, kernel_now_ns())) > 0) {
		sweep_wake_starved(snapshot, 1);
		if (sweep_busy_chunks(snapshot) > 0)
			error = snapshot_sink_answer(snapshot, sink->reap(snapshot));
		else
			snapshot->k->futex_wait((const uint32_t *)&preserve->error, 0,
			                        math_min_u64(left_ns, SWEEP_SLEEP_NS));
		error = error ? error : snapshot_check_own(snapshot);
	}
	return error ? error : sweep_stopped(snapshot);
}

static int sweep_chunk(struct uffdwp_snapshot *snapshot, uint64_t index)
{
	const struct sink_ops *sink = snapshot->sink.ops;
	struct chunk *chunk;
	int error = sweep_keep_rate(snapshot);

	while (!(chunk = sweep_idle_chunk(snapshot)) && !error) {
		error = snapshot_sink_answer(snapshot, sink->reap(snapshot));
		sweep_wake_starved(snapshot, 0);
	}
	if (error)
		return sweep_fail(snapshot, error, index * snapshot->chunk_pages);
	error = sweep_fill_chunk(snapshot, index, chunk);
	snapshot->swept[index] = 1;
	if (error)
		return error;
	sweep_count_rate(snapshot, chunk);
	sweep_wake_starved(snapshot, !sink->reap); /* such a sink may block for long */
	error = snapshot_sink_answer(snapshot, sink->write(snapshot, chunk));
	return error ? sweep_fail(snapshot, error, index * snapshot->chunk_pages) : 0;
}

/* Increments only: chunks without a page that changed are done. */
static void sweep_leave_out_unchanged(struct uffdwp_snapshot *snapshot, uint64_t chunks)
{
	for (uint64_t index = 0; index < chunks; index++) {
		uint64_t page = index * snapshot->chunk_pages;
		uint64_t end = math_min_u64(page + snapshot->chunk_pages, snapshot->preserve.end_page);

		while (page < end && !cut_wants(&snapshot->cut, page))
			page++;
		snapshot->swept[index] = page == end;
	}
}

/* Which of pages [first, end) are armed in the ledger. */
static uint64_t sweep_protected_bits(const struct ledger *ledger, uint64_t first, uint64_t end)
{
	uint64_t bits = 0;

	for (uint64_t page = first; page < end; page++)
		bits |= (uint64_t)ledger_is_protected(ledger_get(ledger, page)) << (page - first);
	return bits;
}

/* Incremental snapshots only, of memory whose wp bits vanish without an event: what was not saved, because it was not
 * written since the parent, must still stop a write. Looked at before the kernel and after: no page is armed between.
 */
static int sweep_check_unchanged(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t pages = snapshot->preserve.end_page;

	if (snapshot->preserve.pagemap < 0 || !region_may_merge(region))
		return 0;
	for (uint64_t page = 0; page < pages; page += 64) {
		uint64_t end = math_min_u64(page + 64, pages);
		uint64_t wp = sweep_protected_bits(&region->ledger, page, end);
		uint64_t bare = wp ? wp & region_bare(region, snapshot->preserve.pagemap, page, end) : 0;

		if (bare & sweep_protected_bits(&region->ledger, page, end)) {
			region_note_bare(region);
			return sweep_fail(snapshot, -ENODATA, page + (uint64_t)__builtin_ctzll(bare));
		}
	}
	return 0;
}

void sweep_touch_pool(struct uffdwp_snapshot *snapshot)
{
	struct pool *pool = &snapshot->preserve.pool;

	if (!pool->touched)
		pages_touch_beside(snapshot->k, pool->memory, pool_bytes(pool), &snapshot->preserve.hurries);
}

static void sweep_touch_late(struct uffdwp_snapshot *snapshot)
{
	struct preserve *preserve = &snapshot->preserve;

	sweep_touch_pool(snapshot);
	pages_touch_beside(snapshot->k, (void *)preserve->slot_of, preserve->end_page * sizeof(*preserve->slot_of),
	                   &preserve->hurries);
}

/* After a move of the page tables every read would wait for the handler until the sweep comes by: all entries are
 * filled first, as long as writers do not need the pool; what had content is noted all the same, and alone while a
 * child waits for it, whose cut moves the page tables once more, most probably. */
static int sweep_after_move(struct uffdwp_snapshot *snapshot)
{
	struct preserve *preserve = &snapshot->preserve;
	struct cut *cut = &snapshot->cut;

	sweep_touch_late(snapshot);
	for (uint64_t page = 0; page < cut->end_page && !sweep_stopped(snapshot);)
		page = move_fill(cut, page, !sweep_runs_low(&preserve->pool) && !atomic_load(&preserve->hurries));
	int error = sweep_stopped(snapshot) ? 0 : move_check_content(cut);

	atomic_store(&preserve->looks, 0);
	if (atomic_exchange(&preserve->hurries, 0))
		sweep_touch_late(snapshot);
	return error ? sweep_fail(snapshot, error, 0) : sweep_stopped(snapshot);
}

int sweep_run(struct uffdwp_snapshot *snapshot)
{
	uint64_t pages = snapshot->preserve.end_page;
	uint64_t chunks = (pages + snapshot->chunk_pages - 1) / snapshot->chunk_pages;
	uint64_t index;
	int error = snapshot->cut.moved ? sweep_after_move(snapshot) : 0;

	if (!error) /* now it is known what had content */
		error = snapshot_sink_answer(snapshot, snapshot_prepare_sink(snapshot, &snapshot->text));
	if (snapshot->cut.increment)
		sweep_leave_out_unchanged(snapshot, chunks);
	while (!error && sweep_next_chunk(snapshot, chunks, &index))
		error = sweep_chunk(snapshot, index);
	while (!error && sweep_busy_chunks(snapshot) > 0)
		error = snapshot_sink_answer(snapshot, snapshot->sink.ops->reap(snapshot));
	if (!error && snapshot->cut.increment)
		error = sweep_check_unchanged(snapshot);
	if (error)
		return sweep_fail(snapshot, error, 0);
	return sweep_stopped(snapshot);
}
