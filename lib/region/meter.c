/* SPDX-License-Identifier: MIT */
/* See meter.h. Part of the fault path. */
#include "region/meter.h"

#include "base/math.h"

unsigned meter_bucket(uint64_t ns)
{
	if (ns < 1u << METER_LEAST_SHIFT)
		return 0;
	unsigned octave = 63u - (unsigned)__builtin_clzll(ns);

	if (octave >= METER_MOST_SHIFT)
		return METER_BUCKETS - 1;
	unsigned step = (unsigned)(ns >> (octave - METER_STEPS_SHIFT)) & ((1u << METER_STEPS_SHIFT) - 1);

	return 1 + ((octave - METER_LEAST_SHIFT) << METER_STEPS_SHIFT) + step;
}

uint64_t meter_bucket_end(unsigned bucket)
{
	if (bucket == 0)
		return 1u << METER_LEAST_SHIFT;
	if (bucket >= METER_BUCKETS - 1)
		return UINT64_MAX;
	unsigned octave = METER_LEAST_SHIFT + ((bucket - 1) >> METER_STEPS_SHIFT);
	uint64_t step = (bucket - 1) & ((1u << METER_STEPS_SHIFT) - 1);

	return (1ull << octave) + ((step + 1) << (octave - METER_STEPS_SHIFT));
}

/* A load and a store: no other thread writes. */
static void meter_own(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

void meter_add(struct meter_shard *shard, uint64_t ns, uint64_t count)
{
	meter_own(&shard->counts[meter_bucket(ns)], count);
	meter_own(&shard->sum_ns, ns * count);
	if (ns > atomic_load_explicit(&shard->max_ns, memory_order_relaxed))
		atomic_store_explicit(&shard->max_ns, ns, memory_order_relaxed);
}

/* Stacks of threads lie megabytes apart, as base/epoch.c has it. */
static struct meter_shard *meter_shard_of_this_stack(struct meter *meter)
{
	uintptr_t page = (uintptr_t)__builtin_frame_address(0) >> 12;

	return &meter->by_writers[(((uint64_t)page * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % METER_SHARDS];
}

void meter_add_shared(struct meter *meter, uint64_t ns, uint64_t count)
{
	struct meter_shard *shard = meter_shard_of_this_stack(meter);
	uint64_t longest = atomic_load_explicit(&shard->max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&shard->counts[meter_bucket(ns)], count, memory_order_relaxed);
	atomic_fetch_add_explicit(&shard->sum_ns, ns * count, memory_order_relaxed);
	while (ns > longest && !atomic_compare_exchange_weak_explicit(&shard->max_ns, &longest, ns,
	                                                              memory_order_relaxed, memory_order_relaxed)) {
		/* another writer's may be longer */
	}
}

void meter_read(const struct meter_shard *shard, struct meter_sum *sum)
{
	uint64_t longest = atomic_load_explicit(&shard->max_ns, memory_order_relaxed);

	for (unsigned i = 0; i < METER_BUCKETS; i++) {
		uint64_t count = atomic_load_explicit(&shard->counts[i], memory_order_relaxed);

		sum->counts[i] += count;
		sum->count += count;
	}
	sum->sum_ns += atomic_load_explicit(&shard->sum_ns, memory_order_relaxed);
	sum->max_ns = longest > sum->max_ns ? longest : sum->max_ns;
}

uint64_t meter_percentile(const struct meter_sum *sum, unsigned per_mille)
{
	uint64_t wanted = sum->count / 1000 * per_mille + (sum->count % 1000 * per_mille + 999) / 1000;
	uint64_t seen = 0;

	for (unsigned i = 0; i < METER_BUCKETS; i++) {
		seen += sum->counts[i];
		if (seen >= wanted && wanted)
			return math_min_u64(meter_bucket_end(i), sum->max_ns);
	}
	return 0;
}
