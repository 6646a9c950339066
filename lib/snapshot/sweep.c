/* SPDX-License-Identifier: MIT */
/*
 * The sweep: saves the pages that nobody writes, and collects the pre-images that faults have put into the pool.
 *
 * It goes through the region chunk by chunk. Of a chunk it claims what is still armed, batch by batch, copies it by
 * system calls (never through the mapping, which may vanish), lets it go, and adds the pre-images that it finds SAVED:
 * so every chunk goes to the sink whole and in one piece, whoever saved its pages. Faults leave hints (`hot`): when the
 * pool runs low the sweep jumps to the chunks that hold its oldest slots, unless the sink wants them in order.
 *
 * Content that vanished without a fault (a hole punched behind our back) shows as a page that held data at the cut,
 * that nobody claimed, and that is a hole after it was read: the snapshot fails (-ENODATA).
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "base/math.h"
#include "fault/handler.h"
#include "snapshot/cut.h"
#include "snapshot/snapshot.h"

enum page_kind { PAGE_NOTHING, PAGE_LIVE, PAGE_SLOT };

struct batch {
	uint64_t first;
	uint64_t end;
	unsigned char *buffer; /* of `first` */
	unsigned live;
	unsigned slots;
	int marked; /* some page may still carry its mark */
	unsigned char kinds[SWEEP_BATCH_PAGES];
};

static int stopped(const struct uffdwp_snapshot *snapshot)
{
	return atomic_load_explicit(&snapshot->preserve.error, memory_order_relaxed);
}

static int fail(struct uffdwp_snapshot *snapshot, int error, uint64_t page)
{
	fault_fail(snapshot->region, &snapshot->preserve, error, page);
	return atomic_load(&snapshot->preserve.error); /* of several the first counts */
}

/* A claimant is copying and will be done in microseconds, or as soon as it has the CPU again. */
static enum ledger_state settled_state(struct ledger *ledger, uint64_t page)
{
	enum ledger_state state = ledger_get(ledger, page);

	while (state == LEDGER_CLAIMED) {
		sched_yield();
		state = ledger_get(ledger, page);
	}
	return state;
}

/* Of an increment: a discard was noted while the cut was made, when the page had been looked at: it is the next one's.
 */
static int give_back(struct uffdwp_snapshot *snapshot, uint64_t page)
{
	if (!snapshot->increment || ledger_get(&snapshot->region->ledger, page) != LEDGER_WATCHED)
		return 0;
	atomic_fetch_and(&snapshot->pages_changed[page / 64], ~(1ull << (page % 64)));
	region_note_changed(snapshot->region, page);
	return 1;
}

/* -ENODATA: a page was lost, and its content at the cut. */
static int claim_batch(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	struct ledger *ledger = &snapshot->region->ledger;
	int error = 0;

	batch->live = 0;
	batch->slots = 0;
	batch->marked = 0;
	for (uint64_t page = batch->first; page < batch->end; page++) {
		unsigned char *kind = &batch->kinds[page - batch->first];

		enum ledger_state state;

		*kind = PAGE_NOTHING;
		if (!cut_wants(snapshot, page) || give_back(snapshot, page))
			continue;
		do { /* a claim that only filled its entry gives it back */
			if (ledger_move(ledger, page, LEDGER_ARMED, LEDGER_CLAIMED))
				*kind = PAGE_LIVE;
			state = *kind == PAGE_LIVE ? LEDGER_ARMED : settled_state(ledger, page);
		} while (state == LEDGER_ARMED && *kind != PAGE_LIVE);
		if (*kind == PAGE_LIVE) {
			batch->live++;
			batch->marked = 1;
			continue;
		}
		if (state == LEDGER_SAVED || state == LEDGER_OPEN) {
			*kind = PAGE_SLOT;
			batch->slots++;
			batch->marked |= state == LEDGER_SAVED;
		} else { /* LOST, or let go by whatever went wrong: its content at the cut is nowhere */
			error = fail(snapshot, -ENODATA, page);
		}
	}
	return error;
}

/* Memory that loses marks and content together: a page that still has its mark had its content when it was read. */
static int check_marks(struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t all = low_bits(end - first);
	uintptr_t base;
	uint64_t marks;

	do {
		base = atomic_load(&region->base);
		marks = region_marks(region, snapshot->preserve.pagemap, first, end);
	} while (marks != all && region_has_moved(region, base));
	if (marks == all)
		return 0;
	uint64_t page = first + (uint64_t)__builtin_ctzll(~marks);

	return fail(snapshot, atomic_load(&region->unmapped) ? -ESTALE : -ENODATA, page);
}

/* Which of pages [first, end) had content at the cut and have none now. */
static uint64_t vanished_bits(const struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	uint64_t now = region_content(snapshot->region, first, end, 1);
	uint64_t vanished = 0;

	for (uint64_t page = first; page < end; page++)
		vanished |= (uint64_t)(snapshot_had_content(snapshot, page) && !(now >> (page - first) & 1))
		            << (page - first);
	return vanished;
}

/* Live pages [first, end) were read: any that had content at the cut and has none now may have lost it before. */
static int check_vanished(struct uffdwp_snapshot *snapshot, uint64_t first, uint64_t end)
{
	if (snapshot->preserve.pagemap >= 0)
		return check_marks(snapshot, first, end);
	struct uffdwp_region *region = snapshot->region;
	uint64_t vanished;
	uintptr_t base;

	do {
		base = atomic_load(&region->base);
		vanished = vanished_bits(snapshot, first, end);
	} while (vanished && region_has_moved(region, base));
	if (!vanished)
		return 0;
	uint64_t page = first + (uint64_t)__builtin_ctzll(vanished);

	return fail(snapshot, region_is_mapped(region, page) ? -ENODATA : -ESTALE, page);
}

/* How many of the pages from `page` on are alike in `bits`, bit 0 of which is `first`. */
static uint64_t alike_until(uint64_t bits, uint64_t first, uint64_t page, uint64_t end)
{
	uint64_t kind = bits >> (page - first) & 1;

	while (page < end && (bits >> (page - first) & 1) == kind)
		page++;
	return page;
}

/* Whether an empty entry was discarded just now is known when the handler has acted on what it had read: it fails the
 * snapshot then, because the pages are claimed. */
static int read_settled(struct uffdwp_region *region, uint64_t offset, void *to, size_t length)
{
	int error = region_read_patiently(region, offset, to, length);

	if (error != -EAGAIN)
		return error;
	handler_sync(region->handler);
	return region_read_empty(region, offset, to, length);
}

/* Reads the data of live pages [first, end), zeros the holes between. */
static int read_run(struct uffdwp_snapshot *snapshot, unsigned char *to, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t data = region_data(region, first, end);
	unsigned shift = region->page_shift;
	int error = 0;

	for (uint64_t page = first, next; page < end && !error; page = next) {
		unsigned char *at = to + ((page - first) << shift);

		next = alike_until(data, first, page, end);
		if (data >> (page - first) & 1) {
			error = read_settled(region, page << shift, at, (next - page) << shift);
			atomic_fetch_add_explicit(&snapshot->pages_sweep, next - page, memory_order_relaxed);
		} else {
			memset(at, 0, (next - page) << shift);
			atomic_fetch_add_explicit(&snapshot->pages_hole, next - page, memory_order_relaxed);
		}
	}
	return error ? fail(snapshot, error, first) : check_vanished(snapshot, first, end);
}

static int read_live(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	unsigned shift = snapshot->region->page_shift;
	int error = 0;

	for (uint64_t page = batch->first; page < batch->end && !error;) {
		uint64_t end = page;

		while (end < batch->end && batch->kinds[end - batch->first] == PAGE_LIVE)
			end++;
		if (end > page)
			error = read_run(snapshot, batch->buffer + ((page - batch->first) << shift), page, end);
		page = end + 1;
	}
	return error;
}

/* Whether a huge page had content is found out by filling its entry plain (region_content()): the mark is gone then. */
static int loses_mark_when_read(const struct uffdwp_region *region)
{
	return region->memory == UFFDWP_MEMORY_HUGETLB && region_owns_empty(region);
}

/* Of a region that is tracked they stay protected instead; who waits for the claim comes again. What a writer has saved
 * is let go page by page: between may lie what is WATCHED. */
static void keep_watched(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	struct uffdwp_region *region = snapshot->region;
	struct ledger *ledger = &region->ledger;

	for (uint64_t page = batch->first; page < batch->end; page++) {
		enum page_kind kind = (enum page_kind)batch->kinds[page - batch->first];

		if (kind == PAGE_LIVE)
			ledger_set(ledger, page, loses_mark_when_read(region) ? LEDGER_LEAVING : LEDGER_WATCHED);
		enum ledger_state state = kind == PAGE_NOTHING ? LEDGER_FREE : ledger_get(ledger, page);

		if ((state == LEDGER_SAVED || state == LEDGER_LEAVING) && !region_disarm_run(region, page, page + 1))
			ledger_disarmed(ledger, page);
	}
	if (batch->live > 0)
		fault_wake_pages(region, batch->first, batch->end);
}

/* Live pages are safe in our memory, or the snapshot has failed: they go (INV-SAFE). */
static void release(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	struct uffdwp_region *region = snapshot->region;

	if (snapshot->preserve.keeps) {
		keep_watched(snapshot, batch);
		return;
	}
	for (uint64_t page = batch->first; page < batch->end; page++) {
		if (batch->kinds[page - batch->first] == PAGE_LIVE)
			ledger_set(&region->ledger, page, LEDGER_LEAVING);
	}
	/* The whole batch in one call: whatever lies between is let go as well (INV-IDEMPOTENT). */
	if (region_disarm_run(region, batch->first, batch->end)) {
		fault_wake_region(region);
		return;
	}
	for (uint64_t page = batch->first; page < batch->end; page++)
		ledger_disarmed(&region->ledger, page);
}

static void take_slots(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	struct preserve *preserve = &snapshot->preserve;
	unsigned shift = snapshot->region->page_shift;

	for (uint64_t page = batch->first; page < batch->end; page++) {
		if (batch->kinds[page - batch->first] != PAGE_SLOT)
			continue;
		uint32_t slot = atomic_load_explicit(&preserve->slot_of[page], memory_order_relaxed);

		memcpy(batch->buffer + ((page - batch->first) << shift), pool_slot(&preserve->pool, slot),
		       snapshot->region->page_bytes);
		ledger_set(&snapshot->region->ledger, page, LEDGER_FREE);
		pool_give(&preserve->pool, slot);
	}
	if (!snapshot->freed_slots)
		snapshot->freed_since_ns = kernel_now_ns();
	snapshot->freed_slots += batch->slots;
}

/* Writers that starve are woken when it is worth it: a few long waits disturb less than one for every chunk. */
static void wake_starved(struct uffdwp_snapshot *snapshot, int at_once)
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
static int await_restore(struct uffdwp_snapshot *snapshot, const struct batch *batch)
{
	const _Atomic int *stop = &snapshot->preserve.error;
	uint64_t page = batch->first;

	if (!atomic_load(&snapshot->region->lazy))
		return 0;
	for (uint64_t end; page < batch->end; page = end + 1) {
		uint64_t failed = page;

		for (end = page; end < batch->end && cut_wants(snapshot, end);)
			end++;
		int error = fault_await(snapshot->region, page, end, stop, &failed);

		if (error)
			return fail(snapshot, error, failed);
	}
	return 0;
}

static int save_batch(struct uffdwp_snapshot *snapshot, struct batch *batch)
{
	int error = await_restore(snapshot, batch);

	if (error)
		return error;
	error = claim_batch(snapshot, batch);

	if (batch->live > 0 && !error)
		error = read_live(snapshot, batch);
	if (batch->marked)
		release(snapshot, batch);
	if (batch->slots > 0)
		take_slots(snapshot, batch);
	return error ? error : stopped(snapshot);
}

static int fill_chunk(struct uffdwp_snapshot *snapshot, uint64_t index, struct chunk *chunk)
{
	unsigned shift = snapshot->region->page_shift;
	uint64_t first = index * snapshot->chunk_pages;
	uint64_t end = min_u64(first + snapshot->chunk_pages, snapshot->preserve.end_page);
	struct batch batch;
	int error = 0;

	for (uint64_t page = first; page < end && !error; page = batch.end) {
		batch.first = page;
		batch.end = min_u64(page + SWEEP_BATCH_PAGES, end);
		batch.buffer = chunk->buffer + ((page - first) << shift);
		error = save_batch(snapshot, &batch);
	}
	chunk->offset = first << shift;
	chunk->length = (end - first) << shift;
	chunk->busy = 1;
	return error;
}

/* From the end to the start, unless the sink wants the other order: a sequential writer, who mostly goes up, then meets
 * the sweep once instead of racing with it. */
static uint64_t cursor_chunk(const struct uffdwp_snapshot *snapshot, uint64_t chunks)
{
	return snapshot->sink.ops->ordered ? snapshot->cursor : chunks - 1 - snapshot->cursor;
}

static int runs_low(const struct pool *pool)
{
	return pool_left(pool) < pool->slots / 2;
}

/* A chunk that holds the oldest pre-images, when the pool runs low; else the next in order. */
static int next_chunk(struct uffdwp_snapshot *snapshot, uint64_t chunks, uint64_t *index)
{
	struct preserve *preserve = &snapshot->preserve;
	uint32_t page;

	while (!snapshot->sink.ops->ordered && runs_low(&preserve->pool) && ring_pop(&preserve->hot, &page)) {
		*index = page / snapshot->chunk_pages;
		if (!snapshot->swept[*index])
			return 1;
	}
	while (snapshot->cursor < chunks && snapshot->swept[cursor_chunk(snapshot, chunks)])
		snapshot->cursor++;
	*index = cursor_chunk(snapshot, chunks);
	return snapshot->cursor < chunks;
}

static struct chunk *idle_chunk(struct uffdwp_snapshot *snapshot)
{
	for (unsigned i = 0; i < snapshot->chunk_count; i++) {
		if (!snapshot->chunks[i].busy)
			return &snapshot->chunks[i];
	}
	return NULL;
}

static unsigned busy_chunks(const struct uffdwp_snapshot *snapshot)
{
	unsigned busy = 0;

	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		busy += (unsigned)(snapshot->chunks[i].busy != 0);
	return busy;
}

/* What of a chunk goes to the sink. */
static uint64_t content_bytes(const struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	struct chunk_run run = {0, 0};
	uint64_t bytes = 0;

	if (snapshot->sink.ops->ordered)
		return chunk->length;
	while (chunk_next_run(chunk, run.offset + run.length, &run))
		bytes += run.length;
	return bytes;
}

static void count_rate(struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	if (snapshot->rate.rate_bytes)
		bucket_take(&snapshot->rate, content_bytes(snapshot, chunk), kernel_now_ns());
}

/* Until the rate allows more, or the pool runs low: writers pay for a slow disk, but not for a rate that was chosen. A
 * change of `error` ends the nap, or its time does. */
static int keep_rate(struct uffdwp_snapshot *snapshot)
{
	const struct sink_ops *sink = snapshot->sink.ops;
	const struct preserve *preserve = &snapshot->preserve;
	uint64_t left_ns;
	int error = 0;

	while (!error && !stopped(snapshot) && !runs_low(&preserve->pool) &&
	       (left_ns = bucket_wait_ns(&snapshot->rate, kernel_now_ns())) > 0) {
		wake_starved(snapshot, 1);
		if (busy_chunks(snapshot) > 0)
			error = sink->reap(snapshot);
		else
			snapshot->k->futex_wait((const uint32_t *)&preserve->error, 0, min_u64(left_ns, SWEEP_NAP_NS));
	}
	return error ? error : stopped(snapshot);
}

static int sweep_chunk(struct uffdwp_snapshot *snapshot, uint64_t index)
{
	const struct sink_ops *sink = snapshot->sink.ops;
	struct chunk *chunk;
	int error = keep_rate(snapshot);

	while (!(chunk = idle_chunk(snapshot)) && !error) {
		error = sink->reap(snapshot);
		wake_starved(snapshot, 0);
	}
	if (error)
		return fail(snapshot, error, index * snapshot->chunk_pages);
	error = fill_chunk(snapshot, index, chunk);
	snapshot->swept[index] = 1;
	if (error)
		return error;
	count_rate(snapshot, chunk);
	wake_starved(snapshot, !sink->reap); /* such a sink may block for long */
	error = sink->write(snapshot, chunk);
	return error ? fail(snapshot, error, index * snapshot->chunk_pages) : 0;
}

/* Of an increment: chunks without a page that changed are done. */
static void leave_out_unchanged(struct uffdwp_snapshot *snapshot, uint64_t chunks)
{
	for (uint64_t index = 0; index < chunks; index++) {
		uint64_t page = index * snapshot->chunk_pages;
		uint64_t end = min_u64(page + snapshot->chunk_pages, snapshot->preserve.end_page);

		while (page < end && !cut_wants(snapshot, page))
			page++;
		snapshot->swept[index] = page == end;
	}
}

int sweep_run(struct uffdwp_snapshot *snapshot)
{
	uint64_t pages = snapshot->preserve.end_page;
	uint64_t chunks = (pages + snapshot->chunk_pages - 1) / snapshot->chunk_pages;
	uint64_t index;
	int error = 0;

	if (snapshot->increment)
		leave_out_unchanged(snapshot, chunks);
	while (!error && next_chunk(snapshot, chunks, &index))
		error = sweep_chunk(snapshot, index);
	while (!error && busy_chunks(snapshot) > 0)
		error = snapshot->sink.ops->reap(snapshot);
	if (error)
		return fail(snapshot, error, 0);
	return stopped(snapshot);
}
