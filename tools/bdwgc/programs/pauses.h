/* SPDX-License-Identifier: MIT */
/*
 * How long the program was stopped: from GC_EVENT_PRE_STOP_WORLD to GC_EVENT_POST_START_WORLD, for each stop, whether
 * it finished a collection or gave up at the time limit. The adapter's own work lies within. What a collection does
 * outside of stops (increments, sweeping, finalizers) is paid by the thread that allocates: pauses_stall() takes
 * the times of single allocations, where they are measured (--stalls).
 *
 * Threads: stops are recorded under the collector's allocation lock, stalls by any thread.
 */
#ifndef BDWGC_PAUSES_H
#define BDWGC_PAUSES_H

#include <stddef.h>
#include <stdint.h>

struct pauses_summary {
	size_t count;
	uint64_t p50_ns;
	uint64_t p99_ns;
	uint64_t max_ns;
	uint64_t total_ns;
	size_t missed; /* more than could be recorded: the percentiles lack them */
};

uint64_t pauses_now_ns(void);

/* Starts to listen; what was recorded before is forgotten. */
void pauses_begin(void);

struct pauses_summary pauses_stops(void);

/* An allocation took this long. */
void pauses_stall(uint64_t took_ns);

/* A summary of those that took 0.1 ms or more. */
struct pauses_summary pauses_stalls(void);

#endif
