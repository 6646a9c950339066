/* SPDX-License-Identifier: MIT */
/*
 * How a region is registered with its uffd: in the modes of its mechanism, and while its empty entries are ours for
 * missing pages and minor faults, too. What is done before an arming. See region.h.
 *
 * Threads: a caller that holds the region's lock; the one that opens or closes the region.
 */
#include <sys/mman.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "region/mapper.h"

static uint64_t region_modes(const struct uffdwp_region *region)
{
	uint64_t modes =
	        region->is_private ? UFFDIO_REGISTER_MODE_MISSING : region->mechanism->register_modes[region->memory];

	if (region_owns_empty(region) && region->memory == UFFDWP_MEMORY_SHMEM)
		modes |= UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
	return modes;
}

int region_register(struct uffdwp_region *region)
{
	int error = region->mappers
	                    ? mappers_register(region, region_modes(region))
	                    : region->k->uffd_register(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                                               region->capacity_bytes, region_modes(region));

	if (error == -EBUSY)
		return text_fail(region->text, error, "another userfaultfd is registered in this range");
	if (error)
		return text_fail(region->text, error, "registering the range for write protection was refused: %s",
		                 errno_text(error));
	return 0;
}

/* Down before: a page that is taken out meanwhile raises it again. */
int region_mend(struct uffdwp_region *region)
{
	int error = atomic_exchange(&region->torn, 0) ? region_register(region) : 0;

	if (error)
		atomic_store(&region->torn, 1);
	return error;
}

int region_open_zeros(struct uffdwp_region *region)
{
	if (!atomic_load(&region->zeros))
		atomic_store(&region->zeros, pages_new(region->k, region->page_bytes));
	return atomic_load(&region->zeros) ? 0
	                                   : text_fail(region->text, -ENOMEM, "no address space for a page of zeros");
}

/* The flag is up before the first event can come; a fault that was met before knows nothing of it, and is met again. */
int region_own_empty(struct uffdwp_region *region)
{
	int error = region_owns_empty(region) ? 0 : region_open_zeros(region);

	if (error || atomic_exchange(&region->owns_empty, 1))
		return error;
	atomic_store(&region->torn, 1);
	return region_mend(
	        region); /* where it fails a part may be registered so: the flag stays, which is right, too */
}

/* The kernel takes no mode away from a registration, so that it is ended and begun anew. While a part is out, `torn`
 * has the next arming register all of it again, in all modes: empty entries stay ours until the last part is out. */
int region_disown_piece(struct uffdwp_region *region, uint64_t *offset)
{
	uint64_t length = atomic_load(&region->length_bytes);
	uint64_t piece = *offset < length ? math_min_u64(region_piece_bytes(region), length - *offset)
	                                  : region->capacity_bytes - *offset;

	if (*offset && !atomic_load(&region->torn)) /* it is registered again */
		return 0;
	atomic_store(&region->torn, 1);
	if (region->k->uffd_unregister(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0) + *offset, piece))
		return 0;
	*offset += piece;
	if (*offset < region->capacity_bytes)
		return 1;
	atomic_store(&region->owns_empty, 0);
	(void)region_mend(region);
	return 0;
}

void region_unregister(struct uffdwp_region *region)
{
	if (region->mappers) {
		mappers_unregister(region);
		return;
	}
	if (region->uffd < 0) {
		region->mechanism->disarm(region, 0, region->ledger.count);
		return;
	}
	region->k->uffd_unregister(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                           region->capacity_bytes);
}

/*
 * KSM replaces pages that are alike by one, and drops their wp bits: the owner may have asked for it by MADV_MERGEABLE,
 * or for all of the process by PR_SET_MEMORY_MERGE. Best effort: a thread that reads pages looks at their wp bits.
 */
static void region_stop_merging(struct uffdwp_region *region)
{
	if (region_may_merge(region) && atomic_exchange(&region->merges, 0))
		region->k->madvise(region_address(region, 0), region->capacity_bytes, MADV_UNMERGEABLE);
}

/* Whether the kernel has MADV_POPULATE_WRITE, on a page that allows it. */
static void region_try_populate(struct uffdwp_region *region)
{
	void *page = region->uffd < 0 && !region->shows_writable ? pages_new(region->k, region->page_bytes) : NULL;

	if (page)
		region->shows_writable = region->k->madvise(page, region->page_bytes, MADV_POPULATE_WRITE) == 0;
	pages_free(region->k, page, region->page_bytes);
}

/* Mechanism minor arms without its uffd: a filter that the program has installed since may forbid ioctl(2), and with it
 * all that ends a fault. */
static int region_try_uffd(struct uffdwp_region *region)
{
	int arms_by_uffd = (int)(region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP) != 0;
	int error = region->uffd < 0 || arms_by_uffd
	                    ? 0
	                    : region->k->uffd_wake(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                                           region->page_bytes);

	return error ? text_fail(region->text, error, "the kernel refuses calls of the region's userfaultfd: %s",
	                         errno_text(error))
	             : 0;
}

int region_prepare(struct uffdwp_region *region)
{
	region_stop_merging(region);
	region_try_populate(region);
	int error = region_mend(region);

	if (!error)
		error = region_try_uffd(region);
	if (!error && region->mechanism->prepare)
		region->mechanism->prepare(region);
	return error;
}
