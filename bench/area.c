/* SPDX-License-Identifier: MIT */
/*
 * See area.h. The default huge page size is what /proc/meminfo says.
 */
#include "area.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define MEMORIES 3

static const char *const names[MEMORIES] = {"shmem", "hugetlb", "anon"};
static const int map_flags[MEMORIES] = {
        MAP_SHARED | MAP_ANONYMOUS,
        MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB,
        MAP_PRIVATE | MAP_ANONYMOUS,
};

const char *area_memory_name(enum uffdwp_memory memory)
{
	return names[memory];
}

enum uffdwp_memory area_memory_of(const char *name)
{
	for (int i = 0; i < MEMORIES; i++) {
		if (!strcmp(name, names[i]))
			return (enum uffdwp_memory)i;
	}
	bench_die("%s: no such memory; shmem, hugetlb or anon", name);
}

static size_t huge_page_bytes(void)
{
	uint64_t bytes = bench_meminfo_bytes("Hugepagesize");

	if (!bytes)
		bench_skip("this kernel has no huge pages");
	return bytes;
}

size_t area_page_bytes(enum uffdwp_memory memory)
{
	return memory == UFFDWP_MEMORY_HUGETLB ? huge_page_bytes() : (size_t)sysconf(_SC_PAGESIZE);
}

static void map(struct area *area, enum uffdwp_memory memory, size_t length_bytes)
{
	void *base = mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, map_flags[memory], -1, 0);

	if (base == MAP_FAILED)
		bench_skip("no %zu bytes of %s memory: %s", length_bytes, names[memory], strerror(errno));
	if (memory != UFFDWP_MEMORY_HUGETLB)
		madvise(base, length_bytes, MADV_NOHUGEPAGE);
	area->memory = memory;
	area->base = base;
	area->length_bytes = length_bytes;
	area->page_bytes = area_page_bytes(memory);
}

void area_map(struct area *area, enum uffdwp_memory memory, size_t length_bytes)
{
	map(area, memory, length_bytes);
	area_fill(area->base, length_bytes, 1);
}

void area_map_touched(struct area *area, enum uffdwp_memory memory, size_t length_bytes)
{
	map(area, memory, length_bytes);
	for (size_t at = 0; at < length_bytes; at += area->page_bytes)
		area_fill(area->base + at, sizeof(uint64_t), at + 1);
}

void area_unmap(struct area *area)
{
	munmap(area->base, area->length_bytes);
	area->base = NULL;
}

void area_fill(char *base, size_t length_bytes, uint64_t seed)
{
	uint64_t state = seed * 2 + 1;

	for (size_t at = 0; at < length_bytes; at += sizeof(state)) {
		uint64_t word = bench_random(&state);

		memcpy(base + at, &word, sizeof(word));
	}
}
