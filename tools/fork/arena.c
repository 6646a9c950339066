/* SPDX-License-Identifier: MIT */
/* See arena.h. */
#include "arena.h"

#include <string.h>

void arena_init(struct arena *arena, uint64_t capacity, struct arena_range *room, size_t most)
{
	*arena = (struct arena){.free = room, .most = most, .capacity = capacity};
	if (capacity && most)
		arena->free[arena->count++] = (struct arena_range){0, capacity};
}

/* The first free range that ends after `at`; `count` where there is none. */
static size_t arena_find(const struct arena *arena, uint64_t at)
{
	size_t low = 0;
	size_t high = arena->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (arena->free[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void arena_insert(struct arena *arena, size_t at, struct arena_range range)
{
	memmove(&arena->free[at + 1], &arena->free[at], (arena->count - at) * sizeof(range));
	arena->free[at] = range;
	arena->count++;
}

static void arena_remove(struct arena *arena, size_t at, size_t ranges)
{
	arena->count -= ranges;
	memmove(&arena->free[at], &arena->free[at + ranges], (arena->count - at) * sizeof(arena->free[0]));
}

/* Takes a part of the free range at `at`. Where its tail has no room in the array, the tail becomes used, too. */
static void arena_carve(struct arena *arena, size_t at, struct arena_range part)
{
	struct arena_range whole = arena->free[at];

	arena->used_bytes += part.end - part.start;
	if (whole.start == part.start && whole.end == part.end) {
		arena_remove(arena, at, 1);
	} else if (whole.start == part.start) {
		arena->free[at].start = part.end;
	} else {
		arena->free[at].end = part.start;
		if (whole.end > part.end && arena->count < arena->most)
			arena_insert(arena, at + 1, (struct arena_range){part.end, whole.end});
		else
			arena->used_bytes += whole.end - part.end;
	}
}

uint64_t arena_take(struct arena *arena, uint64_t length, uint64_t alignment)
{
	if (!length || length > arena->capacity)
		return ARENA_NONE;
	for (size_t i = 0; i < arena->count; i++) {
		struct arena_range range = arena->free[i];
		uint64_t start = (range.start + alignment - 1) & ~(alignment - 1);

		if (start >= range.start && start < range.end && range.end - start >= length) {
			arena_carve(arena, i, (struct arena_range){start, start + length});
			return start;
		}
	}
	return ARENA_NONE;
}

void arena_claim(struct arena *arena, uint64_t start, uint64_t end)
{
	size_t at = arena_find(arena, start);

	while (at < arena->count && arena->free[at].start < end) {
		struct arena_range part = arena->free[at];

		part.start = part.start < start ? start : part.start;
		part.end = part.end > end ? end : part.end;
		arena_carve(arena, at, part);
		at = arena_find(arena, part.end);
	}
}

int arena_extend(struct arena *arena, uint64_t start, uint64_t end)
{
	size_t at = arena_find(arena, start);

	if (start >= end || at == arena->count || arena->free[at].start > start || arena->free[at].end < end)
		return 0;
	arena_carve(arena, at, (struct arena_range){start, end});
	return 1;
}

void arena_give(struct arena *arena, uint64_t start, uint64_t end)
{
	struct arena_range range = {start, end};
	size_t first = arena_find(arena, start);
	uint64_t was_free = 0;
	size_t last;

	if (first > 0 && arena->free[first - 1].end == start)
		first--; /* it touches */
	for (last = first; last < arena->count && arena->free[last].start <= end; last++) {
		was_free += arena->free[last].end - arena->free[last].start;
		range.start = arena->free[last].start < range.start ? arena->free[last].start : range.start;
		range.end = arena->free[last].end > range.end ? arena->free[last].end : range.end;
	}
	if (last == first && arena->count == arena->most)
		return;
	arena->used_bytes -= range.end - range.start - was_free;
	if (last == first) {
		arena_insert(arena, first, range);
		return;
	}
	arena->free[first] = range;
	arena_remove(arena, first + 1, last - first - 1);
}

int arena_next_used(const struct arena *arena, uint64_t at, struct arena_range *used)
{
	size_t next = arena_find(arena, at);

	if (next < arena->count && arena->free[next].start <= at)
		at = arena->free[next++].end;
	if (at >= arena->capacity)
		return 0;
	used->start = at;
	used->end = next < arena->count ? arena->free[next].start : arena->capacity;
	return 1;
}
