/* SPDX-License-Identifier: MIT */
/*
 * The cut: the instant that its owner shows, of one region or of several at once. The cut arms the region,
 * and hands over to its owner while faults are stalled; what the owner is it does not know.
 *
 *   rounds   pages without protection are armed, portion by portion, while writers go on; what they write meanwhile is
 *            for the next round. A round looks only where something was written (ledger.touched), so each is shorter
 *            than the last; where it is not, writers are braked: each fault sleeps for a while, bounded.
 *   cut      faults are stalled, what was written since the last round is armed, faults are resumed: the pause. It
 *            takes as long as writers take to dirty memory during one short round, however large the region is.
 *   move     instead of both, where it can be: page tables are moved away at once, see move.c
 *
 * That keeps INV-CUT for several regions, too: all faults are stalled before any region is armed to the end, and
 * resumed when all are.
 *
 * A cut that keeps no pre-images may be made beside one that does: see beside.c.
 *
 * Increments: a page that had no protection was written since the cut before, if that kept its protection (`keeps`).
 * Such pages are noted in region->changed, which the cut moves to `pages_changed`.
 *
 * Threads: the caller of begin, signals blocked while faults are stalled. Never: allocate or touch new memory in the
 * pause.
 */
#ifndef UFFDWP_CUT_CUT_H
#define UFFDWP_CUT_CUT_H

#include <stddef.h>
#include <stdint.h>

#include "fault/fault.h"
#include "region/region.h"

/* Most regions that share a cut. */
#define CUT_COUNT_MAX 64

/* Page tables that were moved away, or a place for them. */
struct cut_tables {
	void *at;        /* NULL: none */
	uint64_t left;   /* bytes of it that are mapped */
	uint64_t filled; /* only its first bytes may have entries */
};

struct cut {
	/* The owner's, set before cut_open(). */
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	struct preserve *preserve; /* keeps pre-images from the cut on; NULL: a written page is unprotected at once */
	int (*establish)(void *owner); /* called in the pause, when all is armed: 0 or -errno; NULL: nothing to do */
	void *owner;
	int keeps;             /* the protection stays beyond the end, for the next increment */
	int increment;         /* only what changed since the parent's cut is wanted */
	uint32_t arming;       /* enum uffdwp_arming: ROUNDS, or MOVE where the owner has found that it can be */
	uint64_t length_bytes; /* may change until the pause */
	uint64_t end_page;     /* pages [0, end_page) are cut */
	uint64_t pages_most;   /* of the region's capacity */
	int swap_on;           /* cut_choose() has seen it; content.c: pages of zeros are no content, see
	                          region_content_but_zeros() */

	/* move.c's. */
	struct cut_tables old; /* of before the cut */
	int may_fall_back;     /* the move was not asked for by name */
	int refused;           /* of several cuts: it was this that could not be armed */
	int looks_late;        /* which pages had content is looked at after the cut, see move_check_content() */
	uint64_t blocks;       /* of the region's file at the cut, by fstat(2) */
	uint64_t holes_filled; /* the region's counter at the cut */
	uint64_t discards;     /* the same */
	uint64_t data_end;     /* pages from one before it up to here have content, see move_skip_holes() */
	uint64_t filled_end;   /* entries of pages before it were filled by move_fill() */
	int comes;             /* prepared, and not made yet: counts among moves_soon of the region */
	int moved;             /* the move was made, and is not undone */
	uint32_t move_number;  /* region->moves after it */

	/* What became of it. */
	_Atomic uint64_t *pages_changed; /* a bit for each page; NULL: not known */
	uint32_t rounds;
	uint64_t rounds_pages; /* armed in the rounds, again and again */
	uint64_t rounds_begun_ns;
	uint64_t rounds_ns;
	uint64_t stalled_most_ns; /* longest stall of faults in the rounds */
	uint64_t rounds_end_page; /* pages beyond it no round has seen */
	uint64_t braked_before_ns;
	uint64_t braked_ns;
	uint64_t pause_pages; /* armed in the pause */
	uint64_t stalled_at_ns;
	uint64_t pause_ns;
	uint64_t faults_before; /* of the region, at the cut */
};

/* All of a region, or its first `length_bytes`. */
void cut_init(struct cut *cut, struct uffdwp_region *region, uint64_t length_bytes);
void cut_set_length(struct cut *cut, uint64_t length_bytes);

/* beside.c: while region->cut_comes: waits until the owner that keeps pre-images knows which pages had content, for a
 * mapping of the file that reads holes would give them some. Without the region's lock. */
void cut_await_looks(struct uffdwp_region *region);

/* First of all: how its pages come to be armed, by enum uffdwp_arming. -EOPNOTSUPP or an error of the moment, with the
 * reason in `text`. What it has reserved cut_close() gives back. */
int cut_choose(struct cut *cut, uint32_t asked, struct text *text);

/* The move is not available. 1: pages are armed one after the other instead, and what has content was looked at; 0: it
 * was asked for by name. With the region's lock held. */
int cut_fall_back(struct cut *cut);

/* Before all else: memory for what the cut notes. -ENOMEM. */
int cut_open(struct cut *cut);
void cut_close(struct cut *cut);

/* group.c: what takes time of the chosen arming, while faults go on. 0 or -errno, with text. Takes the region's
 * lock. */
int cut_prepare(struct cut *cut);

/* group.c: by their regions' addresses, as the next two want them. */
void cut_sort(struct cut **cuts, size_t count);

/* group.c: the locks of all regions, of cuts that are sorted. */
void cut_lock(struct cut *const *cuts, size_t count);
void cut_unlock(struct cut *const *cuts, size_t count);

/* group.c: 1: some region was unmapped, or has lost its handler. */
int cut_any_dead(struct cut *const *cuts, size_t count);

/* group.c: what the caller's cut_enter has refused with, as an error with text. */
int cut_enter_refused(struct text *text, int error);

/* Rounds, until the last was short. No lock is held. Never fails: what could not be armed is left to the cut. */
void cut_rounds(struct cut *const *cuts, size_t count);

/* The pause. With the locks of all regions held. 0; or -errno, and nothing is armed for these cuts. */
int cut_establish(struct cut *const *cuts, size_t count);

/* The same in two steps: in between faults are stalled and all is armed, for an owner that has more to do at that
 * instant. With all signals blocked. After an error of the first, as after one of cut_establish(), no second. */
int cut_pause(struct cut *const *cuts, size_t count);
void cut_resume(struct cut *const *cuts, size_t count);

/* After rounds that no cut followed: unprotects the pages that only the rounds protected. */
void cut_forget(struct cut *cut);

/* The owner has ended, or failed with `error`: no page is its own any more. */
void cut_leave(struct cut *cut, int error);

/* 1: by the region's mechanism and memory pages can be armed one by one, and the ledger knows which are. */
int cut_has_rounds(const struct uffdwp_region *region);

/* the memory for it, and a first look. -ENOMEM. */
int content_open(struct cut *cut);

/* A punch need not clear bits any more: the cut was made, or was given up. */
void content_unpublish(struct uffdwp_region *region);

/* Looks at all pages that have no bit yet. */
void content_look_again(struct cut *cut);

/* The same of pages [first, end), which were just armed: with the region's lock held, while faults are stalled. */
void content_look(struct cut *cut, uint64_t first, uint64_t end);

/* beside.c: the owner that keeps pre-images, if there is another one, leaves what it has saved protected from now on.
 * With the region's lock held, before faults are stalled. */
void beside_begin(const struct cut *cut);

/* beside.c: an unprotected page is about to be armed, while faults are stalled. */
void beside_arm_page(struct uffdwp_region *region, uint64_t page);

/* beside.c: pages [first, end) should be protected, and are not for sure: they are taken for unprotected, but for those
 * that are still to be saved: the thread that saves them looks itself. With the region's lock held. */
void beside_distrust(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* 1: pre-images are kept, or that has failed and not ended yet, and not for this cut. With the region's lock held. */
static inline int cut_is_beside(const struct cut *cut)
{
	return !cut->preserve && atomic_load(&cut->region->preserve) != NULL;
}

/* 1: the page belongs into the image: all pages do, or in an increment those that changed. */
static inline int cut_wants(const struct cut *cut, uint64_t page)
{
	return !cut->increment || (atomic_load(&cut->pages_changed[page / 64]) >> (page % 64) & 1);
}

#endif
