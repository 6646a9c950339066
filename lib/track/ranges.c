/* SPDX-License-Identifier: MIT */
/* See ranges.h. */
#include "track/ranges.h"

#include <errno.h>
#include <string.h>

#include "base/math.h"
#include "region/region.h"

size_t ranges_find(const struct ranges *ranges, uint64_t address)
{
	size_t low = 0;
	size_t high = ranges->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges->at[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int ranges_touch(const struct ranges *ranges, uint64_t start, uint64_t end)
{
	size_t i = ranges_find(ranges, start);

	return i < ranges->count && ranges->at[i].start < end;
}

int ranges_next(const struct ranges *ranges, uint64_t *from, uint64_t end, struct range *part)
{
	size_t i = ranges_find(ranges, *from);

	if (*from >= end || i == ranges->count || ranges->at[i].start >= end)
		return 0;
	part->start = ranges->at[i].start > *from ? ranges->at[i].start : *from;
	part->end = math_min_u64(ranges->at[i].end, end);
	*from = part->end;
	return 1;
}

int ranges_open(struct ranges *ranges, const struct kernel_ops *k)
{
	*ranges = (struct ranges){.at = pages_new(k, RANGES_MAX * sizeof(*ranges->at))};
	return ranges->at ? 0 : -ENOMEM;
}

void ranges_close(struct ranges *ranges, const struct kernel_ops *k)
{
	pages_free(k, ranges->at, RANGES_MAX * sizeof(*ranges->at));
	*ranges = (struct ranges){0};
}

/* Replaces `old` ranges at i by `new` ones, at most one more. */
static void ranges_splice(struct ranges *ranges, size_t i, size_t old, const struct range *new, size_t count)
{
	struct range *at = ranges->at + i;

	memmove(at + count, at + old, (ranges->count - i - old) * sizeof(*at));
	if (count)
		memcpy(at, new, count * sizeof(*at));
	ranges->count = ranges->count - old + count;
}

static uint64_t ranges_shared_bytes(const struct range *range, uint64_t start, uint64_t end)
{
	uint64_t from = range->start > start ? range->start : start;
	uint64_t to = math_min_u64(range->end, end);

	return to > from ? to - from : 0;
}

void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end)
{
	/* From the first that ends at `start` or after it to the last that begins at `end` or before it: one. */
	size_t first = ranges_find(ranges, start - (start > 0));
	size_t last = first;
	struct range merged = {.start = start, .end = end};

	ranges->bytes += end - start;
	for (; last < ranges->count && ranges->at[last].start <= end; last++) {
		ranges->bytes -= ranges_shared_bytes(&ranges->at[last], start, end);
		merged.start = math_min_u64(merged.start, ranges->at[last].start);
		merged.end = ranges->at[last].end > merged.end ? ranges->at[last].end : merged.end;
	}
	ranges_splice(ranges, first, last - first, &merged, 1);
}

uint64_t ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end)
{
	size_t first = ranges_find(ranges, start);
	size_t last = first;
	struct range rest[2];
	size_t count = 0;
	uint64_t removed = 0;

	for (; last < ranges->count && ranges->at[last].start < end; last++) {
		const struct range *range = &ranges->at[last];

		if (range->start < start)
			rest[count++] = (struct range){range->start, start};
		if (range->end > end)
			rest[count++] = (struct range){end, range->end};
		removed += ranges_shared_bytes(range, start, end);
	}
	ranges_splice(ranges, first, last - first, rest, count);
	ranges->bytes -= removed;
	return removed;
}
