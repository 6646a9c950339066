/* SPDX-License-Identifier: MIT */
/*
 * The actors of the stress test of tracks: what happens to a field while it is tracked.
 *
 *   writers    user stores, atomic operations, memcpy(3) over pages, read(2) and pread(2) into tracked memory, some of
 *              them announced by uffdwp_track_prepare()
 *   changer    takes ranges out of the track and adds them again, as written or as clean
 *   spoiler    MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT, MADV_COLLAPSE, mprotect(2), mremap(2), munmap(2) and a new
 *              mapping, hole punches by the library, children that write, threads that write and end
 *
 * Each reports to the judge what it does. Writers never write a word of zeros, so that zeros show content that went.
 *
 * Threads: each actor is one step of a loop of its own thread; the chance that it is given decides what it does.
 */
#ifndef SUPPORT_TRACK_ACTORS_H
#define SUPPORT_TRACK_ACTORS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "chance.h"
#include "track_field.h"
#include "track_judge.h"

#define STAGE_WRITERS 3 /* threads; after them in the judge's counts come: */
#define STAGE_CHANGER 3
#define STAGE_SPOILER 4
#define STAGE_VISITOR 5 /* a thread that does not live long */
#define STAGE_ROLES 6

enum deed {
	DEED_DONTNEED,
	DEED_FREE,
	DEED_PAGEOUT,
	DEED_COLLAPSE,
	DEED_MPROTECT,
	DEED_MOVE,
	DEED_REPLACE,
	DEED_PUNCH,
	DEED_FORK,
	DEED_THREAD,
	DEED_COUNT
};

/* Where they act. */
struct actors {
	struct field *field;
	struct judge *judge;
	pthread_rwlock_t cut_lock;  /* regions: writers share it, the cut of a snapshot has it alone */
	pthread_mutex_t space_lock; /* for mapping and unmapping: no mapping may come to lie in another's gap */
	int snapshots;              /* a snapshot may run now: nothing may be done that fails it */
	int source;                 /* a file of random bytes to read(2) from */
	_Atomic uint64_t writes;
	_Atomic uint64_t by_system_calls; /* of these */
	_Atomic uint64_t adds;
	_Atomic uint64_t removes;
	_Atomic uint64_t deeds[DEED_COUNT]; /* that were done */
};

void actors_open(struct actors *actors, struct field *field, struct judge *judge);
void actors_close(struct actors *actors);

/* Writes to each page, while no actor runs: what was given back by MADV_FREE, and that the kernel has kept so far, is
 * not dropped any more, which would be a loss of content that no event reports. */
void actors_write_all(struct actors *actors, struct chance *chance);

const char *deed_name(enum deed deed);

void actor_write(struct actors *actors, struct chance *chance, size_t role);
void actor_change(struct actors *actors, struct chance *chance);
void actor_spoil(struct actors *actors, struct chance *chance);

#endif
