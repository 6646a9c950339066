/* SPDX-License-Identifier: MIT */
/*
 * A collector: some method to learn which pages were written, and to arm them again. The library's track and the rival
 * that is no library, a userfaultfd with UFFD_FEATURE_WP_ASYNC and one PAGEMAP_SCAN after the other, stand under the
 * same few functions, so that a trial cannot treat them differently: same memory, same size of the vector, same use of
 * what comes out (a range is added up, set in a bitmap, or given to a function).
 *
 * Tracked is all of an area, or pieces of it of equal size at equal distance; pages are numbered through the pieces.
 *
 * Threads: the caller's. Under async the kernel resolves the faults, no thread is woken.
 */
#ifndef UFFDWP_BENCH_COLLECTOR_H
#define UFFDWP_BENCH_COLLECTOR_H

#include "area.h"
#include "pages.h"

/* Where an answer goes. */
enum collector_shape { COLLECTOR_RANGES, COLLECTOR_BITMAP, COLLECTOR_CALLBACK, COLLECTOR_SHAPES };

/* Ranges that are found at a time where the answer goes into a bitmap or a callback: what the library takes for it. */
#define COLLECTOR_SCRATCH 256

struct collector_setup {
	struct area area;
	size_t pieces;
	size_t piece_pages;
	size_t stride_pages;       /* from the start of a piece to that of the next */
	size_t vector;             /* ranges that one answer has room for */
	const struct pages *pages; /* that a trial writes */
	int populated;             /* UFFDWP_TRACK_START_POPULATED, or the masks that mean the same */
	int soft_dirty;            /* library: by that mechanism; else by async */
};

struct collector {
	struct collector_setup setup;
	enum collector_shape shape;
	size_t span_bytes; /* from the first piece to the end of the last */
	struct uffdwp_written *ranges;
	uint64_t *bitmap;
	size_t bitmap_bytes;
	uint64_t called;   /* bytes that the callback was called with */
	uint64_t added_ns; /* what it took to add all pieces */

	struct uffdwp *runtime; /* library */
	struct uffdwp_track *track;
	int uffd; /* bare */
	int pagemap;

	/* Collects all and arms it again; bytes that were written. */
	uint64_t (*collect)(struct collector *collector);
	void (*close)(struct collector *collector);
};

extern const char *const collector_shape_names[COLLECTOR_SHAPES];

/* One piece: all of the area. */
void collector_whole(struct collector_setup *setup, const struct area *area);

/* Both arm all before they return. The area stays the caller's. */
void collector_open_library(struct collector *collector, const struct collector_setup *setup);
void collector_open_bare(struct collector *collector, const struct collector_setup *setup);
void collector_close(struct collector *collector);

/* NULL, or why the library cannot track by mechanism soft-dirty here. */
const char *collector_soft_dirty_refused(void);

/* NULL, or why this kernel or this user cannot have the bare rival (and so no mechanism async). */
const char *collector_bare_refused(void);

/* Writes one byte to each chosen page. */
void collector_write(const struct collector *collector);

/* A trial of a duel, self is a collector: writes, untimed, and collects, timed. Ends the program if a chosen page is
 * not in the answer, or far more is. */
uint64_t collector_trial(void *self, int *disturbed);

/* The same with the writes timed, too. */
uint64_t collector_cycle(void *self, int *disturbed);

/* For the two implementations: what both have. */
void collector_init(struct collector *collector, const struct collector_setup *setup);

static inline size_t collector_vector(const struct collector *collector)
{
	size_t vector = collector->setup.vector;

	return collector->shape != COLLECTOR_RANGES && vector > COLLECTOR_SCRATCH ? COLLECTOR_SCRATCH : vector;
}

/* The address of a page. */
static inline char *collector_page(const struct collector *collector, size_t page)
{
	const struct collector_setup *setup = &collector->setup;
	size_t place = page / setup->piece_pages * setup->stride_pages + page % setup->piece_pages;

	return setup->area.base + place * setup->area.page_bytes;
}

#endif
