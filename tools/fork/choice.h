/* SPDX-License-Identifier: MIT */
/*
 * Which new mappings go to the region: large private anonymous ones that the program's allocator makes.
 *
 * Idea: the allocator is known by the object that called mmap(2). Others that map memory (stacks, code that is
 * compiled, collectors, sandboxes) do with it what a region cannot do, and have the kernel's. A program whose malloc(3)
 * is the C library's has no such object: the C library's mmap is its own; then all other objects count.
 *
 * The first mappings, up to UFFDWP_FORK_SMALL, are the kernel's, too: a program that stays small forks as ever, because
 * its region is empty.
 *
 * Threads: any, after choice_find().
 */
#ifndef UFFDWP_FORK_CHOICE_H
#define UFFDWP_FORK_CHOICE_H

#include <stddef.h>
#include <stdint.h>

/* Finds the allocator. Before main(), once. 1: malloc(3) is not the C library's. */
int choice_find(void);

/* 0: the mapping is the kernel's; else the alignment that it should have in the region. */
uint64_t choice_make(const void *hint, size_t length, int protection, int flags, const void *caller);

#endif
