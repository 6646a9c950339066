/* SPDX-License-Identifier: MIT */
/*
 * How long the faults of a region took, for regions of programs with control (control/control.h): counts by time, in
 * memory of fixed size that the fault path adds to without a lock.
 *
 * Idea: eight buckets an octave from 1 us on, so that a figure read from them is less than an eighth too high. The
 * region's handler thread has a shard of its own, which no other thread writes; writers that resolve their own faults
 * share some, by where their stacks lie. Time is counted from when the library has the fault until the writer was
 * resumed; what `faults` of the region's statistics counts is counted here, and nothing else.
 *
 * Threads: additions in the fault path (signal); readers any, which may see a fault in one of two figures only.
 */
#ifndef UFFDWP_REGION_METER_H
#define UFFDWP_REGION_METER_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernel/kernel.h"

#define METER_STEPS_SHIFT 3  /* log2 of the buckets of an octave */
#define METER_LEAST_SHIFT 10 /* the first bucket ends at 2^10 ns */
#define METER_MOST_SHIFT 37  /* the last but one ends at 2^37 ns, 137 s */
#define METER_BUCKETS (((METER_MOST_SHIFT - METER_LEAST_SHIFT) << METER_STEPS_SHIFT) + 2)
#define METER_SHARDS 4

struct meter_shard {
	_Alignas(64) _Atomic uint64_t sum_ns;
	_Atomic uint64_t max_ns;
	_Atomic uint64_t counts[METER_BUCKETS];
};

struct meter {
	struct meter_shard by_handler;
	struct meter_shard by_writers[METER_SHARDS];
};

/* What shards hold together. */
struct meter_sum {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	uint64_t counts[METER_BUCKETS];
};

/* The bucket of a time, and the first time that is beyond a bucket; of the last, UINT64_MAX. (signal) */
unsigned meter_bucket(uint64_t ns);
uint64_t meter_bucket_end(unsigned bucket);

/* Adds `count` faults that took so long each. By the one thread that writes to the shard. (signal) */
void meter_add(struct meter_shard *shard, uint64_t ns, uint64_t count);

/* The same by a writer, into one of the shards of writers. (signal) */
void meter_add_shared(struct meter *meter, uint64_t ns, uint64_t count);

/* Adds a shard to a sum. */
void meter_read(const struct meter_shard *shard, struct meter_sum *sum);

/* The time that `per_mille` of the faults did not exceed, as far as the buckets say: at most the longest. 0: none. */
uint64_t meter_percentile(const struct meter_sum *sum, unsigned per_mille);

#endif
