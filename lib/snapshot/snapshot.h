/* SPDX-License-Identifier: MIT */
/*
 * A snapshot: the bytes of a region at one instant, the cut, saved while writers go on.
 *
 *   begin    all that can be refused is refused, all memory is there, the thread runs: then the cut (cut.h).
 *   running  faults keep pre-images in the pool (fault/), the sweep saves what is not written and empties the pool.
 *   end      every page is FREE again and the region IDLE; then the sink commits, or everything is taken back.
 *
 * INV-COMMIT: an image is under its name complete and synced, or not at all. (A block device has no other name to write
 * under: nbd.c says what takes the place of that.) INV-SAFE: a page is unprotected (LEAVING or SAVED, then disarmed)
 * only when its bytes are in memory of ours; the sink never reads the region.
 *
 * Threads: the snapshot's own does the sweep, the sink and the end. Callers poll, wait, abort from any thread. `lock`
 * covers state, text and times; it is held for moments only.
 */
#ifndef UFFDWP_SNAPSHOT_SNAPSHOT_H
#define UFFDWP_SNAPSHOT_SNAPSHOT_H

#include <errno.h>
#include <pthread.h>

#include "base/bucket.h"
#include "base/lock.h"
#include "base/text.h"
#include "cut/cut.h"
#include "fault/fault.h"
#include "io/loop.h"
#include "kernel/order.h"
#include "kernel/own.h"
#include "snapshot/sink.h"
#include "uffdwp.h"

/* What the sweep saves at once, and hands to the sink. */
#define CHUNK_PAGES_MAX 256
#define CHUNK_COUNT_MAX 8

/* The least that a pool is made of: slots and a chunk. */
#define SNAPSHOT_POOL_PAGES_MIN 4

/* What is touched of the pool before the cut; before one that arms all pages at once, whose caller shall not wait, of
 * the pool and of each table: the rest is touched by the snapshot's thread, beside the rounds or after the cut. */
#define SNAPSHOT_TOUCH_BYTES (2ull << 20)
#define SNAPSHOT_TOUCH_MOVE_BYTES (64ull << 10)

/* How many pages the sweep claims at a time: a writer that meets one waits for the copy of all. */
#define SWEEP_BATCH_PAGES 64

/* Starving writers are woken when this part of the pool is free again, or this long after the first slot was. */
#define SWEEP_WAKE_SHARE 128
#define SWEEP_WAKE_NS 1000000ull

/* How often a sweep that keeps to a rate looks whether the pool runs low. */
#define SWEEP_SLEEP_NS 1000000ull

struct uffdwp_snapshot {
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	struct preserve preserve;
	struct uffdwp_snapshot_options options; /* `path` is not kept */
	struct cut cut;
	int no_uring;

	/* The sweep's; the counters are read by others. */
	struct sink sink;
	unsigned char *buffers; /* of all chunks */
	struct chunk chunks[CHUNK_COUNT_MAX];
	unsigned chunk_count;
	uint64_t chunk_pages;
	int is_prepared;         /* the sink was, see sink.h */
	int touches_late;        /* after the cut, what begin has left of the pool; fixed before the thread starts */
	unsigned char *swept;    /* by chunk of the region: done */
	uint64_t cursor;         /* how many chunks, in order, are done for sure */
	uint32_t freed_slots;    /* of the pool, since starving writers were last woken */
	uint64_t freed_since_ns; /* when the first of them was */
	struct bucket rate;
	_Atomic uint64_t pages_sweep;
	_Atomic uint64_t pages_hole;
	_Atomic uint64_t bytes_written;

	uint64_t begun_ns;

	pthread_t thread;
	struct order order; /* the thread waits for it at first */
	struct lock lock;
	_Atomic uint32_t
	        changes; /* moves with the state; a thread that waits for that sleeps on it, without the lock */
	int ended_tag;
	int ended_fd; /* eventfd, readable when it has ended; -1: not asked for */
	enum uffdwp_snapshot_state state;
	int error;
	uint64_t ended_ns;
	uint64_t faults_during; /* valid when ended */
	struct text text;
	struct roster_entry roster; /* there, where the program has control */
};

/* 1: the page had content shortly before the cut; 0: it had none, or that is unknown. */
static inline int snapshot_had_content(const struct uffdwp_snapshot *snapshot, uint64_t page)
{
	return (int)(snapshot->preserve.content[page / 64] >> (page % 64) & 1);
}

/* Snapshots of `count` regions, with one cut; options[0] has the caller's boundary. All or none. */
int snapshot_begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options, size_t count,
                   int no_uring, struct text *text, struct uffdwp_snapshot **out);
void snapshot_progress(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress);
int snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms);
void snapshot_abort(struct uffdwp_snapshot *snapshot);

/* A descriptor that is readable when it has ended, the same each time, or -errno. */
int snapshot_fd(struct uffdwp_snapshot *snapshot);
void snapshot_free(struct uffdwp_snapshot *snapshot);

/* What the sink answered. One that ends because the snapshot has failed elsewhere did not fail itself. In its thread.
 */
static inline int snapshot_sink_answer(struct uffdwp_snapshot *snapshot, int error)
{
	if (error && !atomic_load(&snapshot->preserve.error))
		snapshot->sink.error = error;
	return error;
}

/* The sink has failed at a page. In the snapshot's thread. */
static inline void snapshot_sink_fail(struct uffdwp_snapshot *snapshot, int error, uint64_t page)
{
	snapshot_sink_answer(snapshot, error);
	fault_fail(snapshot->region, &snapshot->preserve, error, page);
}

/* The sink's prepare(), once. */
static inline int snapshot_prepare_sink(struct uffdwp_snapshot *snapshot, struct text *text)
{
	int is_prepared = snapshot->is_prepared || !snapshot->sink.ops->prepare;

	snapshot->is_prepared = 1;
	return is_prepared ? 0 : snapshot->sink.ops->prepare(snapshot, text);
}

/* 0, or -EBADF: the program has closed the uffd; nothing is protected any more, and what is written is not seen. */
static inline int snapshot_check_own(const struct uffdwp_snapshot *snapshot)
{
	const struct uffdwp_region *region = snapshot->region;

	return region->uffd >= 0 && own_check(region->k, region->uffd, region->tag) ? -EBADF : 0;
}

/* sweep.c: what begin has left of the pool is touched. Beside the rounds of a cut, when nothing may be read that the
 * cut still changes (the length of the image); or after a move of page tables, which would wait. */
void sweep_touch_pool(struct uffdwp_snapshot *snapshot);

/* Saves every page; 0, or the error that ended it. */
int sweep_run(struct uffdwp_snapshot *snapshot);

#endif
