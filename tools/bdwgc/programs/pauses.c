/* SPDX-License-Identifier: MIT */
/* See pauses.h. */
#include "pauses.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <gc/gc.h>

#define RECORDS_MAX ((size_t)1 << 18)
#define STALL_LEAST_NS UINT64_C(100000)

struct record {
	atomic_size_t count;
	uint64_t times_ns[RECORDS_MAX];
};

static struct record stops, stalls;
static uint64_t stop_began_ns;

uint64_t pauses_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void pauses_record_put(struct record *record, uint64_t time_ns)
{
	size_t i = atomic_fetch_add(&record->count, 1);
	if (i < RECORDS_MAX)
		record->times_ns[i] = time_ns;
}

static void GC_CALLBACK pauses_on_event(GC_EventType event)
{
	if (event == GC_EVENT_PRE_STOP_WORLD)
		stop_began_ns = pauses_now_ns();
	else if (event == GC_EVENT_POST_START_WORLD && stop_began_ns)
		pauses_record_put(&stops, pauses_now_ns() - stop_began_ns);
}

void pauses_begin(void)
{
	GC_set_on_collection_event(NULL);
	atomic_store(&stops.count, 0);
	atomic_store(&stalls.count, 0);
	stop_began_ns = 0;
	GC_set_on_collection_event(pauses_on_event);
}

void pauses_stall(uint64_t took_ns)
{
	if (took_ns >= STALL_LEAST_NS)
		pauses_record_put(&stalls, took_ns);
}

static int pauses_compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return a < b ? -1 : a > b;
}

static struct pauses_summary pauses_summarize(const struct record *record)
{
	struct pauses_summary summary = {0};
	size_t all = atomic_load(&record->count), kept = all < RECORDS_MAX ? all : RECORDS_MAX;
	uint64_t *sorted = calloc(kept + 1, sizeof(*sorted));
	if (!sorted)
		abort();
	for (size_t i = 0; i < kept; i++) {
		sorted[i] = record->times_ns[i];
		summary.total_ns += sorted[i];
	}
	qsort(sorted, kept, sizeof(*sorted), pauses_compare);
	summary.count = all;
	summary.missed = all - kept;
	if (kept) {
		summary.p50_ns = sorted[kept / 2];
		summary.p99_ns = sorted[kept * 99 / 100];
		summary.max_ns = sorted[kept - 1];
	}
	free(sorted);
	return summary;
}

struct pauses_summary pauses_stops(void)
{
	return pauses_summarize(&stops);
}

struct pauses_summary pauses_stalls(void)
{
	return pauses_summarize(&stalls);
}
