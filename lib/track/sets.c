/* SPDX-License-Identifier: MIT */
/*
 * The sets of ranges of all tracks: what is tracked, what lies in between, and what becomes of it when mappings move or
 * vanish. track.c gives them their life, async.c registers and arms; see track.h for the idea.
 *
 * Threads: any, with tracks_lock held as each function says.
 */
#include "track/sets.h"

#include <errno.h>

#include "base/forks.h"
#include "base/math.h"
#include "base/trace.h"

/* A thread that collects all the time must not keep out a thread that unmaps. */
struct shared_lock tracks_lock = SHARED_LOCK_INIT;
static struct uffdwp_track *all_tracks;

struct uffdwp_track *track_first(void)
{
	return all_tracks;
}

/* A child of fork() has none of the registrations. */
static void sets_forget_in_child(void)
{
	static const struct shared_lock fresh = SHARED_LOCK_INIT;

	lock_shared_renew(&tracks_lock, &fresh);
	all_tracks = NULL;
}

void sets_watch_forks(void)
{
	forks_add(sets_forget_in_child);
}

/* ---- pieces ---- */

uint64_t sets_address_of(const struct watched *watched, uint64_t page)
{
	return (uint64_t)(uintptr_t)region_address(watched->region, page);
}

/* The part of a watched range at or after `from`, in whole pages of its region. 0: none. */
static int sets_watched_piece(const struct watched *watched, uint64_t from, uint64_t to, struct piece *out)
{
	uint64_t base = sets_address_of(watched, 0);
	unsigned shift = watched->region->page_shift;
	uint64_t start = base + (watched->first << shift);
	uint64_t end = base + (watched->end << shift);

	if (end <= from || start >= to)
		return 0;
	out->region = watched->region;
	out->first = from > start ? (from - base) >> shift : watched->first;
	out->start = base + (out->first << shift);
	out->end = to >= end ? end : base + math_round_up(to - base, watched->region->page_bytes);
	return 1;
}

/* The lowest of the watched pieces. 0: none. */
static int sets_next_watched(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out)
{
	struct piece piece;
	int found = 0;

	for (size_t i = 0; i < track->watched_count; i++) {
		if (!sets_watched_piece(&track->watched[i], from, to, &piece) || (found && piece.start >= out->start))
			continue;
		*out = piece;
		found = 1;
	}
	return found;
}

/* Tracks of what is populated only: as far as the piece is of one kind. */
static void sets_set_kind(const struct uffdwp_track *track, struct piece *piece)
{
	const struct ranges *shared = &track->shared;
	size_t i = ranges_find(shared, piece->start);

	if (!(track->flags & UFFDWP_TRACK_START_POPULATED))
		return;
	piece->populated = i == shared->count || shared->at[i].start > piece->start;
	if (i < shared->count)
		piece->end = math_min_u64(piece->end, piece->populated ? shared->at[i].start : shared->at[i].end);
}

int track_next_piece(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out)
{
	struct piece watched;
	struct range part;

	if (from >= to)
		return 0;
	int has_watched = sets_next_watched(track, from, to, &watched);

	if (ranges_next(&track->registered, &from, to, &part)) {
		*out = (struct piece){.start = part.start, .end = part.end};
		sets_set_kind(track, out);
		if (!has_watched || out->start < watched.start)
			return 1; /* they do not overlap: another userfaultfd is refused there */
	}
	if (has_watched)
		*out = watched;
	return has_watched;
}

int track_touches(const struct uffdwp_track *track, uint64_t from, uint64_t to)
{
	struct piece piece;

	return ranges_touch(&track->ranges, from, to) || sets_next_watched(track, from, to, &piece);
}

void sets_link(struct uffdwp_track *track)
{
	sigset_t before;

	lock_shared_write(&tracks_lock, &before);
	track->next = all_tracks;
	all_tracks = track;
	lock_shared_give(&tracks_lock, &before);
}

/* With tracks_lock held for writing. */
void sets_unlink(struct uffdwp_track *track)
{
	for (struct uffdwp_track **link = &all_tracks; *link; link = &(*link)->next) {
		if (*link == track) {
			*link = track->next;
			break;
		}
	}
}

/* ---- what happens to ranges ---- */

/* Unregisters what is ours of [start, end), and nothing of others. With tracks_lock held for writing. */
void sets_give_back(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range part;

	for (uint64_t from = start; ranges_next(&track->registered, &from, end, &part);)
		async_unregister(track, part.start, part.end);
	ranges_remove(&track->registered, start, end);
}

/* Room for what one change may add to each set. */
int sets_have_room(const struct uffdwp_track *track)
{
	return ranges_have_room(&track->ranges, 2) && ranges_have_room(&track->registered, 2) &&
	       ranges_have_room(&track->shared, 2);
}

/* What of [start, end), all of it registered once, is not any more: it leaves the sets. Bytes that were asked for, or
 * -errno. */
static int64_t sets_audit_part(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = 0;
	struct range found;

	while (start < end) {
		int has = async_next_registered(track, start, end, &found);

		if (has < 0 || !sets_have_room(track))
			return has < 0 ? has : -ENOMEM;
		if (!has)
			found = (struct range){end, end};
		if (found.start > start) {
			ranges_remove(&track->registered, start, found.start);
			ranges_remove(&track->shared, start, found.start);
			gone += (int64_t)ranges_remove(&track->ranges, start, found.start);
		}
		start = found.end;
	}
	return gone;
}

/* Each look at the set may find it changed by the last: hence by address. */
static int64_t sets_audit_within(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = 0;
	struct range part;

	while (ranges_next(&track->registered, &start, end, &part)) {
		int64_t of_part = sets_audit_part(track, part.start, part.end);

		if (of_part < 0)
			return of_part;
		gone += of_part;
	}
	return gone;
}

int64_t track_vanish(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = sets_audit_within(track, start, end);

	if (gone > 0) {
		atomic_fetch_add(&track->vanished_bytes, (uint64_t)gone);
		atomic_fetch_add(&track->vanished_all_bytes, (uint64_t)gone);
	}
	return gone;
}

int track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes)
{
	sigset_t before;

	lock_shared_write(&tracks_lock, &before);
	int64_t gone = track_vanish(track, 0, UINT64_MAX);

	lock_shared_give(&tracks_lock, &before);
	if (gone < 0)
		return (int)gone;
	*vanished_bytes = (uint64_t)gone;
	return 0;
}

/* The part of [from, from + length) that is in the set is at `to`, too. Only a part of a mapping may be in it. */
static void sets_copy_ranges(struct ranges *ranges, uint64_t from, uint64_t to, uint64_t length)
{
	uint64_t at = from;
	struct range part;

	/* `to` may lie beside the old place, and make one range with it. */
	while (ranges_have_room(ranges, 1) && ranges_next(ranges, &at, from + length, &part))
		ranges_add(ranges, to + (part.start - from), to + (part.end - from));
}

static void sets_disarm_registered(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range part;

	while (ranges_next(&track->registered, &start, end, &part))
		async_disarm(track, part.start, part.end);
}

/* The kernel moves registrations along with the mapping. The old place may have been taken and added again meanwhile,
 * or be kept (MREMAP_DONTUNMAP): what is registered there stays. */
void track_move(struct uffdwp_track *track, uint64_t from, uint64_t to, uint64_t length)
{
	sets_copy_ranges(&track->registered, from, to, length);
	sets_copy_ranges(&track->shared, from, to, length);
	sets_copy_ranges(&track->ranges, from, to, length);
	if (atomic_load(&track->doubtful)) {
		TRACE("track %p: what a scan had armed was moved, perhaps: all of it counts as written", (void *)track);
		sets_disarm_registered(track, to, to + length);
	}
	sets_audit_within(track, from, from + length);
}

/* 1: the track was asked to watch some of [start, end), and it is still there: a range with an unread event is taken
 * out. */
int sets_still_track(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	if (!ranges_touch(&track->ranges, start, end))
		return 0;
	track_vanish(track, start, end);
	return ranges_touch(&track->ranges, start, end);
}

/* Other tracks' gaps in [start, end). -EBUSY: they were asked to watch some of it. With tracks_lock held for writing.
 */
int sets_take_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other == track || !ranges_touch(&other->registered, start, end))
			continue;
		if (sets_still_track(other, start, end) || !sets_have_room(other))
			return -EBUSY;
		sets_give_back(other, start, end);
	}
	return 0;
}

void track_yield(uint64_t start, uint64_t end)
{
	sigset_t before;

	sets_watch_forks();
	lock_shared_write(&tracks_lock, &before);
	sets_take_gaps(NULL, start, end);
	lock_shared_give(&tracks_lock, &before);
}

int sets_foreign_between(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (const struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other != track && ranges_touch(&other->registered, start, end))
			return 1;
	}
	return 0;
}

static int sets_watch(const struct uffdwp_track *track, const struct uffdwp_region *region, uint64_t first,
                      uint64_t end)
{
	for (size_t i = 0; i < track->watched_count; i++) {
		const struct watched *watched = &track->watched[i];

		if (watched->region == region && watched->first < end && first < watched->end)
			return 1;
	}
	return 0;
}

int sets_any_watches(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (const struct uffdwp_track *track = all_tracks; track; track = track->next) {
		if (sets_watch(track, region, first, end))
			return 1;
	}
	return 0;
}
