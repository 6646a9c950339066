/* SPDX-License-Identifier: MIT */
/*
 * Which pages of a memory came: a bit each, and above them a bit for each word that is not empty, and so on, so that
 * few pages of a huge memory are found at once. All of it is address space until it is used.
 *
 * Threads: one at a time.
 */
#ifndef UFFDWP_IMAGE_PAGE_SET_H
#define UFFDWP_IMAGE_PAGE_SET_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

#define PAGE_SET_LEVELS 8 /* 64^8 pages: more than there are addresses */

struct page_set {
	uint64_t *levels[PAGE_SET_LEVELS]; /* of single pages first; all in one piece of memory */
	size_t bytes;                      /* of that */
};

/* For pages below pages_most. 0 or -ENOMEM. */
int page_set_open(struct page_set *set, const struct kernel_ops *k, uint64_t pages_most);
void page_set_close(struct page_set *set, const struct kernel_ops *k);

/* 1: it was there before. */
int page_set_add(struct page_set *set, uint64_t page);

/* The first page of the set in [*page, end), where `end` is at most pages_most: 1; 0: there is none. */
int page_set_next(const struct page_set *set, uint64_t *page, uint64_t end);

#endif
