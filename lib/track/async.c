/* SPDX-License-Identifier: MIT */
/*
 * The kernel's side of a track: a uffd with UFFD_FEATURE_WP_ASYNC, and PAGEMAP_SCAN (Linux 6.7,
 * Documentation/admin-guide/mm/pagemap.rst). The kernel writes what it finds straight into the caller's ranges.
 *
 * What is asked of the scan: pages without the wp bit, empty entries too. With UFFDWP_TRACK_START_POPULATED: pages
 * without the wp bit that are in memory or in swap, and are not the zero page, which is what a read of untouched memory
 * maps. Not so for shared memory: swapping out, or MADV_DONTNEED, leaves an empty entry there of a page that was
 * written.
 *
 * Holes: before 2026 kernels pass over memory that has no page table, as MADV_DONTNEED leaves a transparent huge page,
 * and how a file is mapped; what was thrown away, or added, there would not be reported. Where the probe saw that
 * (probe_scan_holes()), such holes are looked for first, and given page tables by reading them: then the scan finds
 * their entries without a wp bit.
 *
 * Threads: under tracks_lock; several may scan at once. Never: malloc, or touch tracked memory.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/math.h"
#include "fault/runtime.h"
#include "kernel/maps.h"
#include "kernel/own.h"
#include "kernel/pagemap.h"
#include "kernel/probe.h"
#include "track/track.h"

#define HOLES 64

static uint64_t async_wanted_features(const struct uffdwp_track *track)
{
	uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                    UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;

	if (!(track->flags & UFFDWP_TRACK_START_NO_EVENTS))
		features |= UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP;
	return features;
}

int async_open(struct uffdwp_track *track)
{
	const struct kernel_ops *k = track->k;
	uint64_t granted;

	track->pagemap = runtime_pagemap(track->runtime);
	if (track->pagemap < 0)
		return track->pagemap;
	track->uffd = kernel_uffd_new(k, track->runtime->access, async_wanted_features(track), &granted);
	if (track->uffd < 0)
		return track->uffd;
	track->tag = own_new();
	if (own_take(k, track->uffd, track->tag))
		return -ENOMEM;
	if (!(granted & UFFD_FEATURE_WP_ASYNC))
		return -EOPNOTSUPP;
	/* What could not be tried is taken for the worse. */
	track->scan_skips_holes = probe_scan_holes(k, track->runtime->access) != 1;
	return 0;
}

void async_close(struct uffdwp_track *track)
{
	own_close(track->k, track->uffd, track->tag);
	own_close(track->k, track->pagemap, track->runtime->tag);
}

int async_register(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	return track->k->uffd_register(track->uffd, start, end - start, UFFDIO_REGISTER_MODE_WP);
}

void async_unregister(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	if (track->k->uffd_unregister(track->uffd, start, end - start))
		track->k->uffd_writeprotect(track->uffd, start, end - start, 0);
}

static void async_ask(int populated, struct pm_scan_arg *arg)
{
	arg->size = sizeof(*arg);
	arg->flags = PM_SCAN_WP_MATCHING;
	arg->category_mask = PAGE_IS_WRITTEN;
	arg->return_mask = PAGE_IS_WRITTEN;
	if (populated) {
		arg->category_mask |= PAGE_IS_PFNZERO;
		arg->category_inverted = PAGE_IS_PFNZERO;
		arg->category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	}
}

/* To look only meets memory that is not registered as well, which must not be reported. So it asks for more than one
 * category, and kernels of before 2026 (6.12) do not take an empty entry for written then: it asks for what is not
 * present, too, and async_keep_written() leaves out what is protected of that. */
static void async_ask_peek(int populated, struct pm_scan_arg *arg)
{
	async_ask(populated, arg);
	arg->flags = 0;
	arg->category_mask |= PAGE_IS_WPALLOWED;
	if (!populated) {
		arg->category_mask = PAGE_IS_WPALLOWED;
		arg->category_inverted = PAGE_IS_PRESENT;
		arg->category_anyof_mask = PAGE_IS_WRITTEN | PAGE_IS_PRESENT;
		arg->return_mask = PAGE_IS_WRITTEN | PAGE_IS_SWAPPED | PAGE_IS_WPALLOWED;
	}
}

/* Leaves out of what async_ask_peek() found what is protected: a protected page that is in swap, or a protected entry
 * that is empty otherwise, is swapped and not written; an empty entry, or one that has no page table, is neither. */
static size_t async_keep_written(struct uffdwp_written *at, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if ((at[i].flags & (PAGE_IS_WRITTEN | PAGE_IS_SWAPPED)) == PAGE_IS_SWAPPED)
			continue;
		if (kept && at[kept - 1].end == at[i].start)
			at[kept - 1].end = at[i].end;
		else
			at[kept++] = (struct uffdwp_written){at[i].start, at[i].end, UFFDWP_TRACK_WRITTEN};
	}
	return kept;
}

/* One page is read of each page table that a hole of the piece lacks: all pages of a sparse file would be as much
 * memory. Empty entries are found as holes, too; where something else was found in what a table maps there is a
 * table. */
static void async_fill_hole(const struct uffdwp_track *track, const struct piece *piece, const struct page_region *hole)
{
	uint64_t table_bytes = pagemap_table_bytes(track->page_bytes);
	uint64_t table = hole->start - hole->start % table_bytes;

	for (; table < hole->end; table += table_bytes) {
		uint64_t first = table > piece->start ? table : piece->start;

		if (hole->start <= first && math_min_u64(table + table_bytes, piece->end) <= hole->end)
			track->k->madvise((void *)(uintptr_t)first, track->page_bytes, MADV_POPULATE_READ);
	}
}

/* Gives a piece page tables where it has none. A hole that comes meanwhile is found by the next collect. */
static int async_fill_holes(const struct uffdwp_track *track, const struct piece *piece)
{
	struct page_region holes[HOLES];
	uint64_t start = piece->start;
	uint64_t end = piece->end;

	while (start < end) {
		struct pm_scan_arg arg = {.size = sizeof(arg),
		                          .start = start,
		                          .end = end,
		                          .vec = (uintptr_t)holes,
		                          .vec_len = HOLES,
		                          .category_mask = PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_PRESENT |
		                                           PAGE_IS_SWAPPED,
		                          .category_inverted = PAGE_IS_WRITTEN | PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		                          .return_mask = PAGE_IS_WPALLOWED};
		int found = track->k->pagemap_scan(track->pagemap, &arg);

		for (int i = 0; i < found; i++)
			async_fill_hole(track, piece, &holes[i]);
		if (found < 0 || arg.walk_end <= start)
			return found < 0 ? found : -EIO;
		start = arg.walk_end;
	}
	return 0;
}

int async_arm(struct uffdwp_track *track, uint64_t start, uint64_t end, int populated)
{
	int error = -EAGAIN;

	if (!populated)
		error = track->k->uffd_writeprotect(track->uffd, start, end - start, UFFDIO_WRITEPROTECT_MODE_WP);
	if (error != -EAGAIN) /* an event waits to be read */
		return error;
	struct pm_scan_arg arg = {.start = start, .end = end};

	async_ask(populated, &arg);
	arg.return_mask = 0;
	error = track->k->pagemap_scan(track->pagemap, &arg);
	return error < 0 ? error : 0;
}

static int async_unprotect(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	return track->k->uffd_writeprotect(track->uffd, start, end - start, 0);
}

/* While an event waits to be read UFFDIO_WRITEPROTECT is refused, and the thread that reads it may wait for us: to
 * register anew clears the wp bits, too. */
static int async_renew(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	track->k->uffd_unregister(track->uffd, start, end - start);
	return track->k->uffd_register(track->uffd, start, end - start, UFFDIO_REGISTER_MODE_WP);
}

int async_disarm(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	return async_unprotect(track, start, end) ? async_renew(track, start, end) : 0;
}

void async_prepare(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	(void)async_unprotect(track, start, end);
}

void async_forget(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int refused = async_unprotect(track, start, end);

	if (!refused)
		return;
	/* An event waits to be read: of another mapping, most likely; or this one lies elsewhere by now. Only the
	 * thread that has read all events takes that back (follow.c): another collect, which meets none, knows nothing
	 * of this range. */
	atomic_store(&track->doubtful, 1);
	async_renew(track, start, end);
}

int async_scan(struct uffdwp_track *track, const struct piece *piece, int peek, struct findings *found)
{
	uint64_t start = piece->start;
	uint64_t end = piece->end;
	struct pm_scan_arg arg = {.start = start, .end = end, .vec = (uintptr_t)found->at, .vec_len = found->room};
	int error = track->scan_skips_holes && !piece->populated && !peek ? async_fill_holes(track, piece) : 0;

	if (error)
		return error;
	(peek ? async_ask_peek : async_ask)(piece->populated, &arg);
	int count = track->k->pagemap_scan(track->pagemap, &arg);

	if (count < 0) { /* it may have armed a part before it failed */
		if (!peek)
			async_forget(track, start, end);
		return count;
	}
	found->count = peek ? async_keep_written(found->at, (size_t)count) : (size_t)count;
	found->until = arg.walk_end;
	return 0;
}

int async_is_shared(uint64_t start, uint64_t end)
{
	struct maps_range range;

	return maps_look(start, end - start, &range) || !range.uniform || range.shared;
}

int async_next_registered(const struct uffdwp_track *track, uint64_t from, uint64_t end, struct range *found)
{
	struct page_region first;
	struct pm_scan_arg arg = {.size = sizeof(arg),
	                          .start = from,
	                          .end = end,
	                          .vec = (uintptr_t)&first,
	                          .vec_len = 1,
	                          .category_mask = PAGE_IS_WPALLOWED,
	                          .return_mask = PAGE_IS_WPALLOWED};
	int count = track->k->pagemap_scan(track->pagemap, &arg);

	if (count == 1)
		*found = (struct range){first.start, first.end};
	return count;
}
