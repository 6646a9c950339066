/* SPDX-License-Identifier: MIT */
/* Why a region is dead, in words; see region.h. Threads: any. */
#include "region/region.h"

void region_die(struct uffdwp_region *region, enum region_death death)
{
	uint32_t alive = REGION_LIVES;

	atomic_compare_exchange_strong(&region->dead, &alive, (uint32_t)death);
}

const char *region_death(const struct uffdwp_region *region)
{
	switch ((enum region_death)atomic_load(&region->dead)) {
	case REGION_ENDED:
		return "no process that maps the region is left";
	case REGION_CHANGED:
		return "a process that maps the region has unmapped or moved a part of it, or has forked";
	case REGION_SHARED:
		return "a process that maps the region has ended, and another one has its memory still";
	case REGION_UNSERVED:
		return "the region's handler thread died, or could not read its userfaultfd any more";
	case REGION_CLOSED:
		return "the program has closed the region's userfaultfd";
	case REGION_UNREGISTERED:
		return "the registration of the region was taken away";
	case REGION_LIVES:
	case REGION_UNMAPPED:
		break;
	}
	return "the region was unmapped";
}
