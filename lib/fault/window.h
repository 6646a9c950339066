/* SPDX-License-Identifier: MIT */
/*
 * Windows: how many pages a fault takes with it. A fault costs as much as copying a dozen pages, so a writer that is
 * about to write to the neighbours, too, should fault once for all of them. Two methods to know that:
 *
 *   streams   a writer that goes up meets the page after its last window: the window doubles;
 *   blocks    where many pages of a block of 64 were written already, the others will be: a window is the aligned part
 *             of the block around the page. Only in regions that are armed for snapshots of all pages (`coarse`):
 *             to increments and tracks no page is reported as written that was not.
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

#endif
