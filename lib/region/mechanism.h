/* SPDX-License-Identifier: MIT */
/*
 * The small interface through which a method to catch writes plugs in. A mechanism knows how to put the protection on a
 * run of pages, how to take it off, and how to fill an empty page-table entry where those are its own; it keeps no
 * state, the ledger does.
 */
#ifndef UFFDWP_REGION_MECHANISM_H
#define UFFDWP_REGION_MECHANISM_H

#include <stdint.h>

#include "base/counts.h"
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
	uint64_t memory_loses_wp_bit; /* bit of enum uffdwp_memory: an EVENT_REMOVE takes the wp bits of that memory */
	int owns_empty;               /* any access to an empty entry faults to us, armed or not, at all times */
	int empty_is_lost;            /* an armed page with an empty entry has lost its wp bit */

	/* Protects pages [first, end). -EAGAIN while an event waits to be read. May have protected a part on failure.
	 */
	int (*arm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
	/* (signal) Takes the protection off and wakes the threads that wait there. -EAGAIN as above. */
	int (*disarm)(struct uffdwp_region *region, uint64_t first, uint64_t end);
	/* (signal) Fills the entry of a page if it is empty, with the protection on or without, in one step; wakes no
	 * thread. enum fill; -EOPNOTSUPP: cannot be done in one step here; -EAGAIN as above; -ENOENT: nothing is
	 * registered there; else the kernel has no page to give. NULL: entries that are empty are always the kernel's.
	 */
	int (*fill)(struct uffdwp_region *region, uint64_t page, int protected);
	/* (signal) A power of two: how many pages, aligned, are unprotected together at least. NULL: one. */
	uint64_t (*granularity)(struct uffdwp_region *region);
	/* The most that granularity() may return until the next arming. NULL: one. */
	uint64_t (*granularity_most)(struct uffdwp_region *region);
	/* Mechanisms without a userfaultfd only: the region comes (1) or goes (0). */
	void (*watch)(struct uffdwp_region *region, int on);
	/* Before an arming, while no fault is stalled: what takes time. NULL: nothing. */
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
 * wp bit set. Results as fill() above. */
int mechanism_fill(struct uffdwp_region *region, uint64_t page, int wp);

/* (signal) The same of pages [first, end) of shared memory, as far as their entries are empty and the file has content
 * for them: all else is left as it is. Best effort: ends where the kernel refuses. */
void mechanism_fill_run(struct uffdwp_region *region, uint64_t first, uint64_t end, int wp);

/* (signal) Which of the up to 64 pages [first, end) are in memory (bit n: page first + n): of a file without swap,
 * those that have content. 0 also where the kernel does not say. */
uint64_t mechanism_in_memory(struct uffdwp_region *region, uint64_t first, uint64_t end);

#endif
