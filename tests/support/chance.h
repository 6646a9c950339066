/* SPDX-License-Identifier: MIT */
/*
 * Random numbers that can be repeated: every program prints its seed, and takes one from UFFDWP_SEED. Each thread of a
 * test owns a generator, made from the seed and a salt that says which one it is.
 */
#ifndef SUPPORT_CHANCE_H
#define SUPPORT_CHANCE_H

#include <stddef.h>
#include <stdint.h>

struct chance {
	uint64_t state;
};

/* The seed of this run: UFFDWP_SEED, else one of the clock. The same in all calls, also after fork(). */
uint64_t chance_seed(void);

struct chance chance_new(uint64_t salt);
uint64_t chance_next(struct chance *chance);

/* [0, limit); limit > 0 */
size_t chance_below(struct chance *chance, size_t limit);

void chance_fill(struct chance *chance, void *buffer, size_t length);

#endif
