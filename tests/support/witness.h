/* SPDX-License-Identifier: MIT */
/*
 * The second witness: what the kernel's page tables say of an armed page, by bit 57 of /proc/self/pagemap, read with
 * code of the tests and not of the library. It says nothing on kernels before 5.13.
 */
#ifndef SUPPORT_WITNESS_H
#define SUPPORT_WITNESS_H

#include <stddef.h>

/* Pages of [base, base + length) that carry the mark; page_bytes is the granularity of arming. */
size_t witness_armed(const void *base, size_t length, size_t page_bytes);

/* 1: the page table says that the page is in the swap. (Shared memory leaves that to its file: 0.) */
int witness_swapped(const void *page);

#endif
