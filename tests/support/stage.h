/* SPDX-License-Identifier: MIT */
/*
 * The stage of unit tests that play with the fake kernel: a runtime on it, one region, and the image of a snapshot,
 * collected by a callback that a gate may hold.
 *
 * There are four cases: anonymous memory that is attached, and a memfd that the library creates, each with both
 * deliveries.
 */
#ifndef SUPPORT_STAGE_H
#define SUPPORT_STAGE_H

#include <stddef.h>
#include <stdint.h>

#include "gate.h"
#include "uffdwp.h"

#define STAGE_CASES 4
#define STAGE_PAGE 4096u

struct stage {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t pages;
	size_t length_bytes;
	int attached;
	int is_inline;

	/* The snapshot's. */
	struct uffdwp_snapshot *snapshot;
	uint8_t *image; /* as large as the region; zeros where nothing came */
	uint8_t *came;  /* how often each page came */
	uint8_t *cut;   /* as large: for what the image should be */
	size_t first;   /* pages [first, end): the test's own, see play.h */
	size_t end;
	struct gate *gate; /* NULL: nothing holds the sink; set before begin */
};

/* Opens case `which` of STAGE_CASES, all pages filled with bytes of the seed. */
void stage_open(struct stage *stage, int which, size_t pages);
void stage_close(struct stage *stage);

/* Sixteen bytes of `value` into the middle of a page, by a store. */
void stage_write(struct stage *stage, size_t page, uint8_t value);

/* 1: stage_write() with this value is what the page holds. */
int stage_holds(const struct stage *stage, size_t page, uint8_t value);

/* Options that fit the stage: the callback, and a pool of so many pages. */
struct uffdwp_snapshot_options stage_options(struct stage *stage, size_t pool_pages);

/* Empties the image and begins. 0, or the error of uffdwp_snapshot_begin(). */
int stage_begin(struct stage *stage, const struct uffdwp_snapshot_options *options);

/* Waits for the end and frees: the result of uffdwp_snapshot_wait(). Progress may be NULL. */
int stage_end(struct stage *stage, struct uffdwp_snapshot_progress *progress);

/* The region's counters. */
struct uffdwp_region_stats stage_stats(const struct stage *stage);

/* How many of its pages carry a wp bit of the kernel. */
size_t stage_wp_bits(const struct stage *stage);

#endif
