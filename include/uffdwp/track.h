/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * tracks. */
#ifndef UFFDWP_TRACK_H
#define UFFDWP_TRACK_H

#include "runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Which pages were written since I last asked?
 *
 * A track is a set of ranges of memory. Every write through their mappings lands in the answer of one collect, or stays
 * for a later one; a page may be in an answer although it was not written: it over-reports where it must, and never
 * under-reports. What is over-reported: memory that was just added (unless UFFDWP_TRACK_ADD_CLEAN), lost pages, memory
 * that was discarded (MADV_DONTNEED; see UFFDWP_TRACK_START_POPULATED), all of a transparent huge page, reads under
 * mechanism minor, the pages that a snapshot which failed had unprotected, what was written during a snapshot until its
 * sweep came by, and under mprotect, in every collect until they are touched, anonymous pages that never were: populate
 * them first (MADV_POPULATE_WRITE). Between two collects the first write to each page costs a fault, which under async
 * the kernel resolves by itself; later ones cost nothing.
 *
 * Not seen are the writes listed at the top of uffdwp.h (of point 9 none, by async: the kernel resolves these, too; so
 * thread stacks may be tracked); for tracks these, too: hole punches and MADV_REMOVE of shared
 * memory (not uffdwp_region_punch()), whose pages change to zeros without a write.
 *
 * Mechanisms: async (UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN, Linux 6.7: the kernel resolves the faults, no thread is
 * woken, system calls are not disturbed) is taken where a trial proved it, which it does not for huge pages (hugetlb)
 * yet. Memory inside a region of this library is tracked by the region's ledger, whatever mechanism the region or the
 * track has, and may be snapshotted at the same time (an adopted region by its addresses in this process). Elsewhere
 * each range that is added becomes such a region (uffdwp_region_attach() lists what it refuses; a handler thread serves
 * 1024 at most). soft-dirty is taken only by name and with UFFDWP_TRACK_START_RESET_PROCESS: each collect clears the
 * soft-dirty bits of the whole process, for every program that looks at them.
 */
struct uffdwp_track;

/* Reports of private memory only the pages that are in memory or in swap: not what was discarded or never touched. For
 * garbage collectors and for measurements: such memory is zeros (as is a page that was written with zeros and that the
 * kernel merged with its zero page since). A large range of which little is used costs nothing then. A kernel that
 * shares no zero page (some virtual machines) gives a page memory of its own when it is first read: it is reported
 * then. */
#define UFFDWP_TRACK_START_POPULATED (1u << 0)
/* The caller promises that tracked memory is removed from the track before it is unmapped, replaced or moved
 * (uffdwp_track_remove()). Otherwise munmap(2) and mremap(2) of tracked memory wait shortly for a thread of the track,
 * which follows them: memory that is moved is tracked where it went; async only. */
#define UFFDWP_TRACK_START_NO_EVENTS (1u << 2)
/* soft-dirty may clear the soft-dirty bits of the whole process */
#define UFFDWP_TRACK_START_RESET_PROCESS (1u << 3)
/* Small gaps between two ranges are not registered along with them (uffdwp_track_add()): for memory beside which much
 * is written that need not be tracked. Each range is a mapping of its own to the kernel then, and is scanned by itself;
 * async only. */
#define UFFDWP_TRACK_START_NO_GAPS (1u << 6)

struct uffdwp_track_options {
	size_t sz;          /* sizeof(struct uffdwp_track_options) */
	uint32_t flags;     /* UFFDWP_TRACK_START_* */
	uint32_t mechanism; /* enum uffdwp_mechanism; one that is named is taken or refused, never replaced */
	uint32_t delivery;  /* enum uffdwp_delivery, of the mechanisms with faults */
	uint32_t reserved;  /* 0 */
};
#define UFFDWP_TRACK_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_track_options)

/*
 * Starts a track, which is empty at first. -EINVAL (unknown flag, mechanism or delivery; soft-dirty without
 * UFFDWP_TRACK_START_RESET_PROCESS), -E2BIG, -EOPNOTSUPP (the mechanism does not work here: the text says why),
 * -EMFILE, -ENOMEM, -EAGAIN (no thread). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int
uffdwp_track_start(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct uffdwp_track **out);

/* As if it had just been collected. Otherwise memory that is added counts as written until the first collect. */
#define UFFDWP_TRACK_ADD_CLEAN (1u << 4)

/*
 * Adds memory to a track: [address, address + length), aligned to its pages. Under async that is one or two system
 * calls, and a track may have thousands of ranges; ranges that touch are kept as one, and gaps of up to 16 pages
 * between two are registered along with them: that memory is never reported, but another userfaultfd cannot be
 * registered there (this library's tracks and regions can). Mappings of any type: under async files on disk, too. No
 * range may be tracked twice (different parts of a region may be, by several tracks).
 *
 * Errors, nothing changed: -EINVAL (not aligned, zero, unknown flag), -EOVERFLOW, -EBUSY (some of it is tracked
 * already, or another userfaultfd is registered there), -ENOENT (nothing, or not everything, is mapped there), -ERANGE
 * (partly inside of a region), -ESTALE (dead region), -EOPNOTSUPP, -EPERM (not writable; async does not mind), -ENOMEM,
 * and what uffdwp_region_attach() answers where a region is made of it. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_add(struct uffdwp_track *track, void *address, uint64_t length, uint32_t flags);

/*
 * Takes a range out of a track: before it is unmapped, or when its writes do not matter any more. May be a part of
 * what was added, under async; a range that became or lies in a region is removed as it was added. What was written
 * there and not collected is forgotten. -EINVAL (not aligned, zero), -EOVERFLOW, -ENOMEM, -ENOENT (none of it is
 * tracked; nothing happened). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_remove(struct uffdwp_track *track, void *address, uint64_t length);

/* Bytes [start, end) were written, in whole pages. */
struct uffdwp_written {
	uint64_t start; /* an address */
	uint64_t end;   /* the first address after it */
	uint64_t flags; /* UFFDWP_TRACK_WRITTEN; more may come */
};
#define UFFDWP_TRACK_WRITTEN (1u << 1)

/* Called for each range that was written, in the order of addresses. */
typedef void (*uffdwp_written_fn)(void *user, const struct uffdwp_written *range);

#define UFFDWP_TRACK_COLLECT_PEEK (1u << 5) /* look only: all stays written for the next collect */

/*
 * What to collect and where to put it: of `ranges`, `bitmap` and `callback` one at most; with none of them all is only
 * counted, and armed again.
 */
struct uffdwp_collect {
	size_t sz;      /* sizeof(struct uffdwp_collect) */
	uint32_t flags; /* UFFDWP_TRACK_COLLECT_* */
	uint32_t reserved;
	void *start;     /* a page; NULL: from the lowest that is tracked */
	uint64_t length; /* whole pages; 0: all that is tracked from `start` on */

	struct uffdwp_written *ranges; /* room for `capacity` of them, in the order of addresses */
	size_t capacity;               /* of ranges */
	/* `start` and `length` must be given. Bit n stands for the n-th system page from `start` on, of the size
	 * sysconf(_SC_PAGESIZE). Bits are only set: clear the bitmap yourself. */
	uint64_t *bitmap;
	size_t bitmap_bytes; /* one bit for each system page at least, a multiple of 8 */
	/* Called in the thread that collects, while the library holds no lock. May write to tracked memory; must not
	 * call the library with this track. */
	uffdwp_written_fn callback;
	void *user;

	/* The answer. */
	size_t count;            /* ranges that were put or called with */
	uint64_t bytes;          /* that were written, of all ranges */
	void *next;              /* NULL: complete. Else `ranges` was full, and beyond this nothing was armed yet: set
	                          * `start` to it (a `length` counts from there, so take off as much) and call again,
	                          * until it is NULL; then put `start` and `length` back for the next time. Each call
	                          * writes the answer's fields anew */
	uint64_t vanished_bytes; /* tracked memory that was unmapped since the last collect: it is tracked no more */
};
#define UFFDWP_COLLECT_INIT UFFDWP_INIT(struct uffdwp_collect)

/*
 * Says what was written since the last collect: and arms it again, atomically against writers. Nothing is allocated.
 * May be called by several threads at once; each write is in one of their answers then. Where `ranges` may be too few:
 *
 *     collect.start = NULL;
 *     do {
 *             if (uffdwp_track_collect(track, &collect))
 *                     return failed();
 *             use(written, collect.count);
 *             collect.start = collect.next;
 *     } while (collect.next);
 *
 * Under mechanisms with faults
 * writers are stalled while their pages are armed again (soft-dirty: all writers to tracked memory, by mprotect(2);
 * system calls that write there fail with EFAULT meanwhile).
 *
 * A thread whose stack is inside of a tracked region would wait for itself, and is refused (-EDEADLK); of memory that
 * async tracks it may be. Huge pages (hugetlb) are collected in whole.
 *
 * Errors, nothing was armed: -EINVAL (sz, unknown flag, alignment, more than one place for the answer, a bitmap without
 * start and length), -E2BIG, -EOVERFLOW, -ENOSPC (the bitmap is too small, capacity is 0), -ENOENT (a length is given,
 * and nothing of [start, start + length) is tracked). Errors in the middle, where the answer has what was found below
 * `next`, and all beyond stays written: -ESTALE (the region there is dead: remove it), -EINVAL (start or end lies
 * inside of a huge page), -EFAULT (`ranges` cannot be written: an armed page where system calls do not wait, see
 * uffdwp_prepare_write()), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_collect(struct uffdwp_track *track, struct uffdwp_collect *collect);

/*
 * Announces writes to tracked memory. Pages of `ranges`, whole pages, that are about to be written lose their
 * protection now, some system calls for all of them instead of a fault for each. They count as written: the next
 * collect reports them, whether a write came or not, and arms them again.
 *
 * It saves time and nothing else: a page that keeps its protection (what is not tracked by async, a kernel that
 * refuses) faults at its first write, as it would have. Ranges that lie in a region are passed over:
 * uffdwp_prepare_write() is for these. `flags` of the ranges are ignored. Any thread, also beside collects; nothing is
 * allocated.
 *
 * Errors, nothing changed: -EINVAL (ranges is NULL, or start or end is not aligned, or end is not above start),
 * -ECHILD. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_prepare(struct uffdwp_track *track, const struct uffdwp_written *ranges, size_t count);

struct uffdwp_track_info {
	size_t sz;          /* set by the caller */
	uint32_t mechanism; /* of ranges outside of regions: the one that was named, or ASYNC where it was chosen; AUTO:
	                     * each range is a region, and has its own */
	uint32_t flags;     /* UFFDWP_TRACK_START_* */
	uint64_t ranges;    /* tracked, those that touch counted once */
	uint64_t bytes;     /* tracked */
	uint64_t collects;  /* calls of uffdwp_track_collect() that armed */
	uint64_t vanished_bytes; /* since the start */
};

/* Describes a track. -EINVAL (sz too small), -ECHILD. Since 0.1. */
UFFDWP_EXPORT int uffdwp_track_info(struct uffdwp_track *track, struct uffdwp_track_info *info);

/*
 * Compares a track with the mappings: ranges that were unmapped, replaced or moved without a report to it
 * (UFFDWP_TRACK_START_NO_EVENTS, MAP_FIXED) are taken out and counted into *vanished_bytes. One system call a range, or
 * more. -EINVAL (vanished_bytes is NULL), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes);

/* Ends a track: its memory is not watched any more; regions that it made are closed, the caller's stay. Since 0.1. */
UFFDWP_EXPORT int uffdwp_track_stop(struct uffdwp_track *track);

#ifdef __cplusplus
}
#endif

#endif
