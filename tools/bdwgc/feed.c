/* SPDX-License-Identifier: MIT */
/*
 * What happens in each stop of the world: before it the heap is looked for (feed_prepare(), the world runs), in it the
 * track is collected and the collector's dirty bits are set (feed_collect()). adapter.h says why that is enough
 * (INV-GC).
 */
#include "adapter.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* No collector has more dirty bits than this (2^21 in its largest configuration); they are found by the address
 * modulo their number. */
#define BITS_MAX ((uintptr_t)1 << 22)

static uint64_t feed_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void feed_range(uintptr_t start, uintptr_t end)
{
	if (adapter.blind)
		return;
	for (uintptr_t address = start; address < end; address += adapter.step_bytes)
		GC_end_stubborn_change((void *)address);
	adapter.stats.pages_fed += (end - start) / heap_page_bytes();
}

static void feed_written(void *user, const struct uffdwp_written *range)
{
	(void)user;
	feed_range(range->start, range->end);
	ahead_note(range);
}

static void feed_everything(void)
{
	ahead_forget();
	uintptr_t low, high;
	heap_bounds(&low, &high);
	if ((high - low) / adapter.step_bytes > BITS_MAX)
		high = low + BITS_MAX * adapter.step_bytes;
	feed_range(low, high);
	adapter.stats.stops_all++;
	adapter.exact = false;
}

static void feed_untracked(void)
{
	for (size_t i = 0; i < adapter.heap.count; i++)
		if (!adapter.heap.ranges[i].tracked)
			feed_range(adapter.heap.ranges[i].start, adapter.heap.ranges[i].end);
}

/* 0: all that was written was fed. */
static int feed_tracked(void)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.callback = feed_written;
	ahead_begin();
	int error = uffdwp_track_collect(adapter.track, &collect);
	if (error)
		adapter_say_library("collecting failed");
	else if (collect.vanished_bytes)
		error = -ESTALE;
	return error;
}

void feed_collect(void)
{
	if (!adapter.feeding)
		return;
	uint64_t begin = feed_now_ns();
	adapter.exact = true;
	if (adapter_in_child() || adapter.resting || !adapter.complete) {
		feed_everything();
	} else if (feed_tracked() != 0) {
		adapter.complete = false;
		feed_everything();
	} else {
		feed_untracked();
	}
	uint64_t took = feed_now_ns() - begin;
	adapter.stats.stops++;
	adapter.stats.collect_ns += took;
	if (took > adapter.stats.collect_max_ns)
		adapter.stats.collect_max_ns = took;
}

static int feed_restart_track(void)
{
	if (adapter.track) {
		(void)uffdwp_track_stop(adapter.track);
		adapter.track = NULL;
		adapter.stats.restarts++;
	}
	heap_forget(&adapter.heap);
	return adapter_start_track();
}

/* The heap may have grown into memory that the track knows as another mapping: what is not mapped as it was goes first.
 */
static int feed_compare_with_mappings(bool *restarted)
{
	uint64_t vanished = 0;
	int error = adapter.track ? uffdwp_track_audit(adapter.track, &vanished) : -ESTALE;
	*restarted = error || vanished;
	return *restarted ? feed_restart_track() : 0;
}

static int feed_look_for_heap(bool grown)
{
	bool restarted;
	uint64_t begin = feed_now_ns();
	int error = feed_compare_with_mappings(&restarted);
	if (!error && (grown || restarted)) {
		error = heap_sync(&adapter.heap, adapter.track, adapter.block_bytes);
		if (error)
			adapter_say("the collector's heap cannot be found: %s", strerror(-error));
	}
	adapter.stats.sync_count++;
	adapter.stats.sync_ns += feed_now_ns() - begin;
	return error;
}

void feed_prepare(void)
{
	struct GC_prof_stats_s now;
	if (!adapter.feeding || adapter.resting || adapter_in_child())
		return;
	ahead_reserve();
	GC_get_prof_stats_unsafe(&now, sizeof(now));
	adapter.allocated_bytes = now.bytes_allocd_since_gc;
	bool grown = !adapter.complete || now.heapsize_full != adapter.heap_bytes;
	if (!grown && now.unmapped_bytes == 0)
		return;
	adapter.complete = feed_look_for_heap(grown) == 0;
	adapter.heap_bytes = now.heapsize_full;
}

/* The collection is over: marks are final, and what died whole is free. */
void feed_end(void)
{
	if (adapter.feeding && adapter.complete && adapter.exact && !adapter_in_child())
		ahead_announce();
}
