/* SPDX-License-Identifier: MIT */
/*
 * Sets of page numbers, in blocks of 512 pages in a hash table: which pages were ever written, in how many collects
 * each, and how many different ones in the window that is open now, for several lengths of windows at once. A block
 * costs some 1.4 KiB for 2 MiB that were written somewhere; a window is emptied by a new number, not by a walk.
 */
#ifndef UFFDWP_DIRTY_PAGES_H
#define UFFDWP_DIRTY_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGES_WINDOWS 5

struct page_block;

struct pages {
	struct page_block **slots; /* a power of two of them */
	size_t slot_count;
	size_t used;
	uint32_t epochs[PAGES_WINDOWS];    /* of the windows that are open */
	uint64_t in_window[PAGES_WINDOWS]; /* different pages */
	uint64_t unique;                   /* different pages, ever */
	uint64_t dropped;                  /* pages that no memory was left for: figures are too low then */
	struct page_block *last;           /* of the last call */
};

/* Pages [first, first + count) were written. How many of them never were before. */
uint64_t pages_add(struct pages *pages, uint64_t first, uint64_t count);

/* Closes a window and opens the next. */
void pages_next_window(struct pages *pages, unsigned window);

/* Neighbouring pages that were written about as often as each other, within a factor of two. */
struct hot_range {
	uint64_t first;
	uint64_t count;
	uint64_t hits; /* sum over its pages of the collects that found them written */
};

/* The ranges with most hits, at most `room`, the hottest first. */
size_t pages_hottest(const struct pages *pages, struct hot_range *out, size_t room);

void pages_fini(struct pages *pages);

#endif
