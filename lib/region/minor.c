/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `minor`: for shmem and hugetlb where write protection is refused but minor faults are not (Linux 5.14 to
 * 5.18; huge pages 5.18, where MADV_DONTNEED takes them). There is no wp bit: to arm a page is to empty its entry
 * (MADV_DONTNEED keeps the content, which is the file's), and the next access of any kind faults to us. So reads
 * count as writes: a superset, never less.
 *
 * Holes fault as missing pages, hence both modes. To disarm is to map the pages again; a hole is left empty, since
 * filling it would give it memory: an access to it faults once more and is filled then.
 *
 * EVENT_REMOVE is not asked for: our own MADV_DONTNEED would wait for it.
 */
#include <errno.h>
#include <sys/mman.h>

#include "kernel/abi.h"
#include "region/region.h"

static int minor_arm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return kernel_discard(region->k, region_address(region, first), (end - first) << region->page_shift);
}

static int minor_map_run(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t limit = end;

	for (uint64_t page = first; page < end;) {
		int64_t mapped =
		        region->k->uffd_continue(region->uffd, (uintptr_t)region_address(region, page),
		                                 (limit - page) << region->page_shift, UFFDIO_CONTINUE_MODE_DONTWAKE);

		if (mapped == -ENOENT && limit - page > 1) { /* a call must not cross mappings: the half of it */
			limit = page + (limit - page) / 2;
			continue;
		}
		if (mapped == -EAGAIN || mapped == -ENOENT || mapped == -ESRCH)
			return (int)mapped;
		page += mapped > 0 ? (uint64_t)mapped >> region->page_shift : 1;
		limit = end;
	}
	return 0;
}

static int minor_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = minor_map_run(region, first, end);

	if (!error && region->delivery != UFFDWP_DELIVERY_INLINE)
		region->k->uffd_wake(region->uffd, (uintptr_t)region_address(region, first),
		                     (end - first) << region->page_shift);
	return error;
}

static int minor_fill(struct uffdwp_region *region, uint64_t page, int protected)
{
	return protected ? -EOPNOTSUPP : mechanism_fill(region, page, 0);
}

const struct mechanism mechanism_minor = {
        .name = "minor",
        .id = UFFDWP_MECHANISM_MINOR,
        .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM |
                    UFFD_FEATURE_MINOR_HUGETLBFS,
        .register_modes = {UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
                           UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR, 0},
        .owns_empty = 1,
        .arm = minor_arm,
        .disarm = minor_disarm,
        .fill = minor_fill,
};
