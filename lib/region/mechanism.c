/* SPDX-License-Identifier: MIT */
/* What mechanisms share; see mechanism.h. Part of the fault path. */
#include "region/mechanism.h"

#include <errno.h>

#include "kernel/abi.h"
#include "region/mapper.h"

/* How often a fill is tried again when content comes or goes under it by another thread. */
#define FILL_TRIES 8

// NOLINTNEXTLINE(misc-no-recursion): halves, at most 32 deep
int mechanism_writeprotect(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t mode)
{
	if (region->mappers)
		return mappers_writeprotect(region, first, end, mode);
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, first);

	int error = region->k->uffd_writeprotect(region->uffd, start, (end - first) << region->page_shift, mode);

	if (error != -ENOENT || end - first < 2)
		return error;
	/* Before 6.4 a call must not cross mappings, and the caller may have split its own by mprotect(2) or
	 * mlock(2). */
	uint64_t middle = first + (end - first) / 2;
	int left = mechanism_writeprotect(region, first, middle, mode);
	int right = mechanism_writeprotect(region, middle, end, mode);

	return left ? left : right;
}

static int mechanism_copy_zeros(struct uffdwp_region *region, uint64_t page, int wp)
{
	uint64_t mode = UFFDIO_COPY_MODE_DONTWAKE | (wp ? UFFDIO_COPY_MODE_WP : 0);

	if (region->mappers)
		return mappers_copy_zeros(region, page, mode);
	return region->k->uffd_copy(region->uffd, (uint64_t)(uintptr_t)region_address(region, page),
	                            atomic_load(&region->zeros), region->page_bytes, mode);
}

static int mechanism_map_zeros(struct uffdwp_region *region, uint64_t page)
{
	if (region->mappers)
		return mappers_zeropage(region, page, UFFDIO_ZEROPAGE_MODE_DONTWAKE);
	return region->k->uffd_zeropage(region->uffd, (uint64_t)(uintptr_t)region_address(region, page),
	                                region->page_bytes, UFFDIO_ZEROPAGE_MODE_DONTWAKE);
}

/* The kernel maps its zero page where it can; huge pages it cannot, and never with a wp bit. 0, or -errno. */
static int mechanism_fill_hole(struct uffdwp_region *region, uint64_t page, int wp)
{
	int is_copied = wp || region->memory == UFFDWP_MEMORY_HUGETLB;
	int filled = is_copied ? mechanism_copy_zeros(region, page, wp) : mechanism_map_zeros(region, page);

	return filled > 0 ? 0 : filled;
}

static int64_t mechanism_fill_content(struct uffdwp_region *region, uint64_t page, int wp)
{
	uint64_t mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (wp ? UFFDIO_CONTINUE_MODE_WP : 0);

	if (region->mappers)
		return mappers_continue(region, page, mode);
	return region->k->uffd_continue(region->uffd, (uint64_t)(uintptr_t)region_address(region, page),
	                                region->page_bytes, mode);
}

/* Content first: the kernel says cheaply that there is none. A hole that cannot be filled for content that just came is
 * tried once more. */
static int mechanism_fill_file(struct uffdwp_region *region, uint64_t page, int wp)
{
	for (int i = 0; i < FILL_TRIES; i++) {
		int64_t filled = mechanism_fill_content(region, page, wp);

		if (filled > 0)
			return FILL_CONTENT;
		if (filled != -EFAULT)
			return filled == -EEXIST ? FILL_NOT_EMPTY : (int)filled;
		int error = mechanism_fill_hole(region, page, wp);

		if (error != -EEXIST)
			return error ? error : FILL_ZEROS;
	}
	return -EAGAIN;
}

/* Without UFFDIO_CONTINUE_MODE_WP only a hole can be filled with the wp bit set. */
static int mechanism_fill_file_by_copy(struct uffdwp_region *region, uint64_t page)
{
	int error = mechanism_fill_hole(region, page, 1);

	if (error == -EEXIST)
		return -EOPNOTSUPP;
	return error ? error : FILL_ZEROS;
}

int mechanism_fill(struct uffdwp_region *region, uint64_t page, int wp)
{
	if (region->memory == UFFDWP_MEMORY_ANON || region->is_private) {
		int error = mechanism_fill_hole(region, page, wp);

		if (error == -EEXIST)
			return FILL_NOT_EMPTY;
		return error ? error : FILL_ZEROS;
	}
	if (wp && !(region->fills & UFFDWP_PROBE_FILL_CONTINUE_WP))
		return mechanism_fill_file_by_copy(region, page);
	return mechanism_fill_file(region, page, wp);
}

void mechanism_fill_run(struct uffdwp_region *region, uint64_t first, uint64_t end, int wp)
{
	uint64_t mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (wp ? UFFDIO_CONTINUE_MODE_WP : 0);

	if (region->mappers) {
		for (uint64_t page = first; page < end; page++)
			(void)mappers_continue(region, page, mode);
		return;
	}
	for (uint64_t page = first; page < end;) {
		uint64_t start = (uint64_t)(uintptr_t)region_address(region, page);
		int64_t filled =
		        region->k->uffd_continue(region->uffd, start, (end - page) << region->page_shift, mode);

		if (filled < 0 && filled != -EEXIST && filled != -EFAULT)
			return;
		page += filled > 0 ? (uint64_t)filled >> region->page_shift : 1;
	}
}

uint64_t mechanism_in_memory(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	unsigned char in_memory[64];
	uint64_t bits = 0;

	if (region->k->mincore(region_address(region, first), (end - first) << region->page_shift, in_memory))
		return 0;
	for (uint64_t page = first; page < end; page++)
		bits |= (uint64_t)(in_memory[page - first] & 1) << (page - first);
	return bits;
}
