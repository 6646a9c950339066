/* SPDX-License-Identifier: MIT */
/*
 * A snapshot: the bytes of a region at one instant, the cut, saved while writers go on.
 *
 *   begin    all that can be refused is refused, all memory is there, the thread runs: then the cut (cut.h).
 *   running  faults keep pre-images in the pool (fault/), the sweep saves what nobody writes and empties the pool.
 *   end      every page is FREE again and the region IDLE; then the sink commits, or everything is taken back.
 *
 * INV-COMMIT: an image is under its name complete and synced, or not at all. (A block device has no other name to write
 * under: nbd.c says what takes the place of that.)
 * INV-SAFE: a page is let go (LEAVING or SAVED, then disarmed) only when its bytes are in memory of ours; the sink
 * never reads the region.
 *
 * Threads: the snapshot's own does the sweep, the sink and the end. Callers poll, wait, abort from any thread. `lock`
 * covers state, text and times; it is held for moments only.
 */
#ifndef UFFDWP_SNAPSHOT_SNAPSHOT_H
#define UFFDWP_SNAPSHOT_SNAPSHOT_H

#include <pthread.h>

#include "base/bucket.h"
#include "base/text.h"
#include "fault/fault.h"
#include "fault/loop.h"
#include "snapshot/sink.h"
#include "uffdwp.h"

/* What the sweep saves at once, and hands to the sink. */
#define CHUNK_PAGES_MAX 256
#define CHUNK_COUNT_MAX 8

/* The least that a pool is made of: slots and a chunk. */
#define SNAPSHOT_POOL_PAGES_MIN 4

/* How many pages the sweep claims at a time: a writer that meets one waits for the copy of all. */
#define SWEEP_BATCH_PAGES 64

/* Starving writers are woken when this part of the pool is free again, or this long after the first slot was. */
#define SWEEP_WAKE_SHARE 128
#define SWEEP_WAKE_NS 1000000

/* How often a sweep that keeps to a rate looks whether the pool runs low. */
#define SWEEP_NAP_NS 1000000ull

enum snapshot_order { SNAPSHOT_PREPARE, SNAPSHOT_GO, SNAPSHOT_FORGET };

struct uffdwp_snapshot {
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	struct preserve preserve;
	struct uffdwp_snapshot_options options; /* `path` is not kept */
	uint64_t length_bytes;                  /* decided at the cut */
	uint64_t pages_most;                    /* of the region's capacity */
	int no_uring;

	/* The sweep's; the counters are read by others. */
	struct sink sink;
	unsigned char *buffers; /* of all chunks */
	struct chunk chunks[CHUNK_COUNT_MAX];
	unsigned chunk_count;
	uint64_t chunk_pages;
	unsigned char *swept;    /* by chunk of the region: done */
	uint64_t cursor;         /* how many chunks of the way are done for sure */
	uint32_t freed_slots;    /* of the pool, since starving writers were last woken */
	uint64_t freed_since_ns; /* when the first of them was */
	struct bucket rate;
	_Atomic uint64_t pages_sweep;
	_Atomic uint64_t pages_hole;
	_Atomic uint64_t bytes_written;

	/* The cut's; see cut.h. */
	struct uffdwp_view *view;        /* what is cut is a view: no pre-images, no sink, no thread */
	int increment;                   /* it holds what changed since its parent */
	_Atomic uint64_t *pages_changed; /* a bit for each page; NULL: not known */
	uint32_t rounds;
	uint64_t rounds_pages; /* armed in the rounds, again and again */
	uint64_t rounds_begun_ns;
	uint64_t rounds_ns;
	uint64_t held_most_ns;    /* longest holding of faults in the rounds */
	uint64_t rounds_end_page; /* pages behind it no round has seen */
	uint64_t braked_before_ns;
	uint64_t braked_ns;
	uint64_t pause_pages; /* armed in the pause */

	uint64_t begun_ns;
	uint64_t pause_ns;
	uint64_t faults_before; /* of the region, at the cut */

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum snapshot_order order;
	enum uffdwp_snapshot_state state;
	int error;
	uint64_t ended_ns;
	uint64_t faults_during; /* valid when ended */
	struct text text;
};

/* 1: the page had content shortly before the cut; 0: it had none, or nobody knows. */
static inline int snapshot_had_content(const struct uffdwp_snapshot *snapshot, uint64_t page)
{
	return (int)(snapshot->preserve.content[page / 64] >> (page % 64) & 1);
}

/* Of `count` regions, with one cut; options[0] has the caller's boundary. All or none. */
int snapshot_begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options, size_t count,
                   int no_uring, struct text *text, struct uffdwp_snapshot **out);
void snapshot_progress(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress);
int snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms);
void snapshot_abort(struct uffdwp_snapshot *snapshot);
void snapshot_free(struct uffdwp_snapshot *snapshot);

/* sweep.c: saves every page; 0, or the error that ended it. */
int sweep_run(struct uffdwp_snapshot *snapshot);

#endif
