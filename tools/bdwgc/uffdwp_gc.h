/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp_gc: the write barrier of a garbage collector, for the stock Boehm-Demers-Weiser collector (libgc 8.2).
 *
 * The collector can work by generations and in increments if it knows which pages of its heap were written. This
 * library reports them: it switches the collector's manual dirty bits on and sets them by itself, from what the kernel
 * saw written (a track of libuffdwp, mechanism async). Programs need no barriers in their code and no compiler that
 * puts them there.
 *
 * Link it before the collector: `-luffdwp_gc -lgc`. It then stands before GC_set_on_collection_event() and
 * GC_get_on_collection_event(), so that the program may have events of its own, too.
 *
 * What it cannot see: memory that devices write into (O_DIRECT reads and io_uring's fixed buffers inside of the
 * collector's heap), as uffdwp.h lists it. System calls that write into the heap, as read(2), are seen.
 *
 * After fork() the child goes on, and is right, but each of its collections looks at all of the heap. A child that
 * wants more calls exec.
 *
 * Threads: every function may be called from any thread, none from a signal handler or from an event of the collector.
 */
#ifndef UFFDWP_GC_H
#define UFFDWP_GC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define UFFDWP_GC_EXPORT __attribute__((visibility("default")))
#else
#define UFFDWP_GC_EXPORT
#endif

/* For tests only: collect, and do not report to the collector. Objects that are in use get freed. */
#define UFFDWP_GC_BLIND (1u << 0)

struct uffdwp_gc_options {
	size_t sz;         /* sizeof(struct uffdwp_gc_options) */
	uint32_t flags;    /* UFFDWP_GC_* */
	uint32_t reserved; /* 0 */
};
/* clang-format off */
#define UFFDWP_GC_OPTIONS_INIT { sizeof(struct uffdwp_gc_options), 0, 0 }
/* clang-format on */

/*
 * Initializes the collector (GC_INIT()) if that was not done, and switches it to incremental collection with this
 * library's dirty bits. Instead of GC_enable_incremental(), at the start of main() best. It stays on until the process
 * ends. Everything else of the collector is left as it is: its time limit, its markers, its rate.
 *
 * 0, or a negative errno and everything as before (but the collector is initialized, where it came so far): -EINVAL
 * (size, unknown flag, reserved), -E2BIG, -EALREADY (it is on), -EBUSY (the collector is incremental already, by means
 * of its own), -ENOTSUP (a version of the collector that this library was not written for), -EOPNOTSUPP (no mechanism
 * async here, or the collector refuses to be incremental), -ECHILD (it was on in the process that forked this one),
 * -EMFILE, -ENOMEM, -EAGAIN. uffdwp_gc_error_text() says what to do.
 */
UFFDWP_GC_EXPORT int uffdwp_gc_start(const struct uffdwp_gc_options *options);

/* Why the last uffdwp_gc_start() was refused, or why dirty bits are not exact now. Always terminated; the length of the
 * whole text, as snprintf() gives it; empty if there is nothing to report. */
UFFDWP_GC_EXPORT size_t uffdwp_gc_error_text(char *buffer, size_t size);

enum uffdwp_gc_state {
	UFFDWP_GC_OFF = 0,
	UFFDWP_GC_TRACKING = 1, /* exact */
	UFFDWP_GC_ALL = 2,      /* the last stop had to take everything for written; the next tries again */
	UFFDWP_GC_CHILD = 3,    /* after fork(): everything counts as written */
	UFFDWP_GC_REPLACED = 4, /* the program took the collector's event away: WRONG, objects in use may be freed */
	UFFDWP_GC_WAITING = 5,  /* preloaded: the collector is as it was until its stops are long */
	UFFDWP_GC_RESTING =
	        6 /* preloaded: generations did not pay; each collection is a full one, nothing is tracked */
};

struct uffdwp_gc_stats {
	size_t sz;               /* set by the caller */
	uint32_t state;          /* enum uffdwp_gc_state */
	uint32_t reserved;       /* 0 */
	uint64_t stops;          /* of the world, in which dirty bits were read */
	uint64_t stops_all;      /* of these: everything was taken for written */
	uint64_t pages_fed;      /* pages that were reported to the collector */
	uint64_t collect_ns;     /* collecting and feeding, all stops, the world stopped */
	uint64_t collect_max_ns; /* the longest of them */
	uint64_t sync_count; /* how often the track was compared with the heap: it had grown, or shrunk; the world runs
	                      */
	uint64_t sync_ns;
	uint64_t restarts;        /* new tracks, because tracked memory that is not the collector's had vanished */
	uint64_t heap_bytes;      /* of the collector, when it was looked for last */
	uint64_t tracked_bytes;   /* heap_bytes or more: neighbours in one mapping are tracked, too */
	uint64_t untracked_bytes; /* could not be tracked; taken for written in each stop */
	uint64_t pages_ahead;     /* announced as about to be written after a collection, so that they did not fault */
	uint64_t rests;           /* how often generations were left off because they did not pay (preloaded) */
};

/* -EINVAL (sz too small). Takes no lock but the collector's. */
UFFDWP_GC_EXPORT int uffdwp_gc_stats(struct uffdwp_gc_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
