/* SPDX-License-Identifier: MIT */
/* See heap.h. */
#include "heap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gc/gc_mark.h>

/* A line of /proc/self/maps. */
struct mapping {
	uintptr_t start;
	uintptr_t end;
	bool plain; /* private, anonymous, readable and writable: what the collector's heap is made of */
};

/* Over the mappings, upwards. */
struct heap_walk {
	struct heap *heap;
	struct uffdwp_track *track;
	size_t block_bytes;
	uintptr_t block_end;   /* of the last block that was seen: it may reach into the next mapping */
	uintptr_t mapping_end; /* of the mapping that is looked at */
};

size_t heap_page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

void heap_bounds(uintptr_t *low, uintptr_t *high)
{
	uintptr_t page = heap_page_bytes();
	*low = (uintptr_t)GC_least_plausible_heap_addr & ~(page - 1);
	*high = ((uintptr_t)GC_greatest_plausible_heap_addr + page - 1) & ~(page - 1);
}

void heap_forget(struct heap *heap)
{
	heap->count = 0;
}

uint64_t heap_bytes(const struct heap *heap, bool tracked)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < heap->count; i++)
		if (heap->ranges[i].tracked == tracked)
			bytes += heap->ranges[i].end - heap->ranges[i].start;
	return bytes;
}

/* The first range that ends after the address; count: none does. */
static size_t heap_find(const struct heap *heap, uintptr_t address)
{
	size_t low = 0, high = heap->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (heap->ranges[middle].end > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int heap_reserve(struct heap *heap)
{
	if (heap->ranges && heap->count < heap->capacity)
		return 0;
	size_t capacity = heap->capacity ? heap->capacity * 2 : 64;
	struct heap_range *ranges = reallocarray(heap->ranges, capacity, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	heap->ranges = ranges;
	heap->capacity = capacity;
	return 0;
}

/* Puts a range into place `i`, for which there is room; joins it with the one below if they touch. */
static void heap_insert(struct heap *heap, size_t i, struct heap_range range)
{
	struct heap_range *below = i > 0 ? &heap->ranges[i - 1] : NULL;
	if (below && below->end == range.start && below->tracked == range.tracked) {
		below->end = range.end;
		return;
	}
	memmove(&heap->ranges[i + 1], &heap->ranges[i], (heap->count - i) * sizeof(range));
	heap->ranges[i] = range;
	heap->count++;
}

static int heap_add(struct heap *heap, struct uffdwp_track *track, struct heap_range range)
{
	int error = heap_reserve(heap);
	if (error)
		return error;
	range.tracked = uffdwp_track_add(track, (void *)range.start, range.end - range.start, 0) == 0;
	heap_insert(heap, heap_find(heap, range.start), range);
	return 0;
}

/* Adds of [start, end) what is not in the list. */
static int heap_take(struct heap *heap, struct uffdwp_track *track, uintptr_t start, uintptr_t end)
{
	while (start < end) {
		size_t i = heap_find(heap, start);
		if (i < heap->count && heap->ranges[i].start <= start) {
			start = heap->ranges[i].end;
			continue;
		}
		uintptr_t stop = i < heap->count && heap->ranges[i].start < end ? heap->ranges[i].start : end;
		int error = heap_add(heap, track, (struct heap_range){start, stop, false});
		if (error)
			return error;
		start = stop;
	}
	return 0;
}

/* How far the block reaches that begins at `address`; 0: no block of the collector begins there. */
static size_t heap_block_extent(uintptr_t address, size_t block_bytes)
{
	void *block = (void *)address;
	if (!GC_is_heap_ptr(block))
		return 0;
	size_t bytes = GC_size(GC_base(block) ? GC_base(block) : block); /* of a free block its header says all */
	return bytes < block_bytes ? block_bytes : (bytes + block_bytes - 1) & ~(block_bytes - 1);
}

/* Takes [start, end) of one mapping, which belongs to the collector, in whole pages. */
static int heap_take_pages(struct heap_walk *walk, uintptr_t start, uintptr_t end)
{
	uintptr_t page = heap_page_bytes();
	start &= ~(page - 1);
	end = (end + page - 1) & ~(page - 1);
	return heap_take(walk->heap, walk->track, start, end < walk->mapping_end ? end : walk->mapping_end);
}

/* Walks over the blocks in [start, end), which all lie in one mapping; what touches is taken at once. */
static int heap_walk_mapping(struct heap_walk *walk, uintptr_t start, uintptr_t end)
{
	uintptr_t at = start, from = start;
	int error = 0;
	if (walk->block_end > at) /* a block that began in a mapping below */
		at = walk->block_end < end ? walk->block_end : end;
	while (at < end && !error) {
		size_t extent = heap_block_extent(at, walk->block_bytes);
		if (!extent && at > from)
			error = heap_take_pages(walk, from, at);
		if (extent)
			walk->block_end = at + extent;
		at = extent ? walk->block_end : at + walk->block_bytes;
		if (!extent)
			from = at;
	}
	at = at < end ? at : end;
	return error || from >= at ? error : heap_take_pages(walk, from, at);
}

static int heap_visit(struct heap_walk *walk, struct mapping mapping)
{
	uintptr_t low, high;
	heap_bounds(&low, &high);
	low = mapping.start < low ? low : mapping.start;
	high = mapping.end > high ? high : mapping.end;
	walk->mapping_end = mapping.end;
	return mapping.plain && low < high ? heap_walk_mapping(walk, low, high) : 0;
}

/* "start-end rwxp offset device inode  name" */
static bool heap_parse_mapping(const char *line, struct mapping *mapping)
{
	char *at;
	mapping->start = strtoul(line, &at, 16);
	if (*at != '-')
		return false;
	mapping->end = strtoul(at + 1, &at, 16);
	if (strlen(at) < 6)
		return false;
	const char *rights = at + 1;
	strtoul(at + 6, &at, 16);
	while (*at == ' ')
		at++;
	at += strcspn(at, " ");
	unsigned long inode = strtoul(at, &at, 10);
	mapping->plain =
	        rights[0] == 'r' && rights[1] == 'w' && rights[3] == 'p' && inode == 0 && !strstr(at, "[stack");
	return true;
}

int heap_sync(struct heap *heap, struct uffdwp_track *track, size_t block_bytes)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return -errno;
	char *line = NULL;
	size_t size = 0;
	struct heap_walk walk = {.heap = heap, .track = track, .block_bytes = block_bytes};
	struct mapping mapping;
	int error = 0;
	while (!error && getline(&line, &size, maps) > 0)
		error = heap_parse_mapping(line, &mapping) ? heap_visit(&walk, mapping) : -EBADMSG;
	if (!error && ferror(maps))
		error = -EIO;
	free(line);
	fclose(maps);
	return error;
}
