/* SPDX-License-Identifier: MIT */
/* See memory.h. */
#include "memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "advice.h"
#include "heap.h"
#include "kernel/abi.h"
#include "move.h"
#include "raw.h"
#include "rights.h"

/* 0: it reads as zeros, and its memory is the system's again. */
static int memory_punch(uint64_t start, uint64_t end)
{
	uint64_t length = atomic_load(&heap.length);
	sigset_t before;
	int error;

	if (end > length)
		end = length;
	if (start >= end)
		return 0;
	heap_block_signals(&before);
	error = uffdwp_region_punch(heap.region, start, end - start);
	if (error && (!heap_has_file() || heap_is_dead())) /* the program has closed it: there is no cut any more */
		error = raw_madvise(heap_at(start), end - start, MADV_REMOVE);
	heap_restore_signals(&before);
	return error;
}

/* Where the kernel refuses to give it back it is zeroed at least. */
static void memory_zero(uint64_t start, uint64_t end)
{
	uint64_t length = atomic_load(&heap.length);

	if (memory_punch(start, end) != 0 && start < length)
		memset(heap_at(start), 0, (end < length ? end : length) - start);
}

void *memory_map(uint64_t length, uint64_t alignment, int populate)
{
	uint64_t start = ARENA_NONE;
	sigset_t before;

	heap_lock(&before);
	if (!heap.paused && heap.phase == HEAP_SERVING)
		start = arena_take(&heap.arena, length, alignment);
	heap_unlock(&before);
	if (start == ARENA_NONE)
		return NULL;
	if (heap_reach(start + length) != 0) {
		heap_lock(&before);
		arena_give(&heap.arena, start, start + length);
		heap_unlock(&before);
		return NULL;
	}
	if (populate) {
		int error = errno;

		(void)raw_madvise(heap_at(start), length, MADV_POPULATE_WRITE);
		errno = error;
	}
	return heap_at(start);
}

int memory_map_over(uint64_t start, uint64_t end, int protection)
{
	sigset_t before;

	if (heap_reach(end) != 0) {
		errno = ENOMEM;
		return -1;
	}
	heap_lock(&before);
	arena_claim(&heap.arena, start, end);
	heap_unlock(&before);
	if (memory_protect(start, end, RIGHTS_USUAL) != 0)
		return -1;
	memory_zero(start, end);
	return memory_protect(start, end, protection);
}

int memory_unmap(uint64_t start, uint64_t end)
{
	sigset_t before;

	if (memory_protect(start, end, RIGHTS_USUAL) != 0 || memory_punch(start, end) != 0)
		return 0; /* it stays used: the program has no use for it, nor have others */
	heap_lock(&before);
	arena_give(&heap.arena, start, end);
	heap_unlock(&before);
	return 0;
}

int memory_advise(uint64_t start, uint64_t end, int advice)
{
	return advice_apply(start, end, advice, memory_zero);
}

int memory_protect(uint64_t start, uint64_t end, int protection)
{
	sigset_t before;
	int error = 0;

	heap_lock(&before);
	if (protection != RIGHTS_USUAL || rights_differ(start, end))
		error = rights_set(start, end, protection);
	heap_unlock(&before);
	if (!error)
		return 0;
	errno = -error;
	return -1;
}

/* ------------------------------------------------------------------------------------------------------- mremap -- */

static int memory_extend(uint64_t start, uint64_t end)
{
	sigset_t before;
	int extended;

	heap_lock(&before);
	extended = arena_extend(&heap.arena, start, end);
	heap_unlock(&before);
	if (!extended)
		return 0;
	if (heap_reach(end) == 0)
		return 1;
	(void)memory_unmap(start, end);
	return 0;
}

/* New memory for a mapping that moves, in the region if there is room. */
static void *memory_new_place(size_t length, int flags, void *to)
{
	void *place = NULL;
	uint64_t start;
	uint64_t end;

	if (flags & MREMAP_FIXED) {
		if (!heap_overlap(to, length, &start, &end))
			return raw_mmap(to, length, RIGHTS_USUAL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (end - start != length)
			errno = ENOMEM;
		return end - start == length && memory_map_over(start, end, RIGHTS_USUAL) == 0 ? to : MAP_FAILED;
	}
	place = memory_map(length, heap.page_bytes, 0);
	return place ? place : raw_mmap(NULL, length, RIGHTS_USUAL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void memory_drop(void *place, size_t length)
{
	uint64_t start;
	uint64_t end;

	if (heap_overlap(place, length, &start, &end))
		(void)memory_unmap(start, end);
	else
		(void)raw_munmap(place, length);
}

/* Zeros with the rights that it had. */
static void memory_leave_zeros(uint64_t start, uint64_t end)
{
	sigset_t before;

	memory_zero(start, end);
	heap_lock(&before);
	(void)rights_apply(start, end);
	heap_unlock(&before);
}

static void *memory_move(uint64_t start, uint64_t end, size_t length, int flags, void *to)
{
	void *place = memory_new_place(length, flags, to);

	if (place == MAP_FAILED)
		return MAP_FAILED;
	int error = move_content(start, end, place, length);

	if (error) {
		memory_drop(place, length);
		errno = -error;
		return MAP_FAILED;
	}
	if (flags & MREMAP_DONTUNMAP)
		memory_leave_zeros(start, end);
	else
		(void)memory_unmap(start, end);
	return place;
}

/* What a mapping grows by has the rights of its last page. */
static int memory_grow(uint64_t start, uint64_t end, uint64_t to)
{
	sigset_t before;
	int protection;

	if (!memory_extend(end, to))
		return 0;
	heap_lock(&before);
	protection = start < end ? rights_at(end - 1) : RIGHTS_USUAL;
	heap_unlock(&before);
	if (memory_protect(end, to, protection) == 0)
		return 1;
	(void)memory_unmap(end, to);
	return 0;
}

void *memory_remap(uint64_t start, uint64_t end, size_t length, int flags, void *to)
{
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		return memory_move(start, end, length, flags, to);
	if (length <= end - start) {
		if (length < end - start)
			(void)memory_unmap(start + length, end);
		return heap_at(start);
	}
	if (memory_grow(start, end, start + length))
		return heap_at(start);
	if (flags & MREMAP_MAYMOVE)
		return memory_move(start, end, length, flags, to);
	errno = ENOMEM;
	return MAP_FAILED;
}
