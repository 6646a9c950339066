/* SPDX-License-Identifier: MIT */
/*
 * The second witness: what the kernel says of a page, read with code of the tests and not of the library. The page
 * tables say it in /proc/self/pagemap (bit 57 is the uffd-wp bit; there is no such bit before Linux 5.13), the mappings
 * in /proc/self/maps.
 */
#ifndef SUPPORT_WITNESS_H
#define SUPPORT_WITNESS_H

#include <stddef.h>
#include <stdint.h>

#define WITNESS_WP 1u        /* carries the wp bit */
#define WITNESS_PRESENT 2u   /* its entry leads to memory */
#define WITNESS_SWAPPED 4u   /* its entry leads to the swap (shared memory leaves that to its file), or is a marker */
#define WITNESS_READ_ONLY 8u /* its mapping allows no write */
#define WITNESS_MAPPED 16u   /* there is a mapping */

/* What is seen of each page of [base, base + length), into views[]; page_bytes is the granularity of arming. */
void witness_look(const void *base, size_t length, size_t page_bytes, uint8_t *views);

/* The same without the mappings: faster. */
void witness_entries(const void *base, size_t length, size_t page_bytes, uint8_t *views);

/* Pages of [base, base + length) of which all of `flags` are seen. */
size_t witness_count(const void *base, size_t length, size_t page_bytes, unsigned flags);

/* Pages of [base, base + length) that carry the wp bit. */
size_t witness_armed(const void *base, size_t length, size_t page_bytes);

/* 1: the page table says that the page is in the swap. */
int witness_swapped(const void *page);

/* 1: the page of the file is in the swap, as cachestat(2) says (Linux 6.5); -1: this kernel does not say. */
int witness_file_swapped(int fd, size_t offset, size_t length);

/* 1: a read of private memory that was never written maps the shared zero page, which PAGEMAP_SCAN distinguishes; 0:
 * the kernel gives such a page memory of its own at once, so that nothing distinguishes it from a page that zeros were
 * written to, or does not say. */
int witness_zero_page(void);

/* How many mappings this process has. */
size_t witness_mappings(void);

#endif
