/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `rearm`: uffd-wp bits on a kernel that forgets them when it empties a page-table entry (a hole punch,
 * swap-out of shmem, MADV_DONTNEED), or does not put them where there is no entry yet.
 *
 * Idea: the range is registered for missing pages, and for minor faults where there is a file, together with write
 * protection. So the kernel fills no empty entry by itself: the first access to one comes to the fault path
 * (fault/empty.c), which looks into the ledger. What the kernel does with a PTE marker is done there.
 *
 * INV-REARM: no access can fill an empty entry of an armed page except through the fault path, and the fault path fills
 * it write-protected, or preserves first.
 *
 * "Write-protected" means in one step: UFFDIO_COPY_MODE_WP, or UFFDIO_CONTINUE_MODE_WP (6.4). Where the latter is not
 * available a page with content cannot be filled so. To map it, protect it and only then wake the reader is not enough:
 * the entry is writable in between, and another thread's store would pass unseen. So such a read counts as a write: the
 * page is preserved, then unprotected.
 *
 * A UFFDIO_CONTINUE without the mode wipes a marker that was there, on every kernel; hence no armed page is ever filled
 * without it.
 */
#include "kernel/abi.h"
#include "region/region.h"

#define FILE_MODES (UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

static int rearm_arm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return mechanism_writeprotect(region, first, end, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int rearm_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return mechanism_writeprotect(region, first, end, 0);
}

const struct mechanism mechanism_rearm = {
        .name = "rearm",
        .id = UFFDWP_MECHANISM_REARM,
        .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_MISSING_SHMEM |
                    UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS |
                    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_POISON,
        .register_modes = {FILE_MODES, FILE_MODES, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING},
        .owns_empty = 1,
        .empty_is_lost = 1,
        .arm = rearm_arm,
        .disarm = rearm_disarm,
        .fill = mechanism_fill,
};
