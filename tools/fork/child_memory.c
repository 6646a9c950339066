/* SPDX-License-Identifier: MIT */
/* See child_memory.h. */
#include "child_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "advice.h"
#include "heap.h"
#include "move.h"
#include "raw.h"
#include "rights.h"

#define CHILD_MEMORY_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE)

static int child_memory_cover(uint64_t start, uint64_t end, int protection)
{
	return raw_mmap(heap_at(start), end - start, protection, CHILD_MEMORY_FLAGS, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* The range stays taken, with no rights: nothing else comes to lie where the parent breaks pages off. */
int child_memory_unmap(uint64_t start, uint64_t end)
{
	sigset_t before;
	int result;

	heap_lock(&before);
	result = child_memory_cover(start, end, PROT_NONE);
	if (result == 0) {
		rights_note(start, end, RIGHTS_USUAL);
		arena_give(&heap.arena, start, end);
	}
	heap_unlock(&before);
	return result;
}

/* Where the process has too many mappings already it is written over instead. */
static void child_memory_zero(uint64_t start, uint64_t end)
{
	sigset_t before;
	int error = errno;

	heap_lock(&before);
	if (child_memory_cover(start, end, RIGHTS_USUAL) != 0)
		memset(heap_at(start), 0, end - start);
	else
		(void)rights_apply(start, end);
	heap_unlock(&before);
	errno = error;
}

int child_memory_advise(uint64_t start, uint64_t end, int advice)
{
	return advice_apply(start, end, advice, child_memory_zero);
}

int child_memory_protect(uint64_t start, uint64_t end, int protection)
{
	sigset_t before;
	int error;

	heap_lock(&before);
	error = rights_set(start, end, protection);
	heap_unlock(&before);
	if (!error)
		return 0;
	errno = -error;
	return -1;
}

void child_memory_replaced(uint64_t start, uint64_t end)
{
	sigset_t before;

	heap_lock(&before);
	rights_note(start, end, RIGHTS_USUAL);
	arena_claim(&heap.arena, start, end);
	heap_unlock(&before);
}

static void *child_memory_new_place(size_t length, int flags, void *to)
{
	int fixed = flags & MREMAP_FIXED ? MAP_FIXED : 0;
	void *place = raw_mmap(fixed ? to : NULL, length, RIGHTS_USUAL, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
	uint64_t start;
	uint64_t end;

	if (place != MAP_FAILED && heap_overlap(place, length, &start, &end))
		child_memory_replaced(start, end);
	return place;
}

void *child_memory_remap(uint64_t start, uint64_t end, size_t length, int flags, void *to)
{
	void *place;
	int error;

	if (!(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && length <= end - start) {
		if (length < end - start)
			(void)child_memory_unmap(start + length, end);
		return heap_at(start);
	}
	if (!(flags & MREMAP_MAYMOVE)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	place = child_memory_new_place(length, flags, to);
	if (place == MAP_FAILED)
		return MAP_FAILED;
	error = move_content(start, end, place, length);
	if (error) {
		(void)raw_mprotect(place, length, PROT_NONE);
		errno = -error;
		return MAP_FAILED;
	}
	if (flags & MREMAP_DONTUNMAP)
		child_memory_zero(start, end);
	else
		(void)child_memory_unmap(start, end);
	return place;
}
