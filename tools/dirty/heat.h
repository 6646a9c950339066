/* SPDX-License-Identifier: MIT */
/*
 * Address × time in bounded memory. A cell is a run of pages of a power of two; a column is a stretch of time. When
 * there are too many cells, or columns, neighbours are joined in pairs: so a short run of a small program is kept page
 * by page, and a long one of a large program still fits (16 MiB at most).
 */
#ifndef UFFDWP_DIRTY_HEAT_H
#define UFFDWP_DIRTY_HEAT_H

#include <stddef.h>
#include <stdint.h>

#define HEAT_COLUMNS 512
#define HEAT_CELLS 8192

struct heat_cell {
	uint64_t number;  /* page >> shift */
	uint32_t *counts; /* HEAT_COLUMNS of them: pages found written, summed over the collects of the column */
};

struct heat {
	struct heat_cell *cells; /* by number */
	size_t count;
	unsigned shift;   /* log2 of a cell's pages */
	double column_s;  /* 0: not started */
	unsigned columns; /* that are begun */
	uint32_t collects[HEAT_COLUMNS];
	size_t hint; /* where the last cell was found */
	uint64_t dropped;
};

void heat_init(struct heat *heat, double interval_s);

/* A collect covers a stretch of time around `at_s` seconds: what follows belongs there. */
void heat_collect(struct heat *heat, double at_s);

/* Pages [first, first + count) were found written by it. */
void heat_add(struct heat *heat, uint64_t first, uint64_t count);

void heat_fini(struct heat *heat);

#endif
