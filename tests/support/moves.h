/* SPDX-License-Identifier: MIT */
/* What the tests of regions that are armed by a move of their page tables share. */
#ifndef UFFDWP_TESTS_MOVES_H
#define UFFDWP_TESTS_MOVES_H

#include "image.h"
#include "place.h"

/* Memory of the kind that can be moved. */
struct place_case moves_case(void);

/* A snapshot by a move. */
struct uffdwp_snapshot_options moves_options(void);

/* Begins a snapshot, or fails with the library's text. */
void moves_begin(struct image *image, struct uffdwp_region *region, const struct uffdwp_snapshot_options *options);

void moves_write(const struct place *place, size_t page);
uint8_t moves_read(const struct place *place, size_t page);

#endif
