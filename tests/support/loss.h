/* SPDX-License-Identifier: MIT */
/*
 * Losses, made to order: page-table entries are emptied while their pages are armed. A kernel with PTE markers keeps
 * the wp bit then; what a kernel without them would have left is made by taking the marker off again, by a bare
 * UFFDIO_WRITEPROTECT on the region's own userfaultfd (the library does not know). That is done for `rearm` only, the
 * mechanism that has to live with it, and only where the entry is empty: no kernel clears the wp bit of a page that is
 * there.
 *
 * Threads: none may access the pages meanwhile, else their entries are filled between the two steps.
 */
#ifndef SUPPORT_LOSS_H
#define SUPPORT_LOSS_H

#include <stddef.h>

#include "place.h"

enum loss_kind {
	LOSS_KIND_ZAP,   /* MADV_DONTNEED; the content of anonymous memory goes with it */
	LOSS_KIND_PUNCH, /* a hole in the file; not for anonymous memory */
	LOSS_KIND_SWAP,  /* MADV_PAGEOUT; anonymous memory keeps its wp bits in the swap */
	LOSS_KIND_COUNT
};

const char *loss_name(enum loss_kind kind);

/* 1: this kind can be made of this place. */
int loss_possible(const struct place *place, enum loss_kind kind);

/* Makes the loss of pages [page, page + pages). How many entries lead to no memory then. */
size_t loss_make(const struct place *place, enum loss_kind kind, size_t page, size_t pages);

/* The first step alone: safe beside any access. */
void loss_empty(const struct place *place, enum loss_kind kind, size_t page, size_t pages);

/* Clears the wp bit of a page, whether it is there or not: what no kernel does, and an audit is for. */
void loss_strip(const struct place *place, size_t page, size_t pages);

#endif
