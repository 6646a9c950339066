/* SPDX-License-Identifier: MIT */
/* See ranges.h. */
#include "track/ranges.h"

#include <errno.h>
#include <string.h>

#include "base/math.h"
#include "region/region.h"

#define ROOM_FIRST 256

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

int ranges_reserve(struct ranges *ranges, const struct kernel_ops *k, size_t more)
{
	size_t room = ranges->room ? ranges->room : ROOM_FIRST;

	if (ranges->count + more <= ranges->room)
		return 0;
	while (room < ranges->count + more)
		room *= 2;
	struct range *at = pages_new(k, room * sizeof(*at));

	if (!at)
		return -ENOMEM;
	if (ranges->count)
		memcpy(at, ranges->at, ranges->count * sizeof(*at));
	pages_free(k, ranges->at, ranges->room * sizeof(*at));
	ranges->at = at;
	ranges->room = room;
	return 0;
}

/* Replaces `old` ranges at i by `new` ones, at most one more. */
static void splice(struct ranges *ranges, size_t i, size_t old, const struct range *new, size_t count)
{
	struct range *at = ranges->at + i;

	memmove(at + count, at + old, (ranges->count - i - old) * sizeof(*at));
	if (count)
		memcpy(at, new, count * sizeof(*at));
	ranges->count = ranges->count - old + count;
}

void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end)
{
	/* From the first that ends at `start` or behind it to the last that begins at `end` or before it: one. */
	size_t first = ranges_find(ranges, start - 1);
	size_t last = first;
	struct range merged = {.start = start, .end = end};

	for (; last < ranges->count && ranges->at[last].start <= end; last++) {
		merged.start = min_u64(merged.start, ranges->at[last].start);
		merged.end = ranges->at[last].end > merged.end ? ranges->at[last].end : merged.end;
	}
	splice(ranges, first, last - first, &merged, 1);
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
		removed += min_u64(range->end, end) - (range->start > start ? range->start : start);
	}
	splice(ranges, first, last - first, rest, count);
	return removed;
}

uint64_t ranges_bytes(const struct ranges *ranges)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < ranges->count; i++)
		bytes += ranges->at[i].end - ranges->at[i].start;
	return bytes;
}

void ranges_free(struct ranges *ranges, const struct kernel_ops *k)
{
	pages_free(k, ranges->at, ranges->room * sizeof(*ranges->at));
	*ranges = (struct ranges){0};
}
