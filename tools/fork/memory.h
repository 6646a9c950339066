/* SPDX-License-Identifier: MIT */
/*
 * What the memory calls mean for the region, in the process that has it: answers are those that the kernel gives for
 * private anonymous memory.
 *
 * Idea: a mapping is a part of the arena; what is unmapped or discarded is punched out of the file after the children
 * have got what they still share of it (uffdwp_region_punch()). What would split the region's mapping without need
 * (advice by flags) is accepted and not passed on. mprotect(2) is passed on, because guard pages must guard: a region
 * that is split so forks more slowly.
 *
 * Offsets and lengths are multiples of the page size within the region; 0 or -1 and errno, or as said.
 *
 * Threads: any.
 * Never: content of one mapping in another one. So a range is punched before it is free.
 */
#ifndef UFFDWP_FORK_MEMORY_H
#define UFFDWP_FORK_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* A new mapping, or NULL: the kernel's then. */
void *memory_map(uint64_t length, uint64_t alignment, int populate);

/* mmap(2) with MAP_FIXED of private anonymous memory: zeros. */
int memory_map_over(uint64_t start, uint64_t end, int protection);

int memory_unmap(uint64_t start, uint64_t end);
int memory_advise(uint64_t start, uint64_t end, int advice);
int memory_protect(uint64_t start, uint64_t end, int protection);

/* mremap(2) of a range of the region; MAP_FAILED and errno. `to`: where MREMAP_FIXED wants it. */
void *memory_remap(uint64_t start, uint64_t end, size_t length, int flags, void *to);

#endif
