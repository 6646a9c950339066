/* SPDX-License-Identifier: MIT */
/*
 * Buckets: values under 2^8 have one each (two rows of 128); then row r holds [2^(r+6), 2^(r+7)) in 128 steps. The
 * bucket is the row and the seven bits below the leading one.
 */
#include "histogram.h"

#include <math.h>
#include <string.h>

void histogram_clear(struct histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
}

size_t histogram_bucket(uint64_t value_ns)
{
	unsigned shift;

	if (value_ns < (1u << (HISTOGRAM_BITS + 1)))
		return (size_t)value_ns;
	if (value_ns >> HISTOGRAM_LIMIT_BITS)
		return HISTOGRAM_BUCKETS - 1;
	shift = 63u - (unsigned)__builtin_clzll(value_ns) - HISTOGRAM_BITS;
	return ((size_t)shift << HISTOGRAM_BITS) + (size_t)(value_ns >> shift);
}

uint64_t histogram_floor(size_t bucket)
{
	size_t row = bucket >> HISTOGRAM_BITS;

	if (row < 2)
		return bucket;
	return (uint64_t)(bucket - ((row - 1) << HISTOGRAM_BITS)) << (row - 1);
}

void histogram_record(struct histogram *histogram, uint64_t value_ns)
{
	histogram->count++;
	histogram->buckets[histogram_bucket(value_ns)]++;
	if (value_ns > histogram->largest_ns)
		histogram->largest_ns = value_ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	into->count += from->count;
	if (from->largest_ns > into->largest_ns)
		into->largest_ns = from->largest_ns;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

/* Rank `into` (1 to held) of the values in a bucket, as if they lay evenly in it. */
static double placed(size_t bucket, double into, uint64_t held)
{
	double low = (double)histogram_floor(bucket);
	double width = (double)histogram_floor(bucket + 1) - low;

	return width <= 1.0 ? low : low + width * (into - 0.5) / (double)held;
}

double histogram_quantile(const struct histogram *histogram, double quantile)
{
	double rank = fmax(1.0, ceil(quantile * (double)histogram->count));
	double passed = 0.0;

	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		double held = (double)histogram->buckets[i];

		if (held > 0.0 && passed + held >= rank)
			return fmin(placed(i, rank - passed, histogram->buckets[i]), (double)histogram->largest_ns);
		passed += held;
	}
	return 0.0;
}
