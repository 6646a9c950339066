/* SPDX-License-Identifier: MIT */
/*
 * Arming and disarming a range because the caller of the library asks for it, without a snapshot.
 *
 * Threads: any but a writer inside the epoch; takes the region's lock.
 */
#ifndef UFFDWP_FAULT_ARM_H
#define UFFDWP_FAULT_ARM_H

#include "region/region.h"

/* Arms or disarms pages [first, end) while faults are stalled, so that none of a moment ago undoes it. 0; -EBUSY: a
 * snapshot or a track has the region; -errno of the kernel, and nothing of the range is armed; with text. */
int arm_pages(struct uffdwp_region *region, uint64_t first, uint64_t end);
int arm_undo(struct uffdwp_region *region, uint64_t first, uint64_t end);

#endif
