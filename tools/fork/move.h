/* SPDX-License-Identifier: MIT */
/*
 * mremap(2) of a range of the region to another place: a copy, since the region's pages stay at their addresses.
 *
 * Threads: any; others have no use for a range that is being moved.
 */
#ifndef UFFDWP_FORK_MOVE_H
#define UFFDWP_FORK_MOVE_H

#include <stdint.h>

/* Copies [start, end), as far as `length` goes, to `place`, which is readable and writable and gets the same rights;
 * the range itself is left readable and writable. 0; or -errno, and the range has its rights. */
int move_content(uint64_t start, uint64_t end, char *place, uint64_t length);

#endif
