/* SPDX-License-Identifier: MIT */
/*
 * The cut: the instant of which a snapshot keeps the memory, of one region or of several at once.
 *
 *   rounds   pages without protection are armed, portion by portion, while writers go on; what they write meanwhile is
 *            for the next round. A round looks only where something was written (ledger.touched), so each is shorter
 *            than the last; where it is not, writers are braked: each fault sleeps for a while, bounded.
 *   cut      faults are held, what was written since the last round is armed, faults are let loose again: the pause.
 *            It takes as long as writers take to dirty memory during one short round, however large the region is.
 *
 * That keeps INV-CUT for several regions, too: all faults are held before any region is armed to the end, and let loose
 * when all are.
 *
 * Increments: a page that had no protection was written since the cut before, if that kept its protection (KEEP). Such
 * pages are noted in region->changed, which the cut moves to the snapshot.
 *
 * Threads: the caller of begin, signals blocked while faults are held. Never: allocate or touch new memory in the
 * pause.
 */
#ifndef UFFDWP_SNAPSHOT_CUT_H
#define UFFDWP_SNAPSHOT_CUT_H

#include <stddef.h>

#include "snapshot/snapshot.h"

/* Most snapshots that share a cut. */
#define CUT_COUNT_MAX 64

/* Before all else: memory for what the cut notes. -ENOMEM. */
int cut_open(struct uffdwp_snapshot *snapshot);
void cut_close(struct uffdwp_snapshot *snapshot);

/* Rounds, until the last was short. No lock is held. Never fails: what could not be armed is left to the cut. */
void cut_rounds(struct uffdwp_snapshot *const *snapshots, size_t count);

/* The pause. With the locks of all regions held. 0; or -errno, and nothing is armed for these snapshots. */
int cut_make(struct uffdwp_snapshot *const *snapshots, size_t count);

/* After rounds that no cut followed: what only they have armed is let go. */
void cut_forget(struct uffdwp_snapshot *snapshot);

/* The snapshot has ended, or failed: no page is its own any more. */
void cut_leave(struct uffdwp_snapshot *snapshot, int error);

/* 1: by the region's mechanism and memory pages can be armed one by one, and the ledger knows which are. */
int cut_has_rounds(const struct uffdwp_region *region);

/* 1: the page belongs into the image: all do, or of an increment those that changed. */
static inline int cut_wants(const struct uffdwp_snapshot *snapshot, uint64_t page)
{
	return !snapshot->increment || (atomic_load(&snapshot->pages_changed[page / 64]) >> (page % 64) & 1);
}

#endif
