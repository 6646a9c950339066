/* SPDX-License-Identifier: MIT */
/*
 * How a snapshot begins and ends; see snapshot.h. What begin does while faults are held is the pause: nothing there
 * allocates or touches memory for the first time.
 */
#include "snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/math.h"
#include "base/probe_points.h"
#include "base/signals.h"
#include "base/trace.h"
#include "kernel/procfs.h"
#include "snapshot/cut.h"

#define POOL_BYTES_DEFAULT (64ull << 20)
#define WAIT_NS_DEFAULT 10000000000ull
#define WINDOW_DEFAULT 16
#define CHUNK_BYTES (1024ull << 10)
#define THREAD_BYTES (128ull << 10)

static const struct sink_ops *const sinks[] = {&sink_image, &sink_stream, &sink_callback, &sink_nbd};

static uint64_t or_default(uint64_t value, uint64_t standard)
{
	return value ? value : standard;
}

static void sink_init(struct uffdwp_snapshot *snapshot)
{
	snapshot->sink.ops = snapshot->options.parent ? &sink_delta : sinks[snapshot->options.sink];
	snapshot->sink.fd = -1;
}

static void set_length(struct uffdwp_snapshot *snapshot, uint64_t length_bytes)
{
	const struct uffdwp_region *region = snapshot->region;

	snapshot->length_bytes = length_bytes;
	snapshot->preserve.end_page = round_up(length_bytes, region->page_bytes) >> region->page_shift;
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
	snapshot->increment = (options->flags & UFFDWP_SNAPSHOT_INCREMENT) != 0 || options->parent != NULL;
	snapshot->begun_ns = kernel_now_ns();
	snapshot->pages_most = region->ledger.count;
	set_length(snapshot, or_default(options->length, atomic_load(&region->length_bytes)));
	snapshot->preserve.k = region->k;
	snapshot->preserve.pagemap = -1;
	snapshot->preserve.window_max = (uint32_t)or_default(options->window_max, WINDOW_DEFAULT);
	snapshot->preserve.policy = options->policy;
	snapshot->preserve.wait_ns = or_default(options->wait_ns, WAIT_NS_DEFAULT);
	pthread_mutex_init(&snapshot->lock, NULL);
	pthread_condattr_t clock;

	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&snapshot->changed, &clock);
	pthread_condattr_destroy(&clock);
	bucket_init(&snapshot->rate, options->rate_bytes);
	text_init(&snapshot->text);
	sink_init(snapshot);
	return snapshot;
}

/* Chunks that the region may ever have: what is sized by it is address space until it is used. */
static uint64_t chunk_total(const struct uffdwp_snapshot *snapshot)
{
	return (snapshot->pages_most + snapshot->chunk_pages - 1) / snapshot->chunk_pages;
}

static uint64_t chunk_bytes(const struct uffdwp_snapshot *snapshot)
{
	return snapshot->chunk_pages << snapshot->region->page_shift;
}

/* At most a quarter of the bound goes to chunks on their way to the sink, the rest are slots. */
static void divide_pool(struct uffdwp_snapshot *snapshot, uint64_t pool_pages)
{
	uint64_t by_size = CHUNK_BYTES >> snapshot->region->page_shift;
	uint64_t by_pool = pool_pages / 8;

	snapshot->chunk_pages = min_u64(by_size ? by_size : 1, by_pool ? by_pool : 1);
	snapshot->chunk_count = (unsigned)min_u64(CHUNK_COUNT_MAX, pool_pages / 4 / snapshot->chunk_pages);
}

/* What is kept of each page and slot counts, too, and what a thread and its ring touch. */
static uint64_t table_pages(const struct uffdwp_snapshot *snapshot, uint64_t pool_pages)
{
	uint64_t pages = snapshot->preserve.end_page;
	uint64_t bytes = THREAD_BYTES + pages * sizeof(*snapshot->preserve.slot_of) + pages / 2 +
	                 next_power_of_two((uint32_t)pool_pages + 1) * sizeof(*snapshot->preserve.hot_cells);

	return min_u64(bytes >> snapshot->region->page_shift, pool_pages / 8);
}

static int open_pool(struct uffdwp_snapshot *snapshot)
{
	uint64_t page_bytes = snapshot->region->page_bytes;
	uint64_t pool_pages = or_default(snapshot->options.pool_bytes, POOL_BYTES_DEFAULT) / page_bytes;

	if (pool_pages < SNAPSHOT_POOL_PAGES_MIN)
		pool_pages = SNAPSHOT_POOL_PAGES_MIN;
	divide_pool(snapshot, pool_pages);
	uint64_t slots = pool_pages - snapshot->chunk_count * snapshot->chunk_pages - table_pages(snapshot, pool_pages);

	return pool_open(&snapshot->preserve.pool, snapshot->region, slots * page_bytes);
}

static int open_buffers(struct uffdwp_snapshot *snapshot)
{
	uint64_t bytes = chunk_bytes(snapshot);

	snapshot->buffers = region_pages_new(snapshot->region, bytes * snapshot->chunk_count);
	snapshot->swept = pages_new(snapshot->k, chunk_total(snapshot));
	if (!snapshot->buffers || !snapshot->swept)
		return -ENOMEM;
	pages_touch(snapshot->k, snapshot->buffers, bytes * snapshot->chunk_count);
	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		snapshot->chunks[i].buffer = snapshot->buffers + i * bytes;
	return 0;
}

/* What the fault path writes to is touched before the pause. */
static int open_preserve(struct uffdwp_snapshot *snapshot)
{
	struct preserve *preserve = &snapshot->preserve;

	preserve->slot_of = pages_new(snapshot->k, snapshot->pages_most * sizeof(*preserve->slot_of));
	preserve->hot_count = next_power_of_two(preserve->pool.slots + 1);
	preserve->hot_cells = pages_new(snapshot->k, preserve->hot_count * sizeof(*preserve->hot_cells));
	if (!preserve->slot_of || !preserve->hot_cells)
		return -ENOMEM;
	pages_touch(snapshot->k, (void *)preserve->slot_of, preserve->end_page * sizeof(*preserve->slot_of));
	ring_init(&preserve->hot, preserve->hot_cells, preserve->hot_count);
	return 0;
}

/* Which pages have content before the cut. A punch meanwhile takes its pages out again: hence word by word, each under
 * the region's lock, and known to the region from the start. */
static int open_content(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t pages = snapshot->preserve.end_page;

	snapshot->preserve.content = pages_new(snapshot->k, round_up(snapshot->pages_most, 64) / 8);
	if (!snapshot->preserve.content)
		return -ENOMEM;
	pthread_mutex_lock(&region->lock);
	region->content = snapshot->preserve.content;
	pthread_mutex_unlock(&region->lock);
	int swap_on = procfs_swap_on(region->k);

	for (uint64_t page = 0; page < pages; page += 64) {
		uint64_t end = min_u64(page + 64, pages);

		pthread_mutex_lock(&region->lock);
		uint64_t content = region_content(region, page, end, 0);

		if (swap_on && content)
			content = region_content_but_zeros(region, page, end, content);
		atomic_store(&snapshot->preserve.content[page / 64], content);
		pthread_mutex_unlock(&region->lock);
	}
	return 0;
}

static void unpublish_content(struct uffdwp_region *region)
{
	pthread_mutex_lock(&region->lock);
	region->content = NULL;
	pthread_mutex_unlock(&region->lock);
}

static int open_pagemap(struct uffdwp_snapshot *snapshot)
{
	if (!region_loses_marks(snapshot->region))
		return 0;
	snapshot->preserve.pagemap = snapshot->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	return snapshot->preserve.pagemap < 0 ? snapshot->preserve.pagemap : 0;
}

static void close_memory(struct uffdwp_snapshot *snapshot)
{
	const struct kernel_ops *k = snapshot->k;
	struct preserve *preserve = &snapshot->preserve;

	if (preserve->pagemap >= 0)
		k->close(preserve->pagemap);
	cut_close(snapshot);
	pool_close(&preserve->pool);
	pages_free(k, (void *)preserve->slot_of, snapshot->pages_most * sizeof(*preserve->slot_of));
	pages_free(k, preserve->hot_cells, preserve->hot_count * sizeof(*preserve->hot_cells));
	pages_free(k, snapshot->buffers, chunk_bytes(snapshot) * snapshot->chunk_count);
	pages_free(k, snapshot->swept, snapshot->chunk_pages ? chunk_total(snapshot) : 0);
	pages_free(k, (void *)snapshot->preserve.content, round_up(snapshot->pages_most, 64) / 8);
}

static void snapshot_delete(struct uffdwp_snapshot *snapshot)
{
	text_fini(&snapshot->text);
	pthread_cond_destroy(&snapshot->changed);
	pthread_mutex_destroy(&snapshot->lock);
	pages_free(snapshot->k, snapshot, sizeof(*snapshot));
}

/* The mechanism may have to let go so many pages at once; twice that must have room, or writers would starve. */
static int prepare_region(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct uffdwp_region *region = snapshot->region;

	pthread_mutex_lock(&region->lock);
	int error = region_prepare(region);

	pthread_mutex_unlock(&region->lock);
	uint64_t most = region->mechanism->grain_most ? region->mechanism->grain_most(region) : 1;

	if (error || most * 2 <= snapshot->preserve.pool.slots || most == 1)
		return error;
	return text_fail(text, -ENOBUFS,
	                 "%s has to save up to %llu pages at once here, and the pool holds %u: raise pool_bytes or "
	                 "vm.max_map_count",
	                 region->mechanism->name, (unsigned long long)most, (unsigned)snapshot->preserve.pool.slots);
}

static int open_memory(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int error = open_pool(snapshot);

	if (!error)
		error = open_buffers(snapshot);
	if (!error)
		error = open_preserve(snapshot);
	if (!error)
		error = open_content(snapshot);
	if (!error)
		error = cut_open(snapshot);
	if (error)
		return text_fail(text, error, "no memory for the snapshot's pool: lower pool_bytes");
	error = prepare_region(snapshot, text);
	if (error)
		return error;
	error = open_pagemap(snapshot);
	return error ? text_fail(text, error, "/proc/self/pagemap cannot be opened: %s", strerror(-error)) : 0;
}

/* ---- the snapshot's thread ---- */

static void give_order(struct uffdwp_snapshot *snapshot, enum snapshot_order order)
{
	pthread_mutex_lock(&snapshot->lock);
	snapshot->order = order;
	pthread_cond_broadcast(&snapshot->changed);
	pthread_mutex_unlock(&snapshot->lock);
}

static enum snapshot_order await_order(struct uffdwp_snapshot *snapshot)
{
	pthread_mutex_lock(&snapshot->lock);
	while (snapshot->order == SNAPSHOT_PREPARE)
		pthread_cond_wait(&snapshot->changed, &snapshot->lock);
	enum snapshot_order order = snapshot->order;

	pthread_mutex_unlock(&snapshot->lock);
	return order;
}

static const char *meaning(int error)
{
	switch (error) {
	case -ECANCELED:
		return "it was aborted";
	case -ENODATA:
		return "content was discarded behind the library's back: use uffdwp_region_punch()";
	case -ETIME:
		return "the sink took too long, and writers waited for pool memory longer than wait_ns";
	case -ENOBUFS:
		return "the pool was full, and the policy is to abort: raise pool_bytes or use a faster sink";
	case -ESTALE:
		return "the region was unmapped";
	case -EOWNERDEAD:
		return "the region's handler thread died";
	default:
		return strerror(-error);
	}
}

/* The sink's own words, if it was the sink. */
static const char *cause(const struct uffdwp_snapshot *snapshot, int error)
{
	int by_others = error == -ENODATA || error == -ETIME || error == -ENOBUFS || error == -ESTALE;

	return snapshot->sink.reason[0] && !by_others ? snapshot->sink.reason : meaning(error);
}

static void end_text(struct uffdwp_snapshot *snapshot, int error)
{
	unsigned long long at = atomic_load(&snapshot->preserve.error_page) << snapshot->region->page_shift;

	if (error == -ECANCELED)
		text_fail(&snapshot->text, error, "the snapshot failed: %s", meaning(error));
	else
		text_fail(&snapshot->text, error, "the snapshot failed at bytes [%llu, %llu): %s", at,
		          at + snapshot->region->page_bytes, cause(snapshot, error));
}

/* What the next increment would build on is not there: everything counts as changed. */
static void break_chain(struct uffdwp_region *region)
{
	pthread_mutex_lock(&region->lock);
	region->kept = 0;
	if (!region_is_wanted(region) && !region->caller_armed)
		fault_let_all_go(region);
	pthread_mutex_unlock(&region->lock);
}

/* The ledger tells what was written since this cut; only if this image comes to be, it can be a parent. */
static void forget_image(struct uffdwp_region *region)
{
	static const struct image_identity none;

	pthread_mutex_lock(&region->lock);
	region->last_image = none;
	pthread_mutex_unlock(&region->lock);
}

static void finish(struct uffdwp_snapshot *snapshot, int error)
{
	uint64_t faults = atomic_load(&snapshot->region->counters.faults) - snapshot->faults_before;

	if (error == -ETIMEDOUT)
		error = -ETIME; /* a sink's; for uffdwp_snapshot_wait() the other means "still running" */
	cut_leave(snapshot, error);
	forget_image(snapshot->region);
	if (!error && snapshot->sink.ops->commit) {
		error = snapshot->sink.ops->commit(snapshot);
		error = error == -ETIMEDOUT ? -ETIME : error;
		if (error)
			break_chain(snapshot->region);
	} else if (error) {
		end_text(snapshot, error);
	}
	snapshot->sink.ops->close(snapshot, !error);
	PROBE3(commit, snapshot->region, error, atomic_load(&snapshot->bytes_written));
	TRACE("snapshot %p: %s, %llu pages by faults, %llu by the sweep", (void *)snapshot,
	      error ? strerror(-error) : "committed", (unsigned long long)atomic_load(&snapshot->preserve.pages_fault),
	      (unsigned long long)atomic_load(&snapshot->pages_sweep));
	pthread_mutex_lock(&snapshot->lock);
	snapshot->state = error ? UFFDWP_SNAPSHOT_FAILED : UFFDWP_SNAPSHOT_COMMITTED;
	snapshot->error = error;
	snapshot->faults_during = faults;
	snapshot->ended_ns = kernel_now_ns();
	pthread_cond_broadcast(&snapshot->changed);
	pthread_mutex_unlock(&snapshot->lock);
}

static void *snapshot_main(void *argument)
{
	struct uffdwp_snapshot *snapshot = argument;

	pthread_setname_np(pthread_self(), "uffdwp-sweep");
	if (await_order(snapshot) == SNAPSHOT_GO)
		finish(snapshot, sweep_run(snapshot));
	return NULL;
}

static int start_thread(struct uffdwp_snapshot *snapshot, struct text *text)
{
	sigset_t before;

	signals_block(&before);
	int error = pthread_create(&snapshot->thread, NULL, snapshot_main, snapshot);

	signals_restore(&before);
	return error ? text_fail(text, -error, "the snapshot's thread could not be started: %s", strerror(error)) : 0;
}

/* ---- begin ---- */

/* One snapshot of a region at a time, from here until it is freed. */
static int reserve_region(struct uffdwp_region *region, const struct uffdwp_snapshot_options *options,
                          struct text *text)
{
	unsigned long long length = atomic_load(&region->length_bytes);
	int error = 0;

	pthread_mutex_lock(&region->lock);
	if (atomic_load(&region->dead))
		error = text_fail(text, -ESTALE, "the region was unmapped: close it");
	else if (region->soft_dirty)
		error = text_fail(text, -EOPNOTSUPP,
		                  "soft-dirty only tells what was written: this region has no snapshots");
	else if (region->snapshot_open)
		error = text_fail(text, -EBUSY, "a snapshot of this region has not been freed: uffdwp_snapshot_free()");
	else if (options->length > length)
		error = text_fail(text, -ERANGE, "length %llu is beyond the region's %llu bytes",
		                  (unsigned long long)options->length, length);
	else
		region->snapshot_open = 1;
	pthread_mutex_unlock(&region->lock);
	return error;
}

static void unreserve_region(struct uffdwp_region *region)
{
	pthread_mutex_lock(&region->lock);
	region->snapshot_open = 0;
	pthread_mutex_unlock(&region->lock);
}

/* The caller's boundary, and what he says there of the length. */
static int enter_cut(struct uffdwp_snapshot *snapshot, struct text *text)
{
	const struct uffdwp_snapshot_options *options = &snapshot->options;
	uint64_t length = options->length;
	int error = options->cut_enter ? options->cut_enter(options->cut_user, &length) : 0;

	if (error)
		return text_fail(text, error < 0 ? error : -EINVAL, "the caller's cut_enter refused: %s",
		                 error < 0 ? strerror(-error) : "no error number");
	uint64_t room = or_default(snapshot->sink.room_bytes, UINT64_MAX);
	int beyond_region = length > atomic_load(&snapshot->region->length_bytes);

	if (beyond_region || length > room) {
		if (options->cut_leave)
			options->cut_leave(options->cut_user);
		return text_fail(text, beyond_region ? -ERANGE : -ENOSPC, "cut_enter set a length of %llu, beyond %s",
		                 (unsigned long long)length, beyond_region ? "the region's" : "what the sink has");
	}
	if (length)
		set_length(snapshot, length);
	return 0;
}

static void lock_regions(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		pthread_mutex_lock(&snapshots[i]->region->lock);
		snapshots[i]->region->content = NULL;
	}
}

static void unlock_regions(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	for (size_t i = count; i-- > 0;)
		pthread_mutex_unlock(&snapshots[i]->region->lock);
}

static int any_dead(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (atomic_load(&snapshots[i]->region->dead))
			return 1;
	}
	return 0;
}

/* By address: two groups that share regions never wait for each other. */
static void sort_by_region(struct uffdwp_snapshot **snapshots, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct uffdwp_snapshot *one = snapshots[i];
		size_t at = i;

		for (; at > 0 && (uintptr_t)snapshots[at - 1]->region > (uintptr_t)one->region; at--)
			snapshots[at] = snapshots[at - 1];
		snapshots[at] = one;
	}
}

/* The regions' locks are not held while the caller's is waited for: his writers may need them to grow or punch. */
static int cut(struct uffdwp_snapshot *const *snapshots, size_t count, struct text *text)
{
	struct uffdwp_snapshot *first = snapshots[0];
	struct uffdwp_snapshot *sorted[CUT_COUNT_MAX];

	for (size_t i = 0; i < count; i++)
		sorted[i] = snapshots[i];
	sort_by_region(sorted, count);
	cut_rounds(sorted, count);
	int error = enter_cut(first, text);

	if (error)
		return error;
	lock_regions(sorted, count);
	error = any_dead(sorted, count) ? -ESTALE : cut_make(sorted, count);
	unlock_regions(sorted, count);
	if (first->options.cut_leave)
		first->options.cut_leave(first->options.cut_user);
	return error ? text_fail(text, error, "the region could not be armed: %s", meaning(error)) : 0;
}

static int open_one(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int error = snapshot->sink.ops->open(snapshot, text);

	if (error)
		return error;
	error = open_memory(snapshot, text);
	if (!error && snapshot->sink.ops->prepare)
		error = snapshot->sink.ops->prepare(snapshot, text);
	if (!error)
		error = start_thread(snapshot, text);
	if (error) {
		unpublish_content(snapshot->region);
		snapshot->sink.ops->close(snapshot, 0);
		close_memory(snapshot);
	}
	return error;
}

/* Takes back what open_one() did. */
static void close_one(struct uffdwp_snapshot *snapshot)
{
	cut_forget(snapshot);
	give_order(snapshot, SNAPSHOT_FORGET);
	pthread_join(snapshot->thread, NULL);
	unpublish_content(snapshot->region);
	snapshot->sink.ops->close(snapshot, 0);
	close_memory(snapshot);
}

static void forget_one(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	snapshot_delete(snapshot);
	unreserve_region(region);
}

/* An increment needs a region that is protected since the cut of its parent. */
static int check_increment(const struct uffdwp_region *region, struct text *text)
{
	if (!cut_has_rounds(region))
		return text_fail(
		        text, -EOPNOTSUPP,
		        "no increments of this region: its memory or mechanism (%s) does not tell for sure what "
		        "was written since",
		        region->mechanism->name);
	return region->kept ? 0
	                    : text_fail(text, -ENODATA,
	                                "what was written since the parent is not known: the last snapshot of the "
	                                "region must be the parent, committed, with UFFDWP_SNAPSHOT_KEEP");
}

/* NULL: see *error. */
static struct uffdwp_snapshot *prepare_one(struct uffdwp_region *region, const struct uffdwp_snapshot_options *options,
                                           int no_uring, struct text *text, int *error)
{
	*error = reserve_region(region, options, text);
	if (*error)
		return NULL;
	struct uffdwp_snapshot *snapshot = snapshot_new(region, options, no_uring);

	if (!snapshot) {
		unreserve_region(region);
		*error = text_fail(text, -ENOMEM, "no memory for a snapshot");
		return NULL;
	}
	*error = snapshot->increment ? check_increment(region, text) : 0;
	if (!*error)
		*error = open_one(snapshot, text);
	if (!*error)
		return snapshot;
	forget_one(snapshot);
	return NULL;
}

static void started(struct uffdwp_snapshot *snapshot)
{
	atomic_fetch_add(&snapshot->region->counters.snapshots, 1);
	TRACE("snapshot %p of region %p: %llu bytes, %u rounds, pause %llu us for %llu pages%s%s", (void *)snapshot,
	      (void *)snapshot->region, (unsigned long long)snapshot->length_bytes, (unsigned)snapshot->rounds,
	      (unsigned long long)snapshot->pause_ns / 1000, (unsigned long long)snapshot->pause_pages,
	      snapshot->sink.direct ? ", O_DIRECT" : "", snapshot->sink.uring ? ", io_uring" : "");
	give_order(snapshot, SNAPSHOT_GO);
}

int snapshot_begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options, size_t count,
                   int no_uring, struct text *text, struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot *snapshots[CUT_COUNT_MAX] = {0};
	size_t prepared = 0;
	int error = 0;

	for (; prepared < count; prepared++) {
		snapshots[prepared] = prepare_one(regions[prepared], &options[prepared], no_uring, text, &error);
		if (!snapshots[prepared])
			break;
	}
	if (prepared == count && count > 0)
		error = cut(snapshots, count, text);
	for (size_t i = 0; i < prepared && error; i++) {
		close_one(snapshots[i]);
		forget_one(snapshots[i]);
	}
	for (size_t i = 0; i < prepared && !error; i++)
		out[i] = snapshots[i];
	for (size_t i = 0; i < prepared && !error; i++)
		started(snapshots[i]);
	return error;
}

/* ---- what callers see ---- */

static uint64_t pool_peak_bytes(const struct uffdwp_snapshot *snapshot)
{
	return (uint64_t)atomic_load(&snapshot->preserve.pool.peak) * snapshot->region->page_bytes +
	       chunk_bytes(snapshot) * snapshot->chunk_count;
}

static void progress_counters(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	progress->length_bytes = snapshot->length_bytes;
	progress->pages_total = snapshot->preserve.end_page;
	progress->pages_fault = atomic_load(&snapshot->preserve.pages_fault);
	progress->pages_prepare = atomic_load(&snapshot->preserve.pages_prepare);
	progress->pages_sweep = atomic_load(&snapshot->pages_sweep);
	progress->pages_hole = atomic_load(&snapshot->pages_hole);
	progress->waits = atomic_load(&snapshot->preserve.waits);
	progress->rounds = snapshot->rounds;
	progress->rounds_ns = snapshot->rounds_ns;
	progress->held_most_ns = snapshot->held_most_ns;
	progress->braked_ns = snapshot->braked_ns;
	progress->pages_rounds = snapshot->rounds_pages;
	progress->pages_pause = snapshot->pause_pages;
	progress->pool_peak_bytes = pool_peak_bytes(snapshot);
	progress->bytes_written = atomic_load(&snapshot->bytes_written);
	progress->pause_ns = snapshot->pause_ns;
	progress->direct = (uint32_t)snapshot->sink.direct;
	progress->uring = (uint32_t)snapshot->sink.uring;
}

void snapshot_progress(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	progress_counters(snapshot, progress);
	pthread_mutex_lock(&snapshot->lock);
	progress->state = snapshot->state;
	progress->error = snapshot->error;
	int running = snapshot->state == UFFDWP_SNAPSHOT_RUNNING;

	progress->faults = running ? atomic_load(&snapshot->region->counters.faults) - snapshot->faults_before
	                           : snapshot->faults_during;
	progress->elapsed_ns = (running ? kernel_now_ns() : snapshot->ended_ns) - snapshot->begun_ns;
	pthread_mutex_unlock(&snapshot->lock);
}

static struct timespec deadline_after(int timeout_ms)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += timeout_ms / 1000;
	at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	return at;
}

int snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms)
{
	struct timespec until = deadline_after(timeout_ms < 0 ? 0 : timeout_ms);
	int late = 0;

	pthread_mutex_lock(&snapshot->lock);
	while (snapshot->state == UFFDWP_SNAPSHOT_RUNNING && late != ETIMEDOUT)
		late = timeout_ms < 0 ? pthread_cond_wait(&snapshot->changed, &snapshot->lock)
		                      : pthread_cond_timedwait(&snapshot->changed, &snapshot->lock, &until);
	int result = snapshot->state == UFFDWP_SNAPSHOT_RUNNING ? -ETIMEDOUT : snapshot->error;

	pthread_mutex_unlock(&snapshot->lock);
	return result;
}

void snapshot_abort(struct uffdwp_snapshot *snapshot)
{
	fault_fail(snapshot->region, &snapshot->preserve, -ECANCELED, 0);
}

void snapshot_free(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	if (snapshot_wait(snapshot, 0) == -ETIMEDOUT)
		snapshot_abort(snapshot);
	pthread_join(snapshot->thread, NULL);
	close_memory(snapshot);
	snapshot_delete(snapshot);
	unreserve_region(region);
}
