/* SPDX-License-Identifier: MIT */
/*
 * What a piece of advice to madvise(2) means for memory of the region.
 *
 * Advice that is a flag of the mapping would split the region, whose page tables could not be moved at once any more;
 * all of it is a hint that may be ignored, and is. What changes what a child sees, or what the kernel refuses for
 * memory that is not private and anonymous, is refused.
 *
 * Threads: any, nothing is kept.
 */
#ifndef UFFDWP_FORK_ADVICE_H
#define UFFDWP_FORK_ADVICE_H

#include <stdint.h>

/* Does so to the range [start, end) of the region: `zero` has it read as zeros. 0, or -1 and errno. */
int advice_apply(uint64_t start, uint64_t end, int advice, void (*zero)(uint64_t start, uint64_t end));

#endif
