/* SPDX-License-Identifier: MIT */
/*
 * Which part of the region's address space is free.
 *
 * Idea: a sorted array of free ranges that never touch each other; all else is used. Mappings are taken from the first
 * range that they fit into, so that the used part stays at the start and the region's file short. Its memory is the
 * caller's, of a size that never changes: where the array is full a range that comes back stays used, which costs
 * address space and nothing else.
 *
 * Words: offsets and lengths are bytes from the region's start, multiples of the page size.
 *
 * Threads: none; the caller has a lock.
 * Never: allocate, call the kernel.
 */
#ifndef UFFDWP_FORK_ARENA_H
#define UFFDWP_FORK_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct arena_range {
	uint64_t start; /* [start, end) */
	uint64_t end;
};

struct arena {
	struct arena_range *free;
	size_t count;
	size_t most;
	uint64_t capacity;
	uint64_t used_bytes;
};

#define ARENA_NONE UINT64_MAX

/* All of `capacity` bytes is free; room for `most` ranges. */
void arena_init(struct arena *arena, uint64_t capacity, struct arena_range *room, size_t most);

/* Takes `length` bytes at a multiple of `alignment` (a power of two): their offset, or ARENA_NONE. */
uint64_t arena_take(struct arena *arena, uint64_t length, uint64_t alignment);

/* Takes what is free in [start, end), which ends within the capacity; the rest of it is used already. */
void arena_claim(struct arena *arena, uint64_t start, uint64_t end);

/* Takes [start, end) if all of it is free: 1, else 0 and nothing happened. */
int arena_extend(struct arena *arena, uint64_t start, uint64_t end);

/* [start, end) is free from now on; what was free in it already stays so. */
void arena_give(struct arena *arena, uint64_t start, uint64_t end);

/* The first used range that ends after `at`, cut off before `at`. 0: there is none. */
int arena_next_used(const struct arena *arena, uint64_t at, struct arena_range *used);

#endif
