/* SPDX-License-Identifier: MIT */
/*
 * The adapter between the collector and a track.
 *
 * In manual mode the collector believes its dirty bits to be set by the program (GC_end_stubborn_change() for each
 * object that was written). Here they are set from a track, in bulk, right before they are read.
 *
 * INV-GC: when the collector reads its dirty bits, the bit of each page of its heap that holds a marked object and was
 * written since it read them last is set.
 *
 * Why it holds (libgc 8.2; the names are those of its source):
 *
 *  1. A dirty bit matters for objects that are marked already: an object that is not gets marked, and scanned whole,
 *     when it is found. Registers, stacks and static data are always scanned in manual mode.
 *  2. Bits are read and cleared in GC_initiate_gc() only, for collections of every kind and for each attempt: right
 *     after GC_EVENT_MARK_START, with the world stopped and the allocation lock held. There the track is collected and
 *     fed. (GC_enable_incremental() throws bits away, too, while the world runs. Nothing is lost by it: what was
 *     written and not collected stays written in the kernel.)
 *  3. The heap grows under the allocation lock only, and that is held from GC_EVENT_PRE_STOP_WORLD to the reading. If
 *     it has grown, or anything went wrong since, the heap is looked for at PRE_STOP_WORLD, where the world runs and
 *     memory may be allocated: the track then has all of it. What is added to a track counts as written until it is
 *     collected, so the stop that follows sees every page of the new memory, whenever it was written. What
 *     GC_mark_some() recycles into the heap while it marks has no marked object until the next stop, before which it is
 *     found.
 *  4. Every write to memory that was in the track lands in one answer (INV-TRACK). The collector gives memory back by
 *     MADV_DONTNEED, which keeps the mapping; pages that come back carry no wp bit, so they count as written. A
 *     collector that replaces mappings instead is noticed: while it has unmapped something, each stop compares the
 *     track with the mappings first.
 *  5. A block of the collector that is larger than a page is dirty if one of its pages is; a page that is larger than a
 *     block is fed block by block.
 *  6. Pages without memory (UFFDWP_TRACK_START_POPULATED) are zeros, and have no pointers.
 *  7. Where the track cannot answer (an error, vanished memory, a child of fork()) all of the heap counts as written.
 *  8. What is not armed counts as written: pages that are announced after a collection (ahead.c), and all of the heap
 *     while generations rest (pay.c). It may only be fed more than was written, never less.
 *
 * While the world is stopped nothing here allocates, and no lock is taken but the track's, which no thread holds then:
 * all calls to the track are made under the allocation lock. The threads of the runtime are not the collector's: they
 * are never stopped and never touch its heap.
 *
 * Threads: state is written under the allocation lock (events, GC_call_with_alloc_lock()); uffdwp_gc_start() holds a
 * mutex of its own beside.
 */
#ifndef BDWGC_ADAPTER_H
#define BDWGC_ADAPTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The declarations for threads, without its macros for pthread_create() and the like. */
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>

#include "heap.h"
#include "uffdwp_gc.h"

#define ADAPTER_TEXT_BYTES 512

struct adapter {
	atomic_bool on;
	bool blind;
	bool feeding; /* the collector's dirty bits are ours, or are about to be */
	bool resting; /* generations are left off: everything counts as written (pay.c) */
	pid_t pid;    /* the process with the memory that the track watches */
	struct uffdwp *runtime;
	struct uffdwp_track *track; /* NULL: to be started again */
	struct heap heap;
	bool complete;            /* the track has all of the heap */
	bool exact;               /* the last stop fed what was written, not everything */
	uint64_t heap_bytes;      /* of the collector, when it was complete */
	uint64_t allocated_bytes; /* between the last two stops */
	size_t block_bytes;       /* of the collector */
	size_t step_bytes; /* from one dirty bit to the next: a block of the collector, or a page if that is less */
	char text[ADAPTER_TEXT_BYTES];
	struct uffdwp_gc_stats stats;
};

extern struct adapter adapter;

/* Sets the text of the last error; the allocation lock is held. */
void adapter_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same with what the library says about it. */
void adapter_say_library(const char *what);

/* A function of the collector that this library stands before. */
void *adapter_real_function(const char *name);

int adapter_start_track(void);

/* Whether uffdwp_gc_start() would be refused, as far as that is known before: 0, or its error and text. */
int adapter_try(void);

/* 1: this is a child of the process that switched the adapter on. */
bool adapter_in_child(void);

/* events.c: the two ends of each stop. */
void events_install(void);
void events_remove(void);
bool events_installed(void);

/* feed.c */
void feed_prepare(void);
void feed_collect(void);
void feed_end(void);

/* ahead.c: before the world stops; in the stop, for each range that was written, or when not all was seen; after it. */
void ahead_reserve(void);
void ahead_begin(void);
void ahead_note(const struct uffdwp_written *range);
void ahead_forget(void);
void ahead_announce(void);

/*
 * pay.c. Until pay_wait() all of it does nothing.
 *
 * pay_wait: leave the collector as it is, and set pay_wanted once a stop takes this much processor time.
 * pay_switch_on() then calls switch_on in one thread, which holds no lock; so does a program that asks for generations
 * meanwhile. pay_started: the adapter is on, generations are rested where they do not pay, unless it is fixed.
 */
extern atomic_bool pay_wanted;
void pay_wait(uint64_t long_ns, void (*switch_on)(void));
bool pay_is_waiting(void);
void pay_switch_on(void);
void pay_started(bool is_fixed, unsigned rest_each);
void pay_stop_begins(void);
void pay_stop_ends(void);
void pay_collection_ends(void);

#endif
