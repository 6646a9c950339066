/* SPDX-License-Identifier: MIT */
/*
 * Which page is written next, where few pages are written often: rank r (1 is the most popular) has a share in
 * proportion to r to the power of -theta (G. K. Zipf). Popular pages lie anywhere: a permutation that follows from the
 * seed says which page has which rank, so that neighbours in memory are not neighbours in popularity.
 *
 * Each draw is exact and takes the same time: A. J. Walker's alias method (1974), its table built as M. D. Vose does
 * (1991). Every page has a cell of equal probability that it shares with at most one other page.
 *
 * Threads: many may draw from one table, each with its own random state.
 */
#ifndef UFFDWP_BENCH_ZIPF_H
#define UFFDWP_BENCH_ZIPF_H

#include <stdint.h>

#define ZIPF_THETA 0.99 /* of the Yahoo! Cloud Serving Benchmark */

struct zipf_cell {
	uint32_t keep; /* of 2^32: how often the cell stands for `own` */
	uint32_t own;
	uint32_t other;
};

struct zipf {
	uint32_t count;
	struct zipf_cell *cells;
	uint32_t *pages; /* by rank, from 0 on */
};

/* Ends the program where there is no memory. count and seed are not 0. */
void zipf_init(struct zipf *zipf, uint32_t count, double theta, uint64_t seed);
void zipf_fini(struct zipf *zipf);

uint32_t zipf_draw(const struct zipf *zipf, uint64_t *random);

#endif
