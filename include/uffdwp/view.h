/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * views, which show an instant of a region in the same process. */
#ifndef UFFDWP_VIEW_H
#define UFFDWP_VIEW_H

#include "region.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A read-only mapping in the same process that keeps showing the region as it was at one instant, while writers go on.
 * (Where the kernel forbids the library to write to what is mapped read-only, see proc_mem.force_override of Linux 6.12
 * and later, it is mapped writable: what a program writes there by mistake is in that view alone, and it counts against
 * RLIMIT_DATA.) It costs memory only
 * for pages that are written while it is open. Several may be open at a time, taken at different instants, beside
 * tracks; a snapshot may begin while views are open, but none can be opened before the snapshots of the region are
 * freed. Only of shmem whose file is known, created, attached or adopted, by mechanism marker or rearm.
 *
 * Not seen are the writes listed at the top of uffdwp.h; content that is discarded outside of the library (not by
 * uffdwp_region_punch()) changes in a view, too. Read it with the CPU or hand it to write(2); do not let devices read
 * from it by pinned pages (O_DIRECT, io_uring fixed buffers): what is pinned is the live page, and may be torn. A child
 * of fork() does not have it.
 *
 * A view ends no chain of increments or deltas: it may be opened and closed between two snapshots with
 * UFFDWP_SNAPSHOT_KEEP, and the later one may be an increment of the earlier, with all that was written between. (Only
 * an open that fails in its pause, because the kernel refused to arm, ends a chain.)
 */
struct uffdwp_view;

/* Views of one region that may be open at a time. */
#define UFFDWP_VIEWS_MAX 8

struct uffdwp_view_options {
	size_t sz;         /* sizeof(struct uffdwp_view_options) */
	uint32_t flags;    /* 0 */
	uint32_t reserved; /* 0 */
	/* The caller's boundary, as of snapshots: both or none. cut_enter may refuse by a negative errno. */
	int (*cut_enter)(void *cut_user);
	void (*cut_leave)(void *cut_user);
	void *cut_user;
};
#define UFFDWP_VIEW_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_view_options)

/*
 * Opens a view of a region: makes the cut, as uffdwp_snapshot_begin() does, and maps all that the region has then;
 * returns when every later write is excluded from it. From then on the first write to each page costs a fault and a
 * copy for each view that has not got the page yet. Errors, nothing changed: -EINVAL, -E2BIG, -EOPNOTSUPP (other memory
 * or another mechanism), -EBUSY (a snapshot or a restore has not been freed, pages that a restore could not fetch are
 * left, or another view, or a child, is being made), -EMFILE (UFFDWP_VIEWS_MAX views are open), what cut_enter refused
 * with, -ESTALE, -ENOMEM, -EACCES. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int
uffdwp_view_open(struct uffdwp_region *region, const struct uffdwp_view_options *options, struct uffdwp_view **out);

/* Gives the address of a view. Returns where it is mapped; any thread may read it until the view is closed. Since 0.1.
 */
UFFDWP_EXPORT const void *uffdwp_view_base(const struct uffdwp_view *view);

struct uffdwp_view_info {
	size_t sz;              /* set by the caller */
	uint64_t length_bytes;  /* of the region at the cut */
	uint64_t private_bytes; /* memory of its own: pages that were written since */
	uint64_t pause_ns;      /* from when faults began to wait until the cut was made */
	int32_t error;          /* not 0: there was no memory for a page, or (-ESTALE, -EOWNERDEAD) writes to the region
	                         * are not seen any more; reading pages that are not the view's own raises SIGSEGV */
	uint32_t reserved;
};

/* Looks at a view; any thread. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_view_info(const struct uffdwp_view *view, struct uffdwp_view_info *info);

/* Closes a view and unmaps it: no thread may read it any more. NULL is ignored. Since 0.1. */
UFFDWP_EXPORT int uffdwp_view_close(struct uffdwp_view *view);

#ifdef __cplusplus
}
#endif

#endif
