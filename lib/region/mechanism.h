/* SPDX-License-Identifier: MIT */
/*
 * The small interface through which a way of catching writes plugs in. A mechanism knows how to put the protection on a
 * run of pages, how to take it off, and how to fill an empty page-table entry where those are its own; it keeps no
 * state, the ledger does.
 */
#ifndef UFFDWP_REGION_MECHANISM_H
#define UFFDWP_REGION_MECHANISM_H

#include <stdint.h>

#include "uffdwp.h"

/* What became of an empty page-table entry. */
enum fill {
	FILL_NOT_EMPTY, /* there is a page already */
	FILL_ZEROS,     /* there was a hole: it reads as zeros now */
	FILL_CONTENT,   /* the page of the file is mapped again */
};

struct mechanism {
	const char *name;
	uint32_t id;                                  /* enum uffdwp_mechanism */
	uint64_t features;                            /* UFFD_FEATURE_* that it works by, where the kernel has them */
	uint64_t register_modes[UFFDWP_MEMORY_COUNT]; /* UFFDIO_REGISTER_MODE_*; all 0: works without a userfaultfd */
	uint64_t memory_loses_mark; /* bit of enum uffdwp_memory: an EVENT_REMOVE takes the marks of that memory */
	int owns_empty;             /* any access to an empty entry faults to us, armed or not */
	int empty_is_lost;          /* an armed page whose entry is empty has lost its mark */

	/* Protects pages [first, end). -EAGAIN while an event waits to be read. May have protected a part on failure.
	 */
	int (*arm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
	/* (signal) Takes the protection off and wakes whoever waits there. -EAGAIN as above. */
	int (*disarm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
	/* (signal) Fills the entry of a page if it is empty, with the protection on or without, in one step; wakes
	 * nobody. enum fill; -EOPNOTSUPP: cannot be done in one step here; -EAGAIN as above; -ENOENT: nothing is
	 * registered there; else the kernel has no page to give. NULL: entries that are empty are the kernel's. */
	int (*fill)(struct uffdwp_region *region, uint64_t page, int protected);
	/* (signal) A power of two: how many pages, aligned, are let go together at least. NULL: one. */
	uint64_t (*grain)(struct uffdwp_region *region);
	/* What grain() may come to until the next arming. NULL: one. */
	uint64_t (*grain_most)(struct uffdwp_region *region);
	/* Of a mechanism without a userfaultfd: the region comes (1) or goes (0). */
	void (*watch)(struct uffdwp_region *region, int on);
	/* Before an arming, while nothing is held: what takes time. NULL: nothing. */
	void (*prepare)(struct uffdwp_region *region);
};

extern const struct mechanism mechanism_marker;
extern const struct mechanism mechanism_rearm;
extern const struct mechanism mechanism_minor;
extern const struct mechanism mechanism_mprotect;

/* By enum uffdwp_mechanism; NULL: not one of ours. */
const struct mechanism *mechanism_by_id(uint32_t id);

/* (signal) UFFDIO_WRITEPROTECT on a run that may span several mappings. */
int mechanism_writeprotect(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t mode);

/* (signal) Fills an empty entry as the memory wants it, for the mechanisms whose entries are their own. `wp`: with the
 * mark on. Results as fill() above. */
int mechanism_fill(struct uffdwp_region *region, uint64_t page, int wp);

#endif
