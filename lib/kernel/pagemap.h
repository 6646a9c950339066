/* SPDX-License-Identifier: MIT */
/* What the kernel's own page tables say: the second witness for every claim of the ledger. Lengths in bytes, counts in
 * system pages (a huge page counts for all that it is made of). Not for the fault path: each call opens a file. */
#ifndef UFFDWP_KERNEL_PAGEMAP_H
#define UFFDWP_KERNEL_PAGEMAP_H

#include <stdint.h>

#include "kernel/kernel.h"

/* Pages of [start, start + length) whose entry carries the write-protection mark (bit 57; Linux 5.13). 0 or -errno. */
int pagemap_armed(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

/* Pages that have an entry in the page table which leads to memory now (bit 63). 0 or -errno. */
int pagemap_present(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

/* The same by another road, PAGEMAP_SCAN (Linux 6.7; -ENOTTY before): pages that have an entry WITHOUT the mark, so
 * that a write would pass unseen. (The scan cannot tell a marked page from one that has no entry: it counts neither.)
 */
int pagemap_written(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

#endif
