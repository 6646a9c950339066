/* SPDX-License-Identifier: MIT */
/*
 * The snapshots of one database: at most one runs, the last one is remembered.
 *
 * A handle of the library is freed ("reaped") by the next call that finds it ended and unused. The thread that begins a
 * snapshot uses it until it has taken what it reports: no other thread can begin the next one before, whose status
 * would be taken for that of this one. Threads: any.
 */
#ifndef UFFDWP_SQLITE_SHOTS_H
#define UFFDWP_SQLITE_SHOTS_H

#include <pthread.h>
#include <stdint.h>

#include "uffdwp.h"

#define SHOT_TEXT_BYTES 256

struct shots {
	pthread_mutex_t mutex;
	pthread_cond_t idle; /* users became 0 */
	struct uffdwp_snapshot *running;
	unsigned users;    /* threads that wait for `running`, or have yet to take its status */
	uint64_t id;       /* of the last one; 0: there was none */
	uint64_t begin_ns; /* how long its begin took, from the call to its return */
	char *path;
	struct uffdwp_snapshot_progress last; /* valid when it was reaped */
	int beginning;                        /* 1: a begin is under way */
	char text[SHOT_TEXT_BYTES];           /* why the last one failed */
};

/* What is known of a snapshot. */
struct shot_status {
	uint64_t id; /* 0: there was none */
	uint64_t begin_ns;
	struct uffdwp_snapshot_progress progress;
	char text[SHOT_TEXT_BYTES];
	char *path; /* the receiver's to free(); NULL: none, or no memory */
};

void shots_init(struct shots *shots);

/* Waits for a running snapshot. 0, or the error that ended it; its text is in shots->text. */
int shots_fini(struct shots *shots);

/* Where the cut may be made: see cut_enter and cut_leave of uffdwp.h. enter sets the length. */
struct shot_boundary {
	int (*enter)(void *user, uint64_t *length);
	void (*leave)(void *user);
	void *user;
};

#define SHOT_WAIT (1u << 0)  /* returns when it has ended */
#define SHOT_KEEP (1u << 1)  /* a delta may follow */
#define SHOT_DELTA (1u << 2) /* only what was written since the last one; keeps, too */

/* Makes the cut. `how`: SHOT_*. 0: `status` is that of this very snapshot, as shots_status() gives it; with SHOT_WAIT
 * it has ended, or failed. Else -ENODATA (a delta of nothing), -EBUSY (one runs), -ENOMEM, what enter refused with, or
 * what the library answers. */
int shots_begin(struct shots *shots, struct uffdwp_region *region, const char *path, unsigned how,
                const struct shot_boundary *boundary, struct shot_status *status);

/* 1: there was a snapshot. */
int shots_any(struct shots *shots);

/* Describes the running one, or the last. */
void shots_status(struct shots *shots, struct shot_status *status);

#endif
