/* SPDX-License-Identifier: MIT */
/* See grid.h. */
#include "grid.h"

#include <errno.h>
#include <stdlib.h>

#define NEAR_ROWS 6 /* a smaller gap is drawn as it is */

static const double thresholds[GRID_SHADES] = {0, 0.01, 0.03, 0.1, 0.25, 0.5, 0.9};

double grid_threshold(unsigned shade)
{
	return thresholds[shade - 1];
}

/* Splits the cells into bands at this size of rows. 1: they fit. */
static int grid_split(struct grid *grid, const struct heat *heat, double row_px, double gap_px, double height_px)
{
	unsigned more = grid->shift - heat->shift;
	struct grid_band *band = NULL;

	grid->rows = 0;
	grid->band_count = 0;
	for (size_t i = 0; i < heat->count; i++) {
		uint64_t number = heat->cells[i].number >> more;

		if (!band || number + 1 - (band->number + band->rows) > NEAR_ROWS) {
			if (grid->band_count == GRID_BANDS_MAX)
				return 0;
			band = &grid->bands[grid->band_count++];
			*band = (struct grid_band){.number = number, .first_row = grid->rows};
		}
		grid->rows += (size_t)(number + 1 - band->number) - band->rows;
		band->rows = (size_t)(number + 1 - band->number);
	}
	return (double)grid->rows * row_px + (double)grid->band_count * gap_px <= height_px;
}

static uint8_t grid_shade_of(double share)
{
	uint8_t shade = 0;

	if (share <= 0)
		return 0;
	while (shade < GRID_SHADES && share >= thresholds[shade])
		shade++;
	return shade;
}

/* Pages found written in [first, first + joined) columns of a cell, or looks. */
static uint64_t grid_sum(const uint32_t *counts, size_t first, size_t joined)
{
	uint64_t total = 0;

	for (size_t i = first; i < first + joined && i < HEAT_COLUMNS; i++)
		total += counts[i];
	return total;
}

static struct grid_band *grid_band_of(struct grid *grid, uint64_t number)
{
	for (size_t i = 0; i < grid->band_count; i++) {
		if (number >= grid->bands[i].number && number < grid->bands[i].number + grid->bands[i].rows)
			return &grid->bands[i];
	}
	return NULL;
}

static void grid_gather(struct grid *grid, const struct heat *heat, size_t joined, uint64_t *pages)
{
	unsigned more = grid->shift - heat->shift;

	for (size_t i = 0; i < heat->count; i++) {
		uint64_t number = heat->cells[i].number >> more;
		struct grid_band *band = grid_band_of(grid, number);
		size_t row = band ? band->first_row + (size_t)(number - band->number) : 0;

		for (size_t column = 0; band && column < grid->columns; column++) {
			uint64_t found = grid_sum(heat->cells[i].counts, column * joined, joined);

			pages[row * grid->columns + column] += found;
			band->weight += found;
		}
	}
}

static void grid_shade(struct grid *grid, const struct heat *heat, size_t joined, const uint64_t *pages)
{
	double row_pages = (double)((uint64_t)1 << grid->shift);

	for (size_t column = 0; column < grid->columns; column++) {
		uint64_t looks = grid_sum(heat->collects, column * joined, joined);

		for (size_t row = 0; row < grid->rows; row++) {
			size_t at = row * grid->columns + column;
			double share = looks ? (double)pages[at] / row_pages / (double)looks : 0;

			if (looks)
				grid->shades[at] = grid_shade_of(share);
			else if (column) /* looks came a little late: the one before covers this column */
				grid->shades[at] = grid->shades[at - 1];
		}
	}
}

int grid_make(struct grid *grid, const struct heat *heat, double row_px, double gap_px, double height_px)
{
	size_t joined = (heat->columns + GRID_COLUMNS_MAX - 1) / GRID_COLUMNS_MAX;
	uint64_t *pages;

	*grid = (struct grid){.shift = heat->shift};
	joined = joined ? joined : 1;
	while (!grid_split(grid, heat, row_px, gap_px, height_px))
		grid->shift++;
	grid->columns = (heat->columns + joined - 1) / joined;
	grid->column_s = heat->column_s * (double)joined;
	pages = calloc(grid->rows * grid->columns + 1, sizeof(*pages));
	grid->shades = calloc(grid->rows * grid->columns + 1, 1);
	if (!pages || !grid->shades) {
		free(pages);
		grid_fini(grid);
		return -ENOMEM;
	}
	grid_gather(grid, heat, joined, pages);
	grid_shade(grid, heat, joined, pages);
	free(pages);
	return 0;
}

void grid_fini(struct grid *grid)
{
	free(grid->shades);
	grid->shades = NULL;
}
