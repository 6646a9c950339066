/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `marker`: uffd-wp bits that survive when a page-table entry is emptied (PTE markers, Linux 5.19 for shmem
 * and hugetlb; UFFD_FEATURE_WP_UNPOPULATED, 6.4, for anonymous memory never touched). One system call a run of pages.
 *
 * Empty entries are the kernel's, until page tables are moved away (region/tables.h): from then on, while anything is
 * armed, the region is registered for them, too, and they are filled as mechanism rearm does it (rearm.c).
 *
 * MADV_DONTNEED on anonymous memory takes wp bit and content; the kernel's event says so and the ledger follows.
 */
#include "kernel/abi.h"
#include "region/region.h"

static int marker_arm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return mechanism_writeprotect(region, first, end, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int marker_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return mechanism_writeprotect(region, first, end, 0);
}

const struct mechanism mechanism_marker = {
        .name = "marker",
        .id = UFFDWP_MECHANISM_MARKER,
        .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED |
                    UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_EVENT_REMOVE,
        .register_modes = {UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_WP},
        .memory_loses_wp_bit = 1u << UFFDWP_MEMORY_ANON,
        .arm = marker_arm,
        .disarm = marker_disarm,
        .fill = mechanism_fill,
};
