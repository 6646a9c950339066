/* SPDX-License-Identifier: MIT */
/* What sets.c offers to track.c beside track.h. Threads: any, with tracks_lock held for writing unless it is said. */
#ifndef UFFDWP_TRACK_SETS_H
#define UFFDWP_TRACK_SETS_H

#include "track/track.h"

/* Before tracks_lock is taken for the first time: a child of fork() has it free, and no track. */
void sets_watch_forks(void);

/* The track is one of this process's, or not any more. The first takes tracks_lock itself. */
void sets_link(struct uffdwp_track *track);
void sets_unlink(struct uffdwp_track *track);

/* The address of a page of a watched range. */
uint64_t sets_address_of(const struct watched *watched, uint64_t page);

/* 1: there is room for what one change may add to each set. */
int sets_have_room(const struct uffdwp_track *track);

/* Unregisters what is ours of [start, end), and nothing of others. */
void sets_give_back(struct uffdwp_track *track, uint64_t start, uint64_t end);

/* 1: the track was asked to watch some of [start, end), and it is still there: what vanished without its event having
 * been read is taken out. */
int sets_still_track(struct uffdwp_track *track, uint64_t start, uint64_t end);

/* Takes the gaps of other tracks in [start, end); `track` may be NULL. -EBUSY: they were asked to watch some of it. */
int sets_take_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end);

/* 1: another track has registered some of [start, end). */
int sets_foreign_between(const struct uffdwp_track *track, uint64_t start, uint64_t end);

/* 1: some track watches one of pages [first, end) of the region. */
int sets_any_watches(const struct uffdwp_region *region, uint64_t first, uint64_t end);

#endif
