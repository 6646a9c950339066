/* SPDX-License-Identifier: MIT */
/* What the tests of regions that are armed by a move of their page tables share. */
#ifndef UFFDWP_TESTS_MOVES_H
#define UFFDWP_TESTS_MOVES_H

#include <check.h>

#include "image.h"
#include "place.h"

/* The cases that can be moved: by mechanism and delivery. */
#define MOVES_CASES 4

/* [0, MOVES_CASES); the first is what a region is made with where nothing is asked for. */
struct place_case moves_case_of(int i);

/* The one that the running test is about. */
struct place_case moves_case(void);

/* Adds the same tests for each case that is possible here. */
void moves_add_cases(Suite *suite, void (*add)(TCase *));

/* A snapshot by a move. */
struct uffdwp_snapshot_options moves_options(void);

/* Begins a snapshot, or fails with the library's text. */
void moves_begin(struct image *image, struct uffdwp_region *region, const struct uffdwp_snapshot_options *options);

void moves_write(const struct place *place, size_t page);
uint8_t moves_read(const struct place *place, size_t page);

#endif
