/* SPDX-License-Identifier: MIT */
/*
 * Memory for what serves a region, and what of it a snapshot leaves to the next. See region.h.
 *
 * Threads: any, by the region's lock.
 */
#include "kernel/pages.h"
#include "region/region.h"

void *region_pages_new(const struct uffdwp_region *region, size_t length)
{
	void *memory = pages_new(region->k, length);

	if (memory && region->numa_mode)
		region->k->mbind(memory, length, region->numa_mode,
		                 region->numa_nodes); /* best effort, errors ignored */
	return memory;
}

void *region_spare_take(struct uffdwp_region *region, size_t length)
{
	void *memory = NULL;

	lock_take(&region->lock);
	for (unsigned i = 0; i < REGION_SPARES && !memory; i++) {
		struct region_spare *spare = &region->spares[i];

		if (spare->memory && spare->length == length) {
			memory = spare->memory;
			spare->memory = NULL;
		}
	}
	lock_give(&region->lock);
	return memory;
}

void region_spare_give(struct uffdwp_region *region, void *memory, size_t length)
{
	lock_take(&region->lock);
	for (unsigned i = 0; i < REGION_SPARES && memory; i++) {
		struct region_spare *spare = &region->spares[i];

		if (!spare->memory) {
			*spare = (struct region_spare){memory, length};
			memory = NULL;
		}
	}
	lock_give(&region->lock);
	pages_free(region->k, memory, length);
}

void region_spare_forget(struct uffdwp_region *region)
{
	struct region_spare left[REGION_SPARES];

	lock_take(&region->lock);
	for (unsigned i = 0; i < REGION_SPARES; i++) {
		left[i] = region->spares[i];
		region->spares[i].memory = NULL;
	}
	lock_give(&region->lock);
	for (unsigned i = 0; i < REGION_SPARES; i++)
		pages_free(region->k, left[i].memory, left[i].length);
}
