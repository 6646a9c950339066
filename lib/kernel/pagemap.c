/* SPDX-License-Identifier: MIT */
/*
 * Reading /proc/self/pagemap: one 64-bit word a page (Documentation/admin-guide/mm/pagemap.rst), and the ioctl
 * PAGEMAP_SCAN on the same file, which gives ranges instead of words.
 *
 * Idea: a witness looks and changes nothing. So no flag that arms is ever given to the scan. All of the library that
 * reads words reads them by pagemap_read().
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

int pagemap_open(const struct kernel_ops *k)
{
	return k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
}

static uint64_t pagemap_system_page_bytes(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t pagemap_count_bit(const uint64_t *entries, size_t count, uint64_t bit)
{
	uint64_t found = 0;

	for (size_t i = 0; i < count; i++)
		found += (entries[i] & bit) != 0;
	return found;
}

int pagemap_read(const struct kernel_ops *k, int fd, uint64_t address, size_t count, uint64_t *entries)
{
	size_t length = count * sizeof entries[0];
	ssize_t got = k->pread(fd, entries, length, address / pagemap_system_page_bytes() * sizeof entries[0]);

	if (got == (ssize_t)length)
		return 0;
	return got < 0 ? (int)got : -EIO;
}

/* Counts the words of [start, end) that have the bit. */
static int pagemap_count_pages(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end, uint64_t bit,
                               uint64_t *pages)
{
	uint64_t page_bytes = pagemap_system_page_bytes();
	uint64_t entries[ENTRIES];

	*pages = 0;
	for (uint64_t want; start < end; start += want * page_bytes) {
		want = (end - start) / page_bytes < ENTRIES ? (end - start) / page_bytes : ENTRIES;
		int error = pagemap_read(k, fd, start, want, entries);

		if (error)
			return error;
		*pages += pagemap_count_bit(entries, want, bit);
	}
	return 0;
}

static int pagemap_count(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t bit, uint64_t *pages)
{
	int fd = pagemap_open(k);

	if (fd < 0)
		return fd;
	int error = pagemap_count_pages(k, fd, start, start + length, bit, pages);

	k->close(fd);
	return error;
}

int pagemap_armed(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	return pagemap_count(k, start, length, PAGEMAP_UFFD_WP, pages);
}

int pagemap_present(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	return pagemap_count(k, start, length, PAGEMAP_PRESENT, pages);
}

static uint64_t pagemap_region_bytes(const struct page_region *regions, int count)
{
	uint64_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += regions[i].end - regions[i].start;
	return bytes;
}

static int pagemap_scan_ioctl(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end, uint64_t *bytes)
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
		found += pagemap_region_bytes(regions, got);
		start = arg.walk_end;
	}
	*bytes = found;
	return 0;
}

int pagemap_written(const struct kernel_ops *k, uint64_t start, uint64_t length, uint64_t *pages)
{
	uint64_t bytes;
	int fd = pagemap_open(k);
	int error;

	if (fd < 0)
		return fd;
	error = pagemap_scan_ioctl(k, fd, start, start + length, &bytes);
	k->close(fd);
	if (error)
		return error;
	*pages = bytes / pagemap_system_page_bytes();
	return 0;
}
