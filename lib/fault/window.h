/* SPDX-License-Identifier: MIT */
/*
 * Windows: how many pages a fault takes with it. A fault costs as much as copying a dozen pages, so a writer that is
 * about to write to the neighbours, too, should fault once for all of them. Two methods to know that:
 *
 *   streams   a writer that goes up meets the page after its last window: the window doubles;
 *   blocks    where many pages of a block of 64 were written already, the others will be: a window is the aligned part
 *             of the block around the page;
 *   areas     where a sixteenth of an area of 512 pages was written since a child began, and writers fault without a
 *             pause, the rest will be written before it ends: some are broken off it along, as far as they are in
 *             memory, and its thread does the rest of the area. Only where the child's owner wants that.
 *
 * Blocks and areas only in regions that are armed for the sake of all pages (enum region_coarse): to increments and
 * tracks no page is reported as written that was not.
 *
 * Hints only; races do no harm. Part of the fault path.
 */
#ifndef UFFDWP_FAULT_WINDOW_H
#define UFFDWP_FAULT_WINDOW_H

#include <stdint.h>

#include "region/region.h"

/* By streams: the pages from `page` on, 1 to `most`. Learns from being asked. (signal) */
uint32_t window_of_stream(struct uffdwp_region *region, uint64_t page, uint32_t most);

/* By blocks: 1 and the window [*first, *end) around `page`, at most `most` pages, a power of two or rounded down to
 * one; 0: there is none. (signal) */
int window_of_block(struct uffdwp_region *region, uint64_t page, uint32_t most, uint64_t *first, uint64_t *end);

#define WINDOW_AREA_PAGES 512

/* By areas: 1 and the window around `page`, of pages that are in memory; 0: there is none. (signal) */
int window_of_area(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end);

#endif
