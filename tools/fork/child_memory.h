/* SPDX-License-Identifier: MIT */
/*
 * What the memory calls mean for the region's range in a child of ours.
 *
 * Idea: there the range is a private mapping of the region's file, whose pages the parent breaks off before it writes.
 * A page that the child gives back must not show the file again, which is the parent's memory of today: anonymous
 * memory is mapped over it. New mappings of the child are ordinary ones of the kernel.
 *
 * Threads: any of the child's.
 * Never: a call that reaches the file (MADV_REMOVE), or that shows its present content (MADV_DONTNEED); a page at
 * another address (mremap(2)), where the parent does not find it.
 */
#ifndef UFFDWP_FORK_CHILD_MEMORY_H
#define UFFDWP_FORK_CHILD_MEMORY_H

#include <stddef.h>
#include <stdint.h>

int child_memory_unmap(uint64_t start, uint64_t end);
int child_memory_advise(uint64_t start, uint64_t end, int advice);
int child_memory_protect(uint64_t start, uint64_t end, int protection);
void *child_memory_remap(uint64_t start, uint64_t end, size_t length, int flags, void *to);

/* Another mapping stands at [start, end), made by the program. */
void child_memory_replaced(uint64_t start, uint64_t end);

#endif
