/* SPDX-License-Identifier: MIT */
/*
 * Where the collector's heap lies.
 *
 * The collector does not tell: its list of sections is private, and its resize event names a size, no address (and is
 * not sent for scratch memory that it recycles into the heap). But it answers for any address whether a block of its
 * own is there (GC_is_heap_ptr()), and each section begins with a block, or continues the section below. So: in each
 * run of private anonymous writable mappings without a gap, everything from the first page with a block on is taken for
 * heap. That is all of the heap, whatever splits or merges its mappings, and maybe some memory of a neighbour, which
 * does no harm: its pages are fed to the collector, which finds no object there.
 *
 * A neighbour may unmap what is his. Such a range of the track is stale; it matters when the heap grows into it, and
 * whenever the heap grows the track is compared with the mappings first (uffdwp_track_audit()).
 *
 * Threads: whoever calls holds the collector's allocation lock, so the heap does not change meanwhile. heap_sync() must
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

/* Finds what the list has not yet and adds it to the track. What the track refuses is in the list as such. 0, or
 * -errno: the list is not complete. */
int heap_sync(struct heap *heap, struct uffdwp_track *track);

/* Empties the list. */
void heap_forget(struct heap *heap);

/* Bytes of the ranges that are tracked, or not. */
uint64_t heap_bytes(const struct heap *heap, bool tracked);

/* The bounds of all that can be heap, in whole pages. */
void heap_bounds(uintptr_t *low, uintptr_t *high);

size_t heap_page_bytes(void);

#endif
