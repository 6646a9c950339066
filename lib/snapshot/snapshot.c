/* SPDX-License-Identifier: MIT */
/*
 * How a snapshot begins and ends; see snapshot.h. What begin does while faults are stalled is the pause: nothing there
 * allocates or touches memory for the first time.
 */
#include "snapshot/snapshot.h"
#include "fault/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/probe_points.h"
#include "base/thread.h"
#include "base/trace.h"
#include "cut/cut.h"
#include "cut/move.h"
#include "fault/phase.h"
#include "kernel/own.h"

#define POOL_BYTES_DEFAULT (64ull << 20)
#define WAIT_NS_DEFAULT 10000000000ull
#define WINDOW_DEFAULT 16
#define CHUNK_BYTES (1024ull << 10)
#define THREAD_BYTES (128ull << 10)

static const struct sink_ops *const sinks[] = {&sink_image, &sink_stream, &sink_callback, &sink_nbd};

static uint64_t snapshot_or_default(uint64_t value, uint64_t standard)
{
	return value ? value : standard;
}

static void snapshot_sink_init(struct uffdwp_snapshot *snapshot)
{
	snapshot->sink.ops = snapshot->options.parent ? &sink_delta : sinks[snapshot->options.sink];
	snapshot->sink.fd = -1;
}

/* What a fault takes along would be in the next increment. */
static uint32_t snapshot_window(const struct uffdwp_snapshot_options *options)
{
	if ((options->flags & UFFDWP_SNAPSHOT_KEEP) && !(options->flags & UFFDWP_SNAPSHOT_COARSE))
		return 1;
	return (uint32_t)snapshot_or_default(options->window_max, WINDOW_DEFAULT);
}

static struct uffdwp_snapshot *snapshot_new(struct uffdwp_region *region, const struct uffdwp_snapshot_options *options,
                                            int no_uring)
{
	struct uffdwp_snapshot *snapshot = pages_new(region->k, sizeof(*snapshot));

	if (!snapshot)
		return NULL;
	snapshot->k = region->k;
	snapshot->region = region;
	snapshot->options = *options;
	snapshot->no_uring = no_uring;
	snapshot->begun_ns = kernel_now_ns();
	snapshot->cut.preserve = &snapshot->preserve;
	snapshot->cut.increment = (options->flags & UFFDWP_SNAPSHOT_INCREMENT) != 0 || options->parent != NULL;
	snapshot->cut.keeps = (options->flags & UFFDWP_SNAPSHOT_KEEP) != 0;
	cut_init(&snapshot->cut, region, snapshot_or_default(options->length, atomic_load(&region->length_bytes)));
	snapshot->preserve.k = region->k;
	snapshot->preserve.pagemap = -1;
	snapshot->preserve.window_max = snapshot_window(options);
	snapshot->preserve.policy = options->policy;
	snapshot->preserve.wait_ns = snapshot_or_default(options->wait_ns, WAIT_NS_DEFAULT);
	lock_init(&snapshot->lock);
	bucket_init(&snapshot->rate, options->rate_bytes);
	text_init(&snapshot->text);
	snapshot->ended_fd = -1;
	snapshot_sink_init(snapshot);
	return snapshot;
}

/* Chunks that the region may ever have: what is sized by it is address space until it is used. */
static uint64_t snapshot_chunk_total(const struct uffdwp_snapshot *snapshot)
{
	return (snapshot->cut.pages_most + snapshot->chunk_pages - 1) / snapshot->chunk_pages;
}

static uint64_t snapshot_chunk_bytes(const struct uffdwp_snapshot *snapshot)
{
	return snapshot->chunk_pages << snapshot->region->page_shift;
}

/* At most a quarter of the bound goes to chunks in flight to the sink, the rest are slots. */
static void snapshot_divide_pool(struct uffdwp_snapshot *snapshot, uint64_t pool_pages)
{
	uint64_t by_size = CHUNK_BYTES >> snapshot->region->page_shift;
	uint64_t by_pool = pool_pages / 8;

	snapshot->chunk_pages = math_min_u64(by_size ? by_size : 1, by_pool ? by_pool : 1);
	snapshot->chunk_count = (unsigned)math_min_u64(CHUNK_COUNT_MAX, pool_pages / 4 / snapshot->chunk_pages);
}

/* What is kept of each page and slot counts, too, and what a thread and its ring touch. */
static uint64_t snapshot_table_pages(const struct uffdwp_snapshot *snapshot, uint64_t pool_pages)
{
	uint64_t pages = snapshot->preserve.end_page;
	uint64_t bytes = THREAD_BYTES + pages * sizeof(*snapshot->preserve.slot_of) + pages / 2 +
	                 math_next_power_of_two((uint32_t)pool_pages + 1) * sizeof(*snapshot->preserve.hot_cells);

	return math_min_u64(bytes >> snapshot->region->page_shift, pool_pages / 8);
}

/* Each page is saved once, so that of a pool of twice the region some slots are left when all its pages are saved: all
 * beyond would be touched for nothing, which is most of what a small snapshot costs, and with a caller's "no bound" all
 * memory would be taken. The capacity counts: the region may grow until the cut. */
static uint64_t snapshot_wanted_pool_pages(const struct uffdwp_snapshot *snapshot)
{
	uint64_t page_bytes = snapshot->region->page_bytes;
	uint64_t asked = snapshot_or_default(snapshot->options.pool_bytes, POOL_BYTES_DEFAULT) / page_bytes;

	return math_min_u64(asked, SNAPSHOT_POOL_PAGES_MIN + 2 * snapshot->cut.pages_most);
}

static uint64_t snapshot_touch_bytes(const struct uffdwp_snapshot *snapshot)
{
	return snapshot->cut.arming == UFFDWP_ARMING_MOVE ? SNAPSHOT_TOUCH_MOVE_BYTES : SNAPSHOT_TOUCH_BYTES;
}

static int snapshot_open_pool(struct uffdwp_snapshot *snapshot)
{
	uint64_t page_bytes = snapshot->region->page_bytes;
	uint64_t pool_pages = snapshot_wanted_pool_pages(snapshot);

	if (pool_pages < SNAPSHOT_POOL_PAGES_MIN)
		pool_pages = SNAPSHOT_POOL_PAGES_MIN;
	snapshot_divide_pool(snapshot, pool_pages);
	uint64_t slots =
	        pool_pages - snapshot->chunk_count * snapshot->chunk_pages - snapshot_table_pages(snapshot, pool_pages);

	struct pool *pool = &snapshot->preserve.pool;
	int error = pool_open(pool, snapshot->region, slots * page_bytes);

	if (!error && !pool->touched)
		pages_touch(snapshot->k, pool->memory, math_min_u64(pool_bytes(pool), snapshot_touch_bytes(snapshot)));
	return error;
}

static int snapshot_open_buffers(struct uffdwp_snapshot *snapshot)
{
	uint64_t bytes = snapshot_chunk_bytes(snapshot);

	snapshot->buffers = region_spare_take(snapshot->region, bytes * snapshot->chunk_count);
	if (!snapshot->buffers)
		snapshot->buffers = region_pages_new(snapshot->region, bytes * snapshot->chunk_count);
	snapshot->swept = pages_new(snapshot->k, snapshot_chunk_total(snapshot));
	if (!snapshot->buffers || !snapshot->swept)
		return -ENOMEM;
	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		snapshot->chunks[i].buffer = snapshot->buffers + i * bytes;
	return 0;
}

/* What the fault path writes to is touched before the pause. Where pages are armed at once the caller does not wait for
 * all of it: the snapshot's thread touches the rest. */
static int snapshot_open_preserve(struct uffdwp_snapshot *snapshot)
{
	struct preserve *preserve = &snapshot->preserve;
	uint64_t most = snapshot->cut.arming == UFFDWP_ARMING_MOVE ? SNAPSHOT_TOUCH_MOVE_BYTES : UINT64_MAX;

	preserve->slot_of = pages_new(snapshot->k, snapshot->cut.pages_most * sizeof(*preserve->slot_of));
	preserve->hot_count = math_next_power_of_two(preserve->pool.slots + 1);
	preserve->hot_cells = pages_new(snapshot->k, preserve->hot_count * sizeof(*preserve->hot_cells));
	if (!preserve->slot_of || !preserve->hot_cells)
		return -ENOMEM;
	pages_touch(snapshot->k, (void *)preserve->slot_of,
	            math_min_u64(preserve->end_page * sizeof(*preserve->slot_of), most));
	ring_init(&preserve->hot, preserve->hot_cells, preserve->hot_count);
	return 0;
}

/* Where the pagemap shows wp bits they are looked at after each read. Only memory where the kernel itself clears them
 * must be looked at. */
static int snapshot_open_pagemap(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	int wants = !region->mappers && (region_loses_wp_bits(region) ||
	                                 (region_has_wp_bits(region) && runtime_shows_wp_bits(region->runtime) > 0));
	int pagemap = wants ? runtime_pagemap(region->runtime) : -1;

	if (wants && pagemap < 0 && region->memory == UFFDWP_MEMORY_ANON)
		return pagemap;
	snapshot->preserve.pagemap = pagemap < 0 ? -1 : pagemap;
	return 0;
}

/* What comes next with this region is another snapshot, most probably: it finds its memory touched. */
static void snapshot_leave_memory(struct uffdwp_snapshot *snapshot)
{
	pool_leave(&snapshot->preserve.pool, snapshot->region);
	region_spare_give(snapshot->region, snapshot->buffers, snapshot_chunk_bytes(snapshot) * snapshot->chunk_count);
	snapshot->buffers = NULL;
}

static void snapshot_close_memory(struct uffdwp_snapshot *snapshot)
{
	const struct kernel_ops *k = snapshot->k;
	struct preserve *preserve = &snapshot->preserve;

	own_close(k, preserve->pagemap, snapshot->region->runtime->tag);
	cut_close(&snapshot->cut);
	pool_close(&preserve->pool);
	pages_free(k, (void *)preserve->slot_of, snapshot->cut.pages_most * sizeof(*preserve->slot_of));
	pages_free(k, preserve->hot_cells, preserve->hot_count * sizeof(*preserve->hot_cells));
	pages_free(k, snapshot->buffers, snapshot_chunk_bytes(snapshot) * snapshot->chunk_count);
	pages_free(k, snapshot->swept, snapshot->chunk_pages ? snapshot_chunk_total(snapshot) : 0);
	pages_free(k, (void *)snapshot->preserve.content, math_bitmap_bytes(snapshot->cut.pages_most));
}

static void snapshot_delete(struct uffdwp_snapshot *snapshot)
{
	text_fini(&snapshot->text);
	own_close(snapshot->k, snapshot->ended_fd, snapshot->ended_tag);
	lock_fini(&snapshot->lock);
	pages_free(snapshot->k, snapshot, sizeof(*snapshot));
}

/* The mechanism may have to unprotect so many pages at once; twice that must have room, or writers would starve, if not
 * all pages have. */
static int snapshot_prepare_region(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct uffdwp_region *region = snapshot->region;
	int error = cut_prepare(&snapshot->cut);
	uint64_t most = region->mechanism->granularity_most ? region->mechanism->granularity_most(region) : 1;
	uint64_t enough = math_min_u64(most * 2, snapshot->cut.pages_most);

	if (error || enough <= snapshot->preserve.pool.slots || most == 1)
		return error;
	return text_fail(
	        text, -ENOBUFS,
	        "%s has to save up to %llu pages at once here, and the pool has room for %u: raise pool_bytes or "
	        "vm.max_map_count",
	        region->mechanism->name, (unsigned long long)most, (unsigned)snapshot->preserve.pool.slots);
}

static int snapshot_open_memory(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int error = snapshot_open_pool(snapshot);

	if (!error)
		error = snapshot_open_buffers(snapshot);
	region_spare_forget(snapshot->region); /* of a snapshot with another pool */
	if (!error)
		error = snapshot_open_preserve(snapshot);
	if (!error)
		error = content_open(&snapshot->cut);
	if (!error)
		error = cut_open(&snapshot->cut);
	if (error)
		return text_fail(text, error, "no memory for the snapshot's pool: lower pool_bytes");
	error = snapshot_prepare_region(snapshot, text);
	if (error)
		return error;
	error = snapshot_open_pagemap(snapshot);
	return error ? text_fail(text, error, "/proc/self/pagemap cannot be opened: %s", errno_text(error)) : 0;
}

/* ---- the snapshot's thread ---- */

/* The state has changed. With the lock held. */
static void snapshot_announce(struct uffdwp_snapshot *snapshot)
{
	atomic_fetch_add(&snapshot->changes, 1);
	snapshot->k->futex_wake((const uint32_t *)&snapshot->changes, INT32_MAX);
}

static const char *snapshot_meaning(const struct uffdwp_region *region, int error)
{
	switch (error) {
	case -ECANCELED:
		return "it was aborted";
	case -ENOLINK:
		return "the page was never fetched, its lazy restore was aborted or freed: punch or restore the region "
		       "before";
	case -ENODATA:
		return "content was discarded outside of the library: use uffdwp_region_punch(); or something took "
		       "the protection of pages: KSM, mprotect(2), another userfaultfd; or swap was switched on "
		       "meanwhile, and the kernel dropped pages of zeros";
	case -ETIME:
		return "the sink took too long, and a writer waited for pool memory longer than wait_ns: raise wait_ns "
		       "or pool_bytes, or use a faster sink";
	case -ENOBUFS:
		return "the pool was full, and the policy is to abort: raise pool_bytes or use a faster sink";
	case -ESTALE:
		return region_death(region);
	case -EBADF:
		return "the program has closed descriptors of the library: one that closes what it did not open has to "
		       "do so before uffdwp_open()";
	case -EOWNERDEAD:
		return atomic_load(&region->dead) ? region_death(region)
		                                  : "the region's handler thread ended or stood still: another one has "
		                                    "taken its place, and the next snapshot works";
	default:
		return errno_text(error);
	}
}

/* The sink's own words, if it was the sink. */
static const char *snapshot_cause(const struct uffdwp_snapshot *snapshot, int error)
{
	const struct sink *sink = &snapshot->sink;

	if (sink->error != error && !(sink->error == -ETIMEDOUT && error == -ETIME))
		return snapshot_meaning(snapshot->region, error);
	if (sink->reason[0])
		return sink->reason;
	return error == -EBADF ? snapshot_meaning(snapshot->region, error) : errno_text(sink->error);
}

static void snapshot_end_text(struct uffdwp_snapshot *snapshot, int error)
{
	unsigned long long at = atomic_load(&snapshot->preserve.error_page) << snapshot->region->page_shift;

	if (error == -ECANCELED)
		text_fail(&snapshot->text, error, "the snapshot failed: %s", snapshot_meaning(snapshot->region, error));
	else
		text_fail(&snapshot->text, error, "the snapshot failed at bytes [%llu, %llu): %s", at,
		          at + snapshot->region->page_bytes, snapshot_cause(snapshot, error));
}

/* What the next increment would build on is not there: everything counts as changed. */
static void snapshot_break_chain(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region_unkeep(region, REGION_UNKEPT_FAILED);
	phase_quiesce_if_unwanted(region);
	lock_give(&region->lock);
}

/* The ledger shows what was written since this cut; only if this image is committed, it can be a parent. */
static void snapshot_forget_image(struct uffdwp_region *region)
{
	static const struct image_identity none;

	lock_take(&region->lock);
	region->last_image = none;
	lock_give(&region->lock);
}

/* With the lock held. */
static void snapshot_signal_end(struct uffdwp_snapshot *snapshot)
{
	if (snapshot->ended_fd >= 0)
		own_kick(snapshot->k, snapshot->ended_fd, snapshot->ended_tag);
}

static void snapshot_finish(struct uffdwp_snapshot *snapshot, int error)
{
	uint64_t faults = atomic_load(&snapshot->region->counters.faults) - snapshot->cut.faults_before;

	if (error == -ETIMEDOUT)
		error = -ETIME; /* a sink's; for uffdwp_snapshot_wait() the other means "still running" */
	if (error != -ECANCELED && snapshot_check_own(snapshot))
		error = snapshot_check_own(snapshot);
	if (!error && snapshot->preserve.keeps)
		move_fill_rest(&snapshot->cut);
	cut_leave(&snapshot->cut, error);
	snapshot_forget_image(snapshot->region);
	if (!error && snapshot->sink.ops->commit) {
		error = snapshot->sink.ops->commit(snapshot);
		error = error == -ETIMEDOUT ? -ETIME : error;
		if (error)
			snapshot_break_chain(snapshot->region);
	} else if (error) {
		snapshot_end_text(snapshot, error);
	}
	snapshot->sink.ops->close(snapshot, !error);
	PROBE3(commit, snapshot->region, error, atomic_load(&snapshot->bytes_written));
	TRACE("snapshot %p: %s, %llu pages by faults, %llu by the sweep%s%s", (void *)snapshot,
	      error ? errno_text(error) : "committed", (unsigned long long)atomic_load(&snapshot->preserve.pages_fault),
	      (unsigned long long)atomic_load(&snapshot->pages_sweep), snapshot->sink.direct ? ", O_DIRECT" : "",
	      snapshot->sink.uring ? ", io_uring" : "");
	lock_take(&snapshot->lock);
	snapshot->state = error ? UFFDWP_SNAPSHOT_STATE_FAILED : UFFDWP_SNAPSHOT_STATE_COMMITTED;
	snapshot->error = error;
	snapshot->faults_during = faults;
	snapshot->ended_ns = kernel_now_ns();
	snapshot_announce(snapshot);
	snapshot_signal_end(snapshot);
	lock_give(&snapshot->lock);
}

static void *snapshot_main(void *argument)
{
	struct uffdwp_snapshot *snapshot = argument;

	thread_begin("uffdwp-sweep");
	if (!snapshot->touches_late)
		sweep_touch_pool(snapshot);
	/* The order is the last that begin does: it shall return, and not wait for a slice of this thread. */
	snapshot->k->sched_batch(1);
	int goes = order_await(&snapshot->order, snapshot->k);

	snapshot->k->sched_batch(0);
	if (goes)
		snapshot_finish(snapshot, sweep_run(snapshot));
	if (goes) /* what no caller waits for, but one that frees it */
		move_close(&snapshot->cut);
	return NULL;
}

static int snapshot_start_thread(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int error = thread_spawn(&snapshot->thread, NULL, snapshot_main, snapshot);

	return error ? text_fail(text, error, "the snapshot's thread could not be started: %s", errno_text(error)) : 0;
}

/* ---- begin ---- */

/* One snapshot of a region at a time, from here until it is freed. */
static int snapshot_reserve_region(struct uffdwp_region *region, const struct uffdwp_snapshot_options *options,
                                   struct text *text)
{
	unsigned long long length = atomic_load(&region->length_bytes);
	int error = region_refuse_private(region, text);

	if (error)
		return error;
	lock_take(&region->lock);
	if (atomic_load(&region->dead))
		error = text_fail(text, -ESTALE, "%s: close it", region_death(region));
	else if (region->soft_dirty)
		error = text_fail(text, -EOPNOTSUPP,
		                  "soft-dirty only reports what was written: this region has no snapshots");
	else if (region->snapshot_open)
		error = text_fail(text, -EBUSY, "a snapshot of this region has not been freed: uffdwp_snapshot_free()");
	else if (region->cut_comes)
		error = text_fail(text, -EBUSY, "a view or a child of this region is just being made");
	else if (options->length > length)
		error = text_fail(text, -ERANGE, "length %llu is beyond the region's %llu bytes",
		                  (unsigned long long)options->length, length);
	else
		region->snapshot_open = region->cut_comes = 1;
	lock_give(&region->lock);
	return error;
}

/* Where no cut was made. */
static void snapshot_unreserve_region(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region->snapshot_open = region->cut_comes = 0;
	lock_give(&region->lock);
}

/* The caller's boundary, and the length that the caller sets there. */
static int snapshot_enter_cut(struct uffdwp_snapshot *snapshot, struct text *text)
{
	const struct uffdwp_snapshot_options *options = &snapshot->options;
	uint64_t length = options->length;
	int error = options->cut_enter ? options->cut_enter(options->cut_user, &length) : 0;

	if (error)
		return cut_enter_refused(text, error);
	uint64_t room = snapshot_or_default(snapshot->sink.room_bytes, UINT64_MAX);
	int beyond_region = length > atomic_load(&snapshot->region->length_bytes);

	if (beyond_region || length > room) {
		if (options->cut_leave)
			options->cut_leave(options->cut_user);
		return text_fail(text, beyond_region ? -ERANGE : -ENOSPC, "cut_enter set a length of %llu, beyond %s",
		                 (unsigned long long)length, beyond_region ? "the region's" : "what the sink has");
	}
	if (length)
		cut_set_length(&snapshot->cut, length);
	return 0;
}

static void snapshot_lock_regions(struct cut *const *cuts, size_t count)
{
	cut_lock(cuts, count);
	for (size_t i = 0; i < count; i++)
		cuts[i]->region->content = NULL;
}

static const char *snapshot_cut_meaning(struct cut *const *cuts, size_t count, int error)
{
	const struct uffdwp_region *region = cuts[0]->region;
	const char *refused = NULL;

	for (size_t i = 0; i < count && !refused; i++) {
		refused = cuts[i]->refused ? move_meaning(cuts[i], error) : NULL;
		region = atomic_load(&cuts[i]->region->dead) ? cuts[i]->region : region;
	}
	if (!refused && error == -ENOENT && !atomic_load(&region->dead))
		refused = "a part of its memory is not registered with its userfaultfd any more (UFFDIO_UNREGISTER)";
	return refused ? refused : snapshot_meaning(region, error);
}

/* The regions' locks are not held while this thread waits for the caller's: the caller's writers may need them to grow
 * or punch. */
static int snapshot_cut(struct uffdwp_snapshot *const *snapshots, size_t count, struct text *text)
{
	struct uffdwp_snapshot *first = snapshots[0];
	struct cut *sorted[CUT_COUNT_MAX];

	for (size_t i = 0; i < count; i++)
		sorted[i] = &snapshots[i]->cut;
	cut_sort(sorted, count);
	cut_rounds(sorted, count);
	int error = snapshot_enter_cut(first, text);

	if (error)
		return error;
	snapshot_lock_regions(sorted, count);
	error = cut_any_dead(sorted, count) ? -ESTALE : cut_establish(sorted, count);
	/* While signals are blocked: writers may wait for these threads, and must not wait for a handler here. */
	for (size_t i = 0; i < count && !error; i++)
		order_give(&snapshots[i]->order, snapshots[i]->k, ORDER_GO);
	cut_unlock(sorted, count);
	if (first->options.cut_leave)
		first->options.cut_leave(first->options.cut_user);
	return error ? text_fail(text, error, "the region could not be armed: %s",
	                         snapshot_cut_meaning(sorted, count, error))
	             : 0;
}

static int snapshot_open_one(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int error = snapshot->sink.ops->open(snapshot, text);

	if (error) {
		cut_close(&snapshot->cut);
		return error;
	}
	error = snapshot_open_memory(snapshot, text);
	if (!error && !snapshot->cut.looks_late)
		error = snapshot_prepare_sink(snapshot, text);
	snapshot->touches_late = snapshot->cut.arming == UFFDWP_ARMING_MOVE;
	if (!error)
		error = snapshot_start_thread(snapshot, text);
	if (error) {
		content_unpublish(snapshot->region);
		snapshot->sink.ops->close(snapshot, 0);
		snapshot_close_memory(snapshot);
	}
	return error;
}

/* Takes back what snapshot_open_one() did. */
static void snapshot_close_one(struct uffdwp_snapshot *snapshot)
{
	cut_forget(&snapshot->cut);
	order_give(&snapshot->order, snapshot->k, ORDER_FORGET);
	pthread_join(snapshot->thread, NULL);
	content_unpublish(snapshot->region);
	snapshot->sink.ops->close(snapshot, 0);
	snapshot_close_memory(snapshot);
}

static void snapshot_forget_one(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	snapshot_delete(snapshot);
	snapshot_unreserve_region(region);
}

/* An increment needs a region that is protected since the cut of its parent. */
static int snapshot_check_increment(const struct uffdwp_region *region, struct text *text)
{
	if (!cut_has_rounds(region))
		return text_fail(
		        text, -EOPNOTSUPP,
		        "no increments of this region: mechanism %s does not show for sure, for its memory, what was "
		        "written since the last snapshot; take snapshots of all, without a parent",
		        region->mechanism->name);
	return region->kept ? 0
	                    : text_fail(text, -ENODATA,
	                                "what was written since the region's last snapshot is not known, because %s: "
	                                "take a snapshot of all first, with UFFDWP_SNAPSHOT_KEEP",
	                                region->unkept ? region->unkept : "there was no snapshot of it yet");
}

/* NULL: see *error. */
static struct uffdwp_snapshot *snapshot_prepare_one(struct uffdwp_region *region,
                                                    const struct uffdwp_snapshot_options *options, int no_uring,
                                                    struct text *text, int *error)
{
	*error = snapshot_reserve_region(region, options, text);
	if (*error)
		return NULL;
	struct uffdwp_snapshot *snapshot = snapshot_new(region, options, no_uring);

	if (!snapshot) {
		snapshot_unreserve_region(region);
		*error = text_fail(text, -ENOMEM, "no memory for a snapshot");
		return NULL;
	}
	*error = snapshot->cut.increment ? snapshot_check_increment(region, text) : 0;
	if (!*error)
		*error = cut_choose(&snapshot->cut, options->arming, text);
	if (!*error)
		*error = snapshot_open_one(snapshot, text);
	if (!*error)
		return snapshot;
	snapshot_forget_one(snapshot);
	return NULL;
}

static void snapshot_started(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	atomic_fetch_add(&region->counters.snapshots, 1);
	if (roster_has(&region->roster))
		roster_add(&snapshot->roster, ROSTER_SNAPSHOT, snapshot, &region->roster);
	TRACE("snapshot %p of region %p: %llu bytes, %u rounds, pause %llu us for %llu pages", (void *)snapshot,
	      (void *)region, (unsigned long long)snapshot->cut.length_bytes, (unsigned)snapshot->cut.rounds,
	      (unsigned long long)snapshot->cut.pause_ns / 1000, (unsigned long long)snapshot->cut.pause_pages);
	lock_take(&snapshot->region->lock);
	snapshot->region->cut_comes = 0; /* others may be made beside it: its thread runs */
	lock_give(&snapshot->region->lock);
}

int snapshot_begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options, size_t count,
                   int no_uring, struct text *text, struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot *snapshots[CUT_COUNT_MAX] = {0};
	size_t prepared = 0;
	int error = 0;

	for (; prepared < count && !error; prepared++) {
		snapshots[prepared] =
		        snapshot_prepare_one(regions[prepared], &options[prepared], no_uring, text, &error);
		if (!snapshots[prepared])
			break;
		error = targets_check_group(snapshots, prepared, text);
	}
	if (prepared == count && count > 0 && !error)
		error = snapshot_cut(snapshots, count, text);
	for (size_t i = 0; i < prepared && error; i++) {
		snapshot_close_one(snapshots[i]);
		snapshot_forget_one(snapshots[i]);
	}
	for (size_t i = 0; i < prepared && !error; i++)
		out[i] = snapshots[i];
	for (size_t i = 0; i < prepared && !error; i++)
		snapshot_started(snapshots[i]);
	return error;
}

/* ---- what callers see ---- */

static uint64_t snapshot_pool_peak_bytes(const struct uffdwp_snapshot *snapshot)
{
	return (uint64_t)atomic_load(&snapshot->preserve.pool.peak) * snapshot->region->page_bytes +
	       snapshot_chunk_bytes(snapshot) * snapshot->chunk_count;
}

static void snapshot_progress_counters(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	progress->length_bytes = snapshot->cut.length_bytes;
	progress->pages_total = snapshot->preserve.end_page;
	progress->pages_fault = atomic_load(&snapshot->preserve.pages_fault);
	progress->pages_prepare = atomic_load(&snapshot->preserve.pages_prepare);
	progress->pages_sweep = atomic_load(&snapshot->pages_sweep);
	progress->pages_hole = atomic_load(&snapshot->pages_hole);
	progress->waits = atomic_load(&snapshot->preserve.waits);
	progress->rounds = snapshot->cut.rounds;
	progress->rounds_ns = snapshot->cut.rounds_ns;
	progress->stalled_most_ns = snapshot->cut.stalled_most_ns;
	progress->braked_ns = snapshot->cut.braked_ns;
	progress->pages_rounds = snapshot->cut.rounds_pages;
	progress->pages_pause = snapshot->cut.pause_pages;
	progress->pool_peak_bytes = snapshot_pool_peak_bytes(snapshot);
	progress->bytes_written = atomic_load(&snapshot->bytes_written);
	progress->pause_ns = snapshot->cut.pause_ns;
	progress->arming = snapshot->cut.arming;
	progress->direct = (uint32_t)snapshot->sink.direct;
	progress->uring = (uint32_t)snapshot->sink.uring;
}

void snapshot_progress(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	snapshot_progress_counters(snapshot, progress);
	lock_take(&snapshot->lock);
	progress->state = snapshot->state;
	progress->error = snapshot->error;
	int running = snapshot->state == UFFDWP_SNAPSHOT_STATE_RUNNING;

	progress->faults = running ? atomic_load(&snapshot->region->counters.faults) - snapshot->cut.faults_before
	                           : snapshot->faults_during;
	progress->elapsed_ns = (running ? kernel_now_ns() : snapshot->ended_ns) - snapshot->begun_ns;
	lock_give(&snapshot->lock);
}

/* -ETIMEDOUT: it still runs. */
static int snapshot_result_now(struct uffdwp_snapshot *snapshot)
{
	lock_take(&snapshot->lock);
	int result = snapshot->state == UFFDWP_SNAPSHOT_STATE_RUNNING ? -ETIMEDOUT : snapshot->error;

	lock_give(&snapshot->lock);
	return result;
}

/* By a futex, with the caller's signals open and no lock held: it may take very long. */
int snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms)
{
	uint64_t until_ns = kernel_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000;
	uint32_t seen = atomic_load(&snapshot->changes);
	int result;

	while ((result = snapshot_result_now(snapshot)) == -ETIMEDOUT) {
		uint64_t now_ns = kernel_now_ns();

		if (timeout_ms >= 0 && now_ns >= until_ns)
			break;
		snapshot->k->futex_wait((const uint32_t *)&snapshot->changes, seen,
		                        timeout_ms < 0 ? 0 : until_ns - now_ns);
		seen = atomic_load(&snapshot->changes);
	}
	return result;
}

int snapshot_fd(struct uffdwp_snapshot *snapshot)
{
	lock_take(&snapshot->lock);
	if (snapshot->ended_fd < 0) {
		snapshot->ended_tag = own_new();
		snapshot->ended_fd = own_eventfd(snapshot->k, snapshot->ended_tag);
		if (snapshot->state != UFFDWP_SNAPSHOT_STATE_RUNNING)
			snapshot_signal_end(snapshot);
	}
	int fd = snapshot->ended_fd;

	lock_give(&snapshot->lock);
	return fd;
}

void snapshot_abort(struct uffdwp_snapshot *snapshot)
{
	fault_fail(snapshot->region, &snapshot->preserve, -ECANCELED, 0);
}

static int snapshot_left_kept(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	int kept = region->kept;

	lock_give(&region->lock);
	return kept;
}

void snapshot_free(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	roster_remove(snapshot->k, &snapshot->roster);
	if (snapshot_wait(snapshot, 0) == -ETIMEDOUT)
		snapshot_abort(snapshot);
	pthread_join(snapshot->thread, NULL);
	if (snapshot->cut.keeps && !snapshot->error && snapshot_left_kept(region))
		snapshot_leave_memory(snapshot);
	snapshot_close_memory(snapshot);
	snapshot_delete(snapshot);
	lock_take(&region->lock);
	region->snapshot_open = 0;
	lock_give(&region->lock);
}
