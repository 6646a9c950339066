/* SPDX-License-Identifier: MIT */
/* See heat.h. */
#include "heat.h"

#include <stdlib.h>
#include <string.h>

void heat_init(struct heat *heat, double interval_s)
{
	*heat = (struct heat){.column_s = interval_s};
}

/* ------------------------------------------------------------------------------------------------------- columns -- */

static void heat_join_columns(uint32_t *counts)
{
	for (unsigned i = 0; i < HEAT_COLUMNS / 2; i++)
		counts[i] = counts[2 * i] + counts[2 * i + 1];
	memset(counts + HEAT_COLUMNS / 2, 0, HEAT_COLUMNS / 2 * sizeof(*counts));
}

void heat_collect(struct heat *heat, double at_s)
{
	unsigned column;

	at_s = at_s > 0 ? at_s : 0;
	while (at_s / heat->column_s >= HEAT_COLUMNS) {
		for (size_t i = 0; i < heat->count; i++)
			heat_join_columns(heat->cells[i].counts);
		heat_join_columns(heat->collects);
		heat->column_s *= 2;
		heat->columns = (heat->columns + 1) / 2;
	}
	column = (unsigned)(at_s / heat->column_s);
	if (column >= heat->columns)
		heat->columns = column + 1;
	heat->collects[heat->columns - 1]++;
}

/* --------------------------------------------------------------------------------------------------------- cells -- */

static void heat_join_pair(struct heat_cell *into, struct heat_cell *from)
{
	for (unsigned i = 0; i < HEAT_COLUMNS; i++)
		into->counts[i] += from->counts[i];
	free(from->counts);
}

static void heat_join_cells(struct heat *heat)
{
	size_t out = 0;

	heat->shift++;
	for (size_t i = 0; i < heat->count; i++) {
		struct heat_cell cell = {heat->cells[i].number >> 1, heat->cells[i].counts};

		if (out && heat->cells[out - 1].number == cell.number)
			heat_join_pair(&heat->cells[out - 1], &cell);
		else
			heat->cells[out++] = cell;
	}
	heat->count = out;
	heat->hint = 0;
}

/* The first cell whose number is not smaller. Writes come by address, so it is mostly the one after the last. */
static size_t heat_lower_bound(const struct heat *heat, uint64_t number)
{
	size_t low = 0;
	size_t high = heat->count;

	if (heat->hint < heat->count && heat->cells[heat->hint].number <= number) {
		low = heat->hint;
		if (low + 1 < heat->count && heat->cells[low + 1].number >= number)
			return heat->cells[low].number == number ? low : low + 1;
	}
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (heat->cells[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct heat_cell *heat_insert(struct heat *heat, size_t at, uint64_t number)
{
	struct heat_cell cell = {.number = number};

	if (!heat->cells)
		heat->cells = calloc(HEAT_CELLS, sizeof(*heat->cells));
	if (!heat->cells)
		return NULL;
	cell.counts = calloc(HEAT_COLUMNS, sizeof(*cell.counts));
	if (!cell.counts)
		return NULL;
	memmove(heat->cells + at + 1, heat->cells + at, (heat->count - at) * sizeof(*heat->cells));
	heat->cells[at] = cell;
	heat->count++;
	return &heat->cells[at];
}

static struct heat_cell *heat_cell_of(struct heat *heat, uint64_t page)
{
	for (;;) {
		uint64_t number = page >> heat->shift;
		size_t at = heat_lower_bound(heat, number);

		heat->hint = at;
		if (at < heat->count && heat->cells[at].number == number)
			return &heat->cells[at];
		if (heat->count < HEAT_CELLS)
			return heat_insert(heat, at, number);
		heat_join_cells(heat);
	}
}

void heat_add(struct heat *heat, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	while (first < end) {
		struct heat_cell *cell = heat_cell_of(heat, first);
		uint64_t last = ((first >> heat->shift) + 1) << heat->shift;

		last = last < end ? last : end;
		if (cell)
			cell->counts[heat->columns - 1] += (uint32_t)(last - first);
		else
			heat->dropped += last - first;
		first = last;
	}
}

void heat_fini(struct heat *heat)
{
	for (size_t i = 0; i < heat->count; i++)
		free(heat->cells[i].counts);
	free(heat->cells);
	heat->cells = NULL;
	heat->count = 0;
}
