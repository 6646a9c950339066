/* SPDX-License-Identifier: MIT */
/* What the kernel's own page tables say: the second witness for every claim of the ledger. Lengths in bytes, counts in
 * system pages (a huge page counts for all that it is made of). Only pagemap_read() belongs to the fault path: the
 * calls without a descriptor open a file. */
#ifndef UFFDWP_KERNEL_PAGEMAP_H
#define UFFDWP_KERNEL_PAGEMAP_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

/* /proc/self/pagemap, to be closed by the caller, or -errno. */
int pagemap_open(const struct kernel_ops *k);

/* The words of `count` system pages from `address` on, of an open pagemap. 0, -errno, or -EIO: not all of them.
 * (signal) */
int pagemap_read(const struct kernel_ops *k, int fd, uint64_t address, size_t count, uint64_t *entries);

/* 1: the entry of a private mapping of a file has a page of the process's own, no longer the file's: by bits 63
 * (present), 62 (swapped) and 61 (of a file). (signal) */
static inline int pagemap_is_own(uint64_t entry)
{
	return entry >> 62 && !(entry >> 61 & 1);
}

/* Pages of [start, start + length) with an entry that carries the uffd-wp bit (bit 57; Linux 5.13). 0 or -errno. */
int pagemap_armed(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

/* Pages that have an entry in the page table which leads to memory now (bit 63). 0 or -errno. */
int pagemap_present(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

/* The same by PAGEMAP_SCAN (Linux 6.7; -ENOTTY before): pages that have an entry WITHOUT the wp bit, so that a write
 * would pass unseen. (The scan cannot distinguish a protected page from one that has no entry: it counts neither.) */
int pagemap_written(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages);

/* What one page-table page maps. An entry has the size of a pointer on every architecture that Linux runs userfaultfd
 * on. */
static inline uint64_t pagemap_table_bytes(uint64_t page_bytes)
{
	return page_bytes / sizeof(uint64_t) * page_bytes;
}

#endif
