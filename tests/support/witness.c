/* SPDX-License-Identifier: MIT */
/* See witness.h. */
#include "witness.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "support.h"

#define ENTRY_WP ((uint64_t)1 << 57)
#define ENTRY_SWAPPED ((uint64_t)1 << 62)
#define ENTRY_PRESENT ((uint64_t)1 << 63)

static uint64_t entry_of(int pagemap, uintptr_t address)
{
	uint64_t entry = 0;
	uint64_t index = address / (uintptr_t)sysconf(_SC_PAGESIZE);
	must(pread(pagemap, &entry, sizeof(entry), (off_t)(index * sizeof(entry))) == (ssize_t)sizeof(entry));
	return entry;
}

static int open_pagemap(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	must(pagemap >= 0);
	return pagemap;
}

static uint8_t view_of(uint64_t entry)
{
	unsigned view = (entry & ENTRY_WP) != 0 ? WITNESS_WP : 0;
	view |= (entry & ENTRY_PRESENT) != 0 ? WITNESS_PRESENT : 0;
	view |= (entry & ENTRY_SWAPPED) != 0 ? WITNESS_SWAPPED : 0;
	return (uint8_t)view;
}

/* The range that is looked at. */
struct window {
	uintptr_t start;
	uintptr_t end;
	size_t page_bytes;
	uint8_t *views;
};

/* One line of /proc/self/maps: "start-end rwxp ..." */
static void add_mapping(const struct window *window, const char *line)
{
	char *rest = NULL;
	uintptr_t start = (uintptr_t)strtoull(line, &rest, 16);
	uintptr_t end = (uintptr_t)strtoull(rest + 1, &rest, 16);
	unsigned view = WITNESS_MAPPED | (rest[2] == 'w' ? 0 : WITNESS_READ_ONLY);
	for (uintptr_t at = start > window->start ? start : window->start; at < end && at < window->end;
	     at += window->page_bytes) {
		window->views[(at - window->start) / window->page_bytes] |= (uint8_t)view;
	}
}

/* Adds each mapping to the window, where there is one; the number of mappings. */
static size_t each_mapping(const struct window *window)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	must(maps != NULL);
	char line[1024];
	size_t lines = 0;
	for (int whole = 1; fgets(line, sizeof(line), maps) != NULL; whole = strchr(line, '\n') != NULL) {
		if (whole && window != NULL) {
			add_mapping(window, line);
		}
		lines += whole ? 1 : 0;
	}
	(void)fclose(maps);
	return lines;
}

void witness_entries(const void *base, size_t length, size_t page_bytes, uint8_t *views)
{
	int pagemap = open_pagemap();
	for (size_t offset = 0; offset < length; offset += page_bytes) {
		views[offset / page_bytes] = view_of(entry_of(pagemap, (uintptr_t)base + offset));
	}
	close(pagemap);
}

void witness_look(const void *base, size_t length, size_t page_bytes, uint8_t *views)
{
	const struct window window = {(uintptr_t)base, (uintptr_t)base + length, page_bytes, views};
	witness_entries(base, length, page_bytes, views);
	(void)each_mapping(&window);
}

size_t witness_count(const void *base, size_t length, size_t page_bytes, unsigned flags)
{
	uint8_t *views = calloc(length / page_bytes + 1, 1);
	size_t count = 0;
	must(views != NULL);
	witness_look(base, length, page_bytes, views);
	for (size_t page = 0; page < length / page_bytes; page++) {
		count += (views[page] & flags) == flags;
	}
	free(views);
	return count;
}

size_t witness_armed(const void *base, size_t length, size_t page_bytes)
{
	return witness_count(base, length, page_bytes, WITNESS_WP);
}

int witness_swapped(const void *page)
{
	int pagemap = open_pagemap();
	uint64_t entry = entry_of(pagemap, (uintptr_t)page);
	close(pagemap);
	return (entry & ENTRY_SWAPPED) != 0;
}

/* include/uapi/linux/mman.h. In shared memory an evicted page is one in the swap. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

int witness_file_swapped(int fd, size_t offset, size_t length)
{
	const uint64_t range[2] = {offset, length};
	struct {
		uint64_t cache, dirty, writeback, evicted, recently_evicted;
	} counts;
	if (syscall(SYS_cachestat, fd, range, &counts, 0) != 0) {
		return -1;
	}
	return counts.evicted > 0;
}

int witness_zero_page(void)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	volatile uint8_t *page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct page_region found = {0};
	struct pm_scan_arg arg = {.size = sizeof(arg),
	                          .start = (uintptr_t)page,
	                          .end = (uintptr_t)page + page_bytes,
	                          .vec = (uintptr_t)&found,
	                          .vec_len = 1,
	                          .category_mask = PAGE_IS_PFNZERO,
	                          .return_mask = PAGE_IS_PFNZERO};
	int pagemap = open_pagemap();
	must(page != MAP_FAILED && page[0] == 0);
	int ranges = ioctl(pagemap, PAGEMAP_SCAN, &arg);
	close(pagemap);
	must(munmap((void *)(uintptr_t)page, page_bytes) == 0);
	return ranges == 1;
}

size_t witness_mappings(void)
{
	return each_mapping(NULL);
}
