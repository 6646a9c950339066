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

enum advice {
	ADVICE_REFUSED, /* EINVAL */
	ADVICE_IGNORED,
	ADVICE_PASSED_ON,
	ADVICE_DISCARDS /* reads as zeros afterwards */
};

enum advice advice_meaning(int advice);

#endif
