/* SPDX-License-Identifier: MIT */
/*
 * Memory to measure on: a mapping of one type, every page of it touched, so that no first-touch fault is measured by
 * mistake. Private anonymous memory is mapped without transparent huge pages: all contenders then work in the same
 * unit.
 */
#ifndef UFFDWP_BENCH_AREA_H
#define UFFDWP_BENCH_AREA_H

#include <stddef.h>
#include <stdint.h>
#include <uffdwp.h>

struct area {
	enum uffdwp_memory memory;
	char *base;
	size_t length_bytes;
	size_t page_bytes;
};

/* "shmem", "hugetlb", "anon". */
const char *area_memory_name(enum uffdwp_memory memory);
enum uffdwp_memory area_memory_of(const char *name);

/* Size of a page of this memory. */
size_t area_page_bytes(enum uffdwp_memory memory);

/* Ends the program where the memory is not available. */
void area_map(struct area *area, enum uffdwp_memory memory, size_t length_bytes);
/* The same with one word in each page, for large memory that is not looked at. */
void area_map_touched(struct area *area, enum uffdwp_memory memory, size_t length_bytes);
void area_unmap(struct area *area);

/* Fills memory with words that differ from page to page, so that none is a hole and images differ. */
void area_fill(char *base, size_t length_bytes, uint64_t seed);

#endif
