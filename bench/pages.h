/* SPDX-License-Identifier: MIT */
/*
 * Which pages a trial writes: a share of all, in one place or all over the memory, from a seed. Contenders of one trial
 * get the same choice; two trials get different ones, so that nothing can learn it.
 *
 * Scattered: each page by itself, all choices equally likely. Clustered: whole blocks of PAGES_BLOCK pages, as the
 * pages of an application come; one block is cut where the share is not a whole number of them.
 *
 * Threads: one choice belongs to one thread.
 */
#ifndef UFFDWP_BENCH_PAGES_H
#define UFFDWP_BENCH_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGES_BLOCK 64

enum pages_spread { PAGES_CLUSTERED, PAGES_SCATTERED };

struct pages {
	size_t total;
	size_t count;   /* chosen */
	uint32_t *list; /* page numbers, ascending */
	uint64_t *bits; /* the same as bits: bit n of the whole is page n */
	size_t bits_bytes;
};

/* Ends the program where there is no memory. */
void pages_init(struct pages *pages, size_t total);
void pages_fini(struct pages *pages);

/* `permille` of `total`, rounded; at least one page where permille is not 0. */
size_t pages_share(size_t total, unsigned permille);

/* Chooses `count` of all pages, at most all. */
void pages_choose(struct pages *pages, size_t count, enum pages_spread spread, uint64_t seed);

/* How many runs of adjacent pages the choice is. */
size_t pages_runs(const struct pages *pages);

#endif
