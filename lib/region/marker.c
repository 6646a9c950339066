/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `marker`: uffd-wp marks that survive when a page-table entry is emptied (PTE markers, Linux 5.19 for shmem
 * and hugetlb; UFFD_FEATURE_WP_UNPOPULATED, 6.4, for anonymous memory never touched). One system call a run of pages.
 *
 * MADV_DONTNEED on anonymous memory takes mark and content; the kernel's event says so and the ledger follows.
 */
#include <errno.h>

#include "kernel/abi.h"
#include "region/region.h"

// NOLINTNEXTLINE(misc-no-recursion): halves, at most 32 deep
static int marker_protect(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t mode)
{
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, first);

	int error = region->k->uffd_writeprotect(region->uffd, start, (end - first) << region->page_shift, mode);

	if (error != -ENOENT || end - first < 2)
		return error;
	/* Before 6.4 a call must not cross mappings, and the caller may have split his by mprotect(2) or mlock(2). */
	uint64_t middle = first + (end - first) / 2;
	int left = marker_protect(region, first, middle, mode);
	int right = marker_protect(region, middle, end, mode);

	return left ? left : right;
}

static int marker_arm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return marker_protect(region, first, end, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int marker_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return marker_protect(region, first, end, 0);
}

const struct mechanism mechanism_marker = {
        .name = "marker",
        .id = UFFDWP_MECHANISM_MARKER,
        .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED,
        .register_mode = UFFDIO_REGISTER_MODE_WP,
        .memory_loses_mark = 1u << UFFDWP_MEMORY_ANON,
        .arm = marker_arm,
        .disarm = marker_disarm,
};

const struct mechanism *mechanism_by_id(uint32_t id)
{
	static const struct mechanism *const all[] = {&mechanism_marker};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (all[i]->id == id)
			return all[i];
	}
	return NULL;
}
