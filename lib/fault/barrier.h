/* SPDX-License-Identifier: MIT */
/*
 * What the caller of the library announces: writes to pages, reads by system calls, and the discard of pages. What is
 * armed of them is preserved before it is written or discarded.
 *
 * Threads: barrier_prepare() and barrier_prepare_read() any, also in a signal handler. barrier_punch() any but a signal
 * handler; it takes the region's lock.
 */
#ifndef UFFDWP_FAULT_BARRIER_H
#define UFFDWP_FAULT_BARRIER_H

#include "region/region.h"

/* 1: pages [first, end) may be written without a barrier. (signal) */
int barrier_is_open(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* Pages [first, end) can be written without a fault when it returns. Waits as long as that takes. 0, or the -errno of a
 * page that a restore could not fetch. (signal) */
int barrier_prepare(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* The entries of pages [first, end) are filled when it returns, where a system call that reads could not wait for that;
 * what is armed stays armed. As above. (signal) */
int barrier_prepare_read(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* Discards pages [first, end), after what a running snapshot needs of them was preserved. 0 or -errno, with text. */
int barrier_punch(struct uffdwp_region *region, uint64_t first, uint64_t end);

#endif
