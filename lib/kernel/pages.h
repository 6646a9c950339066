/* SPDX-License-Identifier: MIT */
/*
 * Pages of our own: memory in mappings of their own, outside the caller's heap, which may lie in a region. Whatever the
 * fault path touches, and whatever is used while faults are stalled, lives in such pages.
 *
 * Threads: any. Not for the fault path itself, which never allocates.
 */
#ifndef UFFDWP_KERNEL_PAGES_H
#define UFFDWP_KERNEL_PAGES_H

#include <stdatomic.h>
#include <stddef.h>

#include "kernel/kernel.h"

/* Zeroed memory of `length` bytes, private and without reserved swap; NULL: the kernel has none. */
void *pages_new(const struct kernel_ops *k, size_t length);

/* Returns memory of pages_new(); NULL is ignored. */
void pages_free(const struct kernel_ops *k, void *memory, size_t length);

/* Touches memory of pages_new(), in transparent huge pages where they are available: later use does not fault. */
void pages_touch(const struct kernel_ops *k, void *memory, size_t length);

/* The same of memory that others use already, piece by piece, so that their faults do not wait for long. Best effort,
 * errors ignored: before Linux 5.14 nothing is touched. Until *stop is not 0 (NULL: never). */
void pages_touch_beside(const struct kernel_ops *k, void *memory, size_t length, const _Atomic int *stop);

#endif
