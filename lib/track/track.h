/* SPDX-License-Identifier: MIT */
/*
 * Tracking: which pages were written since the last collect. A track is a set of ranges; each is served by one of two
 * methods.
 *
 *  - async (async.c): the range is registered with the track's own uffd, which has UFFD_FEATURE_WP_ASYNC. The kernel
 *    clears the wp bit of a page when it is written; one PAGEMAP_SCAN reports what has none and sets it again. Page
 *    tables are the only record, so that a range costs nothing but its entry in a sorted array (ranges.c).
 *  - watched (watch.c): the range lies in a region. Its ledger is the record: what is ARMED or WATCHED was not written,
 *    all else was; `written` has what a wp bit hides (a snapshot has armed it before a collect, or a lost page was
 *    armed again). soft-dirty (soft_dirty.c) is a region of mprotect that is protected for the moment of a collect
 *    only.
 *
 * INV-TRACK: every write to tracked memory is in the answer of one collect, or in a later one. A page may be reported
 * though it was not written. Async: the kernel looks at the wp bit and sets it again under one lock of the page table.
 * Watched: faults are stalled while a run of pages is looked at and armed, and every fault that began before has ended
 * (INV-EPOCH).
 *
 * Mappings are what costs: the kernel splits one wherever a registration begins or ends, and walks each by itself. So a
 * small gap between two ranges is registered along with them (`registered`), and what is found there is left out of the
 * answer. Its writers pay a short fault, nothing else; a caller that wants to watch that memory gets it back
 * (track_yield()).
 *
 * Threads: any. `tracks_lock` is one lock for all tracks of the process: a thread that scans or collects holds it for
 * reading, a thread that changes a set for writing. It is held for one scan at a time, never while the caller's
 * function runs. Lock rank: below the caller's own, above that of a region.
 */
#ifndef UFFDWP_TRACK_TRACK_H
#define UFFDWP_TRACK_TRACK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/lock.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "region/region.h"
#include "track/ranges.h"
#include "uffdwp.h"

struct loop;
struct uffdwp;

_Static_assert(sizeof(struct uffdwp_written) == sizeof(struct page_region) &&
                       offsetof(struct uffdwp_written, end) == offsetof(struct page_region, end) &&
                       UFFDWP_TRACK_WRITTEN == PAGE_IS_WRITTEN,
               "the kernel writes into the caller's ranges");

/* Pages [first, end) of a region that a track watches. */
struct watched {
	struct uffdwp_region *region;
	uint64_t first;
	uint64_t end;
	int owned; /* attached for the track alone */
};

/* The thread that follows what is moved and unmapped (follow.c). */
struct follower {
	pthread_t thread;
	struct loop *loop;
	int running;
	int kick; /* eventfd: end */
	int tag;  /* of the kick, see kernel/own.h */
};

struct uffdwp_track {
	/* Fixed after the start. */
	int tag; /* of uffd, see kernel/own.h */
	const struct kernel_ops *k;
	struct uffdwp *runtime;
	struct text *text;
	uint32_t flags;      /* UFFDWP_TRACK_* */
	uint32_t mechanism;  /* of ranges outside of regions: ASYNC, SOFT_DIRTY, a region's, or AUTO */
	uint32_t asked;      /* the mechanism that was named, or AUTO */
	uint32_t delivery;   /* of the regions that are made */
	uint64_t page_bytes; /* of the system */
	int uffd;            /* -1: not async */
	int pagemap;         /* -1: not needed */
	int scan_skips_holes;
	struct follower follower;

	/* Under tracks_lock. */
	struct uffdwp_track *next;
	struct ranges ranges;     /* async: what the caller asked for */
	struct ranges registered; /* that, and small gaps between */
	struct ranges shared;     /* of a track of what is populated: its shared memory, empty entries of which count */
	struct watched *watched;
	size_t watched_count;

	_Atomic uint32_t doubtful; /* what a scan has armed and not reported may lie elsewhere by events to be read */
	_Atomic uint64_t collects;
	_Atomic uint64_t vanished_bytes;     /* not yet reported */
	_Atomic uint64_t vanished_all_bytes; /* since the start */
};

extern struct shared_lock tracks_lock;

/* For the regions that it watches, as runtime_check_faults(): before something is collected. */
int track_check_faults(struct uffdwp_track *track);

/* The tracks of this process, linked by `next`; with tracks_lock held. */
struct uffdwp_track *track_first(void);

/* What a collect is about to look at: async where region is NULL. */
struct piece {
	uint64_t start;
	uint64_t end;
	struct uffdwp_region *region;
	uint64_t first; /* its page at `start` */
	int populated;  /* async: only what is in memory or in swap counts */
};

/* Where the ranges that a scan finds are put, and from where to go on. */
struct findings {
	struct uffdwp_written *at;
	size_t room;
	size_t count;
	uint64_t until; /* all before this address was looked at */
};

/* track.c. Options are checked. What is said of sets below is in sets.c. */
int track_start(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct text *text,
                struct uffdwp_track **out);
void track_stop(struct uffdwp_track *track);

/* A range of plain memory, or pages of a region. -EBUSY: tracked already. */
int track_add_async(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean);
int track_add_watched(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end, int owned,
                      int clean);

/* 0, -ENOENT, or -EINVAL: a part of a watched range. A region that was made for the range is closed. */
int track_remove(struct uffdwp_track *track, uint64_t start, uint64_t end);

/* The next piece at or after `from`, clipped to [from, to). 0: none. With tracks_lock held. */
int track_next_piece(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out);

/* 1: some of [from, to) is tracked. With tracks_lock held. */
int track_touches(const struct uffdwp_track *track, uint64_t from, uint64_t to);

/* A caller wants to register [start, end), which no track was asked to watch: gaps there are given back. */
void track_yield(uint64_t start, uint64_t end);

/* With tracks_lock held for writing: what of [start, end) is not registered any more leaves the track, and is counted.
 * Bytes, or -errno. */
int64_t track_vanish(struct uffdwp_track *track, uint64_t start, uint64_t end);

/* With tracks_lock held for writing: the kernel has moved a mapping. */
void track_move(struct uffdwp_track *track, uint64_t from, uint64_t to, uint64_t length);

/* Compares the ranges with the mappings. 0 or -errno. */
int track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes);

/* Clears the wp bits of the async pages of the ranges: they count as written. Best effort, errors ignored. */
void track_prepare(struct uffdwp_track *track, const struct uffdwp_written *ranges, size_t count);

void track_describe(struct uffdwp_track *track, struct uffdwp_track_info *info);

/* add.c: the range is checked; by what it is watched is found out. 0 or -errno, with text. */
int track_add(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean);

/* add.c: opens the region of a checked plan, where a track may have registered a gap: that is given back. 0 or -errno,
 * with text. */
int track_open_region(struct uffdwp *runtime, struct region_plan *plan, struct uffdwp_region **out);

/* collect.c. The request is checked. */
int track_collect(struct uffdwp_track *track, struct uffdwp_collect *request);

/* async.c */
int async_open(struct uffdwp_track *track);
void async_close(struct uffdwp_track *track);
int async_register(struct uffdwp_track *track, uint64_t start, uint64_t end);
/* What cannot be unregistered loses its wp bits at least. */
void async_unregister(struct uffdwp_track *track, uint64_t start, uint64_t end);
/* Arms what may be armed of a range. */
int async_arm(struct uffdwp_track *track, uint64_t start, uint64_t end, int populated);
/* Clears the wp bits again: written, for the next scan. 0 or -errno: what is there is not ours any more. */
int async_disarm(const struct uffdwp_track *track, uint64_t start, uint64_t end);
/* Takes the wp bits off, best effort: a page that keeps its bit faults, one that loses it counts as written. */
void async_prepare(const struct uffdwp_track *track, uint64_t start, uint64_t end);
/* The same, under the lock for reading: what is moved at this moment is `doubtful`, and disarmed when that is followed.
 */
void async_forget(struct uffdwp_track *track, uint64_t start, uint64_t end);
/* Reports [start, end) into `found` as far as there is room, and arms what was reported, unless it only peeks. On
 * failure all of it counts as written. */
int async_scan(struct uffdwp_track *track, const struct piece *piece, int peek, struct findings *found);
/* 1: [start, end) has shared memory, or may. */
int async_is_shared(uint64_t start, uint64_t end);
/* The first part of [from, end) that is mapped and registered with a uffd of this kind. 1, 0: there is none, or -errno.
 */
int async_next_registered(const struct uffdwp_track *track, uint64_t from, uint64_t end, struct range *found);

/* watch.c: the same for pages of a region. */
/* Before the first scan of a collect: what takes time. */
int watch_prepare(struct uffdwp_region *region);
int watch_begin(struct uffdwp_region *region, uint64_t first, uint64_t end);
void watch_end(struct uffdwp_region *region);
int watch_scan(struct uffdwp_region *region, const struct piece *piece, int peek, struct findings *found);

/* soft_dirty.c */
int soft_dirty_works(const struct kernel_ops *k, struct text *text);
/* Before a collect, with tracks_lock held: moves the bits of all tracks of this kind into their regions' `written`. */
int soft_dirty_harvest(struct uffdwp_track *track);

/* follow.c */
int follow_start(struct uffdwp_track *track);
void follow_stop(struct uffdwp_track *track);

#endif
