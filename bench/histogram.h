/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram of times in nanoseconds: each power of two is cut into 128 buckets of equal width, so that a
 * quantile is off by less than 0.8 % and recording is an addition (the idea of G. Tene's HdrHistogram). Values under
 * 256 are exact, values from 2^40 on (18 minutes) land in the last bucket. The largest value is kept as it is.
 *
 * Threads: one histogram has one writer. Merge when that one has ended.
 */
#ifndef UFFDWP_BENCH_HISTOGRAM_H
#define UFFDWP_BENCH_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BITS 7
#define HISTOGRAM_LIMIT_BITS 40
#define HISTOGRAM_BUCKETS ((HISTOGRAM_LIMIT_BITS - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS)

struct histogram {
	uint64_t count;
	uint64_t largest_ns;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);

/* The bucket of a value, and the least value of a bucket. */
size_t histogram_bucket(uint64_t value_ns);
uint64_t histogram_floor(size_t bucket);

void histogram_record(struct histogram *histogram, uint64_t value_ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that a share of `quantile` (0 to 1) does not exceed, placed within its bucket by its rank; 0 if empty. */
double histogram_quantile(const struct histogram *histogram, double quantile);

#endif
