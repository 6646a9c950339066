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
 * A child of uffdwp_fork() is a view in another process: the same mapping, at the region's own address, writable, and
 * broken off by other means (view_child.c). While that cannot be done, because the child is not known yet or is being
 * ended, writes to the region wait (`view_stalls`): they are stalled as in PHASE_STALL, and the
 * child's thread resumes them.
 *
 * Threads: view_break_all() any, also in a signal handler; it works inside the epoch, so that a view that was detached
 * is used by no thread after fault_epoch_wait(). Attaching: with the region's lock held, while faults are stalled.
 */
#ifndef UFFDWP_REGION_VIEW_H
#define UFFDWP_REGION_VIEW_H

#include "region/region.h"

/* What parent and child write for each other, in memory that both have. */
struct view_meeting {
	_Atomic uint32_t arrived; /* the child's: its process id, when its views are in place */
	_Atomic uint32_t met;     /* the parent's: `known`; the child waits for it on this word */
};

/* What the views of one child share. */
struct view_child {
	const struct kernel_ops *k;
	int tag;                /* of the descriptors, see kernel/own.h */
	int pid;                /* valid when `known` */
	int pidfd;              /* -1: none (before Linux 5.3) */
	int pagemap;            /* of the child's memory of before an execve(2): what it reads ends with that memory */
	int mem;                /* /proc/PID/mem */
	int maps;               /* /proc/PID/maps */
	_Atomic uint32_t known; /* the above is there */
	struct view_meeting *meeting; /* shared with the child */
	void *unreadable;             /* VIEW_CHILD_RUN pages */
	uint64_t pages_most;          /* of the child's own; 0: no bound */
	uint32_t policy;              /* enum uffdwp_policy */
	uint32_t window_max;          /* pages that one fault breaks off, at most */
	_Atomic uint64_t pages_broken;
	_Atomic uint64_t full_since_ns; /* the bound was met; 0: not */
	_Atomic uint32_t ends;          /* no page could be broken off it: it ends, most probably */
	_Atomic uint32_t ends_again;    /* its thread has had writers try again since one could */
	_Atomic uint32_t gone;          /* it has ended, or is another program: no page is broken off any more */
	_Atomic int error;              /* it is being ended by SIGKILL, because of this */
	unsigned view_count;
	struct uffdwp_view *views[UFFDWP_FORK_REGIONS_MAX];
};

/* Pages that are broken off a child by one call. */
#define VIEW_CHILD_RUN 64

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
	struct view_child *child; /* NULL: it is in this process. Then `base` is where the region lay at the cut */
	uintptr_t from;           /* where the mapping is in the child until it has arrived */
	_Atomic uint32_t stalls;  /* it counts among view_stalls of its region */
	_Atomic uint32_t leaves;  /* the region is being closed: the child's thread detaches it */
	_Atomic uint32_t left;    /* it is detached: the region may be closed */
};

/* Maps the region's file. -errno; nothing is left. With text. */
int view_map(struct uffdwp_region *region, struct uffdwp_view **out);
void view_unmap(struct uffdwp_view *view);

/* All of the region at this moment is shown. -EMFILE: there are UFFDWP_VIEWS_MAX, of children UFFDWP_CHILDREN_MAX. With
 * the region's lock held; view_detach() needs none. */
int view_attach(struct uffdwp_view *view);
void view_detach(struct uffdwp_view *view);

/* Closes the descriptors of a child; in another child, its copies of them. */
void view_child_close(const struct view_child *child);

/* The region is about to be closed: waits until no child's thread uses it. */
void view_children_leave(struct uffdwp_region *region);

/* 1: each child may have `pages` more of its own, and has no more than half of its bound then. Inside the epoch.
 * (signal) */
int view_children_have_room(struct uffdwp_region *region, uint64_t pages);

/* The part of view_break() with work to do. (signal) */
int view_break_all(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* view_child.c: breaks pages [first, end) off a child. 0; 1: not now, see view_break(). (signal) */
int view_child_break(struct uffdwp_view *view, uint64_t first, uint64_t end);

/* Stalls writes to all regions of a child, or (0) no longer: then the caller wakes those that wait, of each region.
 * Inside the epoch, or by the child's thread. (signal) */
void view_child_stall(struct view_child *child, int on);

/* The same of one view, by the child's thread, when no other can come any more. */
void view_child_unstall(struct uffdwp_view *view);

/* SIGKILL, alone. (signal) */
void view_child_kill(struct view_child *child);

/* Ends a child by SIGKILL, because of an error, once; writes wait until its thread has seen its end. (signal) */
void view_child_end(struct view_child *child, int error);

/* 1: the memory that the child began with is there no more: it has ended, or is another program. */
int view_child_is_gone(struct view_child *child);

/* Writes to the region go unseen from now on: what is not broken off an open view cannot be read any more. */
void view_fail_all(struct uffdwp_region *region, int error);

/* INV-VIEW: of no open view one of pages [first, end) is the file's still. Inside the epoch. */
static inline int view_are_broken(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		const struct uffdwp_view *view = atomic_load(&region->views[i]);

		for (uint64_t page = first; view && page < end && page < view->end_page; page++) {
			if (!(atomic_load(&view->broken[page / 64]) >> (page % 64) & 1))
				return 0;
		}
	}
	return 1;
}

/* Pages [first, end) are about to lose their protection. 0: they may; 1: they may not yet, and writes are stalled until
 * they may. (signal) */
static inline int view_break(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return atomic_load_explicit(&region->view_count, memory_order_acquire) ? view_break_all(region, first, end) : 0;
}

#endif
