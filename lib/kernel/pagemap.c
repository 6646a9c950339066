/* SPDX-License-Identifier: MIT */
/*
 * Reading /proc/self/pagemap: one 64-bit word a page (Documentation/admin-guide/mm/pagemap.rst), and the ioctl
 * PAGEMAP_SCAN on the same file, which gives ranges instead of words.
 *
 * Idea: a witness looks and changes nothing. So no flag that arms is ever given to the scan.
 *
 * Threads: any. What other threads do meanwhile is seen or not.
 */
#include "kernel/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "kernel/abi.h"

#define ENTRIES 512
#define REGIONS 64

static int open_pagemap(const struct kernel_ops *k)
{
	return k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
}

static uint64_t system_page_bytes(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t count_bit(const uint64_t *entries, size_t count, uint64_t bit)
{
	uint64_t found = 0;

	for (size_t i = 0; i < count; i++)
		found += (entries[i] & bit) != 0;
	return found;
}

/* Counts the words of pages [first, end) that have the bit. */
static int count_pages(const struct kernel_ops *k, int fd, uint64_t first, uint64_t end, uint64_t bit, uint64_t *pages)
{
	uint64_t entries[ENTRIES];
	uint64_t found = 0;

	while (first < end) {
		uint64_t want = end - first < ENTRIES ? end - first : ENTRIES;
		ssize_t got = k->pread(fd, entries, want * sizeof entries[0], first * sizeof entries[0]);

		if (got < (ssize_t)sizeof entries[0])
			return got < 0 ? (int)got : -EIO;
		found += count_bit(entries, (size_t)got / sizeof entries[0], bit);
		first += (uint64_t)got / sizeof entries[0];
	}
	*pages = found;
	return 0;
}

static int count(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t bit, uint64_t *pages)
{
	uint64_t page_bytes = system_page_bytes();
	int fd = open_pagemap(k);
	int error;

	if (fd < 0)
		return fd;
	error = count_pages(k, fd, start / page_bytes, (start + length) / page_bytes, bit, pages);
	k->close(fd);
	return error;
}

int pagemap_armed(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	return count(k, start, length, PAGEMAP_UFFD_WP, pages);
}

int pagemap_present(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	return count(k, start, length, PAGEMAP_PRESENT, pages);
}

static uint64_t region_bytes(const struct page_region *regions, int count)
{
	uint64_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += regions[i].end - regions[i].start;
	return bytes;
}

static int scan(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end, uint64_t *bytes)
{
	struct page_region regions[REGIONS];
	uint64_t found = 0;

	while (start < end) {
		struct pm_scan_arg arg = {.size = sizeof arg,
		                          .start = start,
		                          .end = end,
		                          .vec = (uintptr_t)regions,
		                          .vec_len = REGIONS,
		                          .category_mask = PAGE_IS_WRITTEN,
		                          .return_mask = PAGE_IS_WRITTEN};
		int got = k->pagemap_scan(fd, &arg);

		if (got < 0)
			return got;
		if (arg.walk_end <= start)
			return -EIO;
		found += region_bytes(regions, got);
		start = arg.walk_end;
	}
	*bytes = found;
	return 0;
}

int pagemap_written(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	uint64_t bytes;
	int fd = open_pagemap(k);
	int error;

	if (fd < 0)
		return fd;
	error = scan(k, fd, start, start + length, &bytes);
	k->close(fd);
	if (error)
		return error;
	*pages = bytes / system_page_bytes();
	return 0;
}
