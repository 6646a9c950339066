/* SPDX-License-Identifier: MIT */
/* How long faults took between two looks: the difference of two histograms, whose buckets ascend and are left out where
 * they are empty. */
#include "watch_show.h"

/* A bucket's count in the histogram before, in which `at` has come so far. */
static uint64_t watch_latency_before(struct json_object *buckets, size_t *at, uint64_t upper_ns)
{
	size_t count = buckets ? json_object_array_length(buckets) : 0;

	while (*at < count && shape_at(json_object_array_get_idx(buckets, *at), 0) < upper_ns)
		(*at)++;
	if (*at == count || shape_at(json_object_array_get_idx(buckets, *at), 0) != upper_ns)
		return 0;
	return shape_at(json_object_array_get_idx(buckets, *at), 1);
}

/* Goes through the buckets until `wanted` faults were seen. Returns how many were seen, and where in *upper_ns. */
static uint64_t watch_latency_walk(struct json_object *now, struct json_object *before, uint64_t wanted,
                                   uint64_t *upper_ns)
{
	struct json_object *earlier = shape_object(before, "buckets");
	uint64_t seen = 0;
	size_t at = 0;

	for (size_t i = 0; i < shape_length(now, "buckets") && seen < wanted; i++) {
		struct json_object *bucket = shape_item(now, "buckets", i);
		uint64_t count = shape_at(bucket, 1);
		uint64_t less = watch_latency_before(earlier, &at, shape_at(bucket, 0));
		uint64_t more = count > less ? count - less : 0;

		*upper_ns = shape_at(bucket, 0);
		seen = more > INT64_MAX - seen ? INT64_MAX : seen + more;
	}
	return seen;
}

uint64_t watch_percentile(struct json_object *now, struct json_object *before, unsigned per_mille)
{
	uint64_t most_ns = shape_number(now, "max_ns");
	uint64_t upper_ns = 0;
	uint64_t all = watch_latency_walk(now, before, UINT64_MAX, &upper_ns);

	if (all == 0)
		return 0;
	(void)watch_latency_walk(now, before, all / 1000 * per_mille + (all % 1000 * per_mille + 999) / 1000,
	                         &upper_ns);
	return most_ns && upper_ns > most_ns ? most_ns : upper_ns;
}
