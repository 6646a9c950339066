/* SPDX-License-Identifier: MIT */
/*
 * The heat map as it is drawn: rows of equal size in bands, columns of equal time, a shade for each. A band is a
 * stretch of addresses without a large gap; what lies between bands is left out.
 */
#ifndef UFFDWP_DIRTY_GRID_H
#define UFFDWP_DIRTY_GRID_H

#include <stddef.h>
#include <stdint.h>

#include "heat.h"

#define GRID_SHADES 7 /* 0: nothing, 1 to 7 */
#define GRID_BANDS_MAX 40
#define GRID_COLUMNS_MAX 320

struct grid_band {
	uint64_t number; /* of its first row: page >> shift */
	size_t rows;
	size_t first_row; /* in `shades` */
	uint64_t weight;  /* pages written there */
};

struct grid {
	unsigned shift; /* log2 of a row's pages */
	size_t rows;
	size_t columns;
	double column_s;
	size_t band_count;
	struct grid_band bands[GRID_BANDS_MAX];
	uint8_t *shades; /* rows * columns */
};

/* Rows and bands so that rows * row_px + bands * gap_px fit `height_px`. -ENOMEM. */
int grid_make(struct grid *grid, const struct heat *heat, double row_px, double gap_px, double height_px);
void grid_fini(struct grid *grid);

/* The least share that gets a shade (1 to GRID_SHADES). */
double grid_threshold(unsigned shade);

#endif
