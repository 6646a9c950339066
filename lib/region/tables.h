/* SPDX-License-Identifier: MIT */
/*
 * The page tables of a region, as a whole: where it must lie so that the kernel can move whole page-table pages of it,
 * the move itself, and what becomes of the tables that were moved away.
 *
 * A created region is placed so that it starts where a page-table page does, and a large one where the next level does;
 * attached memory lies where it lies, and its target alike, so that only its ends are moved entry by entry.
 *
 * Idea: mremap(2) with MREMAP_DONTUNMAP takes all entries of the region's mapping to another place, the target, and
 * leaves the mapping where it is, empty and registered. A page-table page, or a page of pointers to such pages, moves
 * by one pointer where both places lie alike within what it maps, so that the time does not grow with the region. The
 * target is a mapping of the same file that is not used: it is taken apart piece by piece.
 *
 * The caller of mremap(2) sleeps until the handler has read the event of the move (UFFD_FEATURE_EVENT_REMAP), without
 * which the kernel would go through all entries. So no handler may wait for that caller; it may leave faults aside.
 *
 * Threads: one that holds the region's lock, or a snapshot of the region that has not been freed.
 */
#ifndef UFFDWP_REGION_TABLES_H
#define UFFDWP_REGION_TABLES_H

#include "region/region.h"

/* Address space that is not used, of `length` bytes, which lies as `like` does within the largest of the kernel's
 * tables that `length` fills, or if that is not available within a page-table page. NULL: there is none. */
void *tables_reserve(const struct kernel_ops *k, uint64_t length, uint64_t page_bytes, uintptr_t like);

/* A place for all of a region that is about to be created, reserved, where whole page-table pages of it can move. NULL:
 * it may lie anywhere. */
void *tables_place(const struct uffdwp_region *region);

/* Moves the region's page tables to a target that was reserved for its whole capacity: afterwards every entry of the
 * region is empty. 0; or -errno, and no entry was moved. *target becomes NULL where it may not be unmapped: mremap(2)
 * unmaps what lies there before it looks further (up to Linux 6.16 before it finds a mapping in several parts, and ever
 * when it has no memory), and what another thread has mapped there since is not ours. Kernels that look first leave the
 * reserved addresses reserved. */
int tables_move(struct uffdwp_region *region, void **target);

/* After tables_move() to this target has returned: waits until the handler has acted on the event, so that no event of
 * the owner's can be taken for it from then on. Nothing, where there was another move since. */
void tables_forget_move(struct uffdwp_region *region, const void *target);

/* The same of whatever move there was, before another. With the region's lock held, so that none is being made. */
void tables_forget_moves(struct uffdwp_region *region);

/* Unmaps the last part of the *length bytes that are left of a target; only the first `filled` bytes of it may have
 * entries. Writers of the region wait for the kernel so long; hence in parts. */
void tables_drop(struct uffdwp_region *region, void *target, uint64_t *length, uint64_t filled);

/* 1: an event of a move from the region to `to` is that of tables_move(). */
static inline int tables_is_own_move(const struct uffdwp_region *region, uintptr_t to)
{
	return to && atomic_load(&region->moved_to) == to;
}

#endif
