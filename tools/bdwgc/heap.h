/* SPDX-License-Identifier: MIT */
/*
 * Where the collector's heap lies.
 *
 * The collector does not show it: its list of sections is private, and its resize event names a size, no address (and
 * is not sent for scratch memory that it recycles into the heap). But it answers for any address whether a block of its
 * own begins there (GC_is_heap_ptr()) and how large that is (GC_size(), of free blocks, too), and blocks lie without a
 * gap from the start of a section to its end. So each private anonymous writable mapping is walked from block to block:
 * what blocks cover is heap, in whole pages, all else is not. Mappings may be split anywhere (by the registration of a
 * track, for one); a block that reaches beyond its mapping is gone on with in the next.
 *
 * What is not heap stays out of the track: the collector's own tables, whose mark bits it writes in each stop, lie
 * beside its sections, as what malloc() maps does. Memory that was heap once stays heap; if the collector replaces the
 * mapping (it gives free blocks back) the range of the track is stale, and whenever the heap grows the track is
 * compared with the mappings first (uffdwp_track_audit()).
 *
 * Threads: the caller holds the collector's allocation lock, so the heap does not change meanwhile. heap_sync() must
 * not be called while the world is stopped: it allocates, and a stopped thread may hold the lock of malloc().
 */
#ifndef BDWGC_HEAP_H
#define BDWGC_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uffdwp.h>

struct heap_range {
	uintptr_t start;
	uintptr_t end;
	bool tracked; /* false: the track refused it, so it counts as written in each stop */
};

struct heap {
	struct heap_range *ranges; /* in the order of addresses */
	size_t count;
	size_t capacity;
};

/* Finds what the list has not yet and adds it to the track; block_bytes is the collector's, a power of two. What the
 * track refuses is in the list as such. 0, or -errno: the list is not complete. */
int heap_sync(struct heap *heap, struct uffdwp_track *track, size_t block_bytes);

/* Empties the list. */
void heap_forget(struct heap *heap);

/* Bytes of the ranges that are tracked, or not. */
uint64_t heap_bytes(const struct heap *heap, bool tracked);

/* The bounds of all that can be heap, in whole pages. */
void heap_bounds(uintptr_t *low, uintptr_t *high);

size_t heap_page_bytes(void);

#endif
