/* SPDX-License-Identifier: MIT */
/*
 * A view: a private mapping of a region's file that keeps showing one instant while the region is written to.
 *
 * As long as a page is protected both mappings show the same page of the file. Before the protection goes, the page is
 * broken off the view: one byte of the view is written with its own value by /proc/self/mem, and the kernel's copy on
 * write gives the view a page of its own. So a view costs memory for what was written since, and nothing else; the
 * mapping itself stays read-only for its users, and no index of pages has to be kept. (Copying into a buffer and
 * showing that by userfaultfd costs a fault for each page that is read, UFFDIO_COPY into the view fails where it was
 * read before, and mremap() of single pages costs a mapping each.)
 *
 * INV-VIEW: a page is broken off every open view before its protection is taken off.
 *
 * Threads: view_break_all() any, also in a signal handler; it works inside the epoch, so that a view that was detached
 * is used by no thread after fault_epoch_wait(). Attaching: with the region's lock held, while faults are stalled.
 */
#ifndef UFFDWP_REGION_VIEW_H
#define UFFDWP_REGION_VIEW_H

#include "region/region.h"

struct uffdwp_view {
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	unsigned char *base;
	uint64_t map_bytes;    /* of the mapping: what the region may grow to until the cut */
	uint64_t length_bytes; /* of the region at the cut */
	uint64_t end_page;     /* pages [0, end_page) are shown */
	unsigned page_shift;
	int tag;                  /* of mem, see kernel/own.h */
	int mem;                  /* /proc/self/mem */
	_Atomic uint64_t *broken; /* a bit for each page that is the view's own */
	_Atomic uint64_t pages_broken;
	_Atomic int error; /* a page could not be broken off, and cannot be read any more */
	uint64_t pause_ns;
};

/* Maps the region's file. -errno; nothing is left. With text. */
int view_map(struct uffdwp_region *region, struct uffdwp_view **out);
void view_unmap(struct uffdwp_view *view);

/* All of the region at this moment is shown. -EMFILE: there are UFFDWP_VIEWS_MAX. */
int view_attach(struct uffdwp_view *view);
void view_detach(struct uffdwp_view *view);

/* The part of view_break() with work to do. (signal) */
void view_break_all(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* Writes to the region go unseen from now on: what is not broken off an open view cannot be read any more. */
void view_fail_all(struct uffdwp_region *region, int error);

/* INV-VIEW: of no open view one of pages [first, end) is the file's still. Inside the epoch. */
static inline int view_are_broken(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (unsigned i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		const struct uffdwp_view *view = atomic_load(&region->views[i]);

		for (uint64_t page = first; view && page < end && page < view->end_page; page++) {
			if (!(atomic_load(&view->broken[page / 64]) >> (page % 64) & 1))
				return 0;
		}
	}
	return 1;
}

/* Pages [first, end) are about to lose their protection. (signal) */
static inline void view_break(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	if (atomic_load_explicit(&region->view_count, memory_order_acquire))
		view_break_all(region, first, end);
}

#endif
