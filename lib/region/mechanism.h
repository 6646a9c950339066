/* SPDX-License-Identifier: MIT */
/*
 * The small interface through which a way of catching writes plugs in. A mechanism knows how to put the protection on a
 * run of pages and how to take it off; it keeps no state, the ledger does.
 */
#ifndef UFFDWP_REGION_MECHANISM_H
#define UFFDWP_REGION_MECHANISM_H

#include <stdint.h>

#include "uffdwp.h"

struct mechanism {
	const char *name;
	uint32_t id;                /* enum uffdwp_mechanism */
	uint64_t features;          /* UFFD_FEATURE_* that make it work, where the kernel has them */
	uint64_t register_mode;     /* UFFDIO_REGISTER_MODE_* */
	uint64_t memory_loses_mark; /* bit of enum uffdwp_memory: an EVENT_REMOVE takes the marks of that memory */
	/* Protects pages [first, end). -EAGAIN while an event waits to be read. May have protected a part on failure.
	 */
	int (*arm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
	/* (signal) Takes the protection off and wakes whoever waits there. -EAGAIN as above. */
	int (*disarm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
};

extern const struct mechanism mechanism_marker;

/* By enum uffdwp_mechanism; NULL: not one of ours. */
const struct mechanism *mechanism_by_id(uint32_t id);

#endif
