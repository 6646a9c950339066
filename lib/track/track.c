/* SPDX-License-Identifier: MIT */
/* Tracks and their ranges; see track.h for the idea. */
#include "track/track.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "base/trace.h"
#include "fault/runtime.h"

/* Gaps of so many pages and less are registered along: two mappings more cost as much as the faults of some pages. */
#define GAP_PAGES 16

/* Each is a region, of which there may be 4096. */
#define WATCHED_MAX 65536

/* Whoever collects all the time must not keep out who unmaps. */
#define LOCK_FREE PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP

pthread_rwlock_t tracks_lock = LOCK_FREE;
static struct uffdwp_track *all_tracks;
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct uffdwp_track *track_first(void)
{
	return all_tracks;
}

/* A child of fork() has none of the registrations, and perhaps a lock that nobody will give back. */
static void forget_in_child(void)
{
	static const pthread_rwlock_t fresh = LOCK_FREE;

	memcpy(&tracks_lock, &fresh, sizeof(fresh));
	all_tracks = NULL;
}

static void track_first_time(void)
{
	pthread_atfork(NULL, NULL, forget_in_child);
}

/* ---- pieces ---- */

static uint64_t address_of(const struct watched *watched, uint64_t page)
{
	return (uint64_t)(uintptr_t)region_address(watched->region, page);
}

/* The part of a watched range at or behind `from`, in whole pages of its region. 0: none. */
static int watched_piece(const struct watched *watched, uint64_t from, uint64_t to, struct piece *out)
{
	uint64_t base = address_of(watched, 0);
	unsigned shift = watched->region->page_shift;
	uint64_t start = base + (watched->first << shift);
	uint64_t end = base + (watched->end << shift);

	if (end <= from || start >= to)
		return 0;
	out->region = watched->region;
	out->first = from > start ? (from - base) >> shift : watched->first;
	out->start = base + (out->first << shift);
	out->end = to >= end ? end : base + round_up(to - base, watched->region->page_bytes);
	return 1;
}

/* The lowest of the watched pieces. 0: none. */
static int next_watched(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out)
{
	struct piece piece;
	int found = 0;

	for (size_t i = 0; i < track->watched_count; i++) {
		if (!watched_piece(&track->watched[i], from, to, &piece) || (found && piece.start >= out->start))
			continue;
		*out = piece;
		found = 1;
	}
	return found;
}

/* Of a track of what is populated: as far as the piece is of one kind. */
static void set_kind(const struct uffdwp_track *track, struct piece *piece)
{
	const struct ranges *shared = &track->shared;
	size_t i = ranges_find(shared, piece->start);

	if (!(track->flags & UFFDWP_TRACK_POPULATED))
		return;
	piece->populated = i == shared->count || shared->at[i].start > piece->start;
	if (i < shared->count)
		piece->end = min_u64(piece->end, piece->populated ? shared->at[i].start : shared->at[i].end);
}

int track_next_piece(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out)
{
	struct piece watched;
	struct range part;

	if (from >= to)
		return 0;
	int has_watched = next_watched(track, from, to, &watched);

	if (ranges_next(&track->registered, &from, to, &part)) {
		*out = (struct piece){.start = part.start, .end = part.end};
		set_kind(track, out);
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

	return ranges_touch(&track->ranges, from, to) || next_watched(track, from, to, &piece);
}

/* ---- start and stop ---- */

static void link_track(struct uffdwp_track *track)
{
	pthread_once(&once, track_first_time);
	pthread_rwlock_wrlock(&tracks_lock);
	track->next = all_tracks;
	all_tracks = track;
	pthread_rwlock_unlock(&tracks_lock);
}

/* With tracks_lock held for writing. */
static void unlink_track(struct uffdwp_track *track)
{
	for (struct uffdwp_track **link = &all_tracks; *link; link = &(*link)->next) {
		if (*link == track) {
			*link = track->next;
			break;
		}
	}
}

static void free_track(struct uffdwp_track *track)
{
	async_close(track);
	ranges_close(&track->ranges, track->k);
	ranges_close(&track->registered, track->k);
	ranges_close(&track->shared, track->k);
	pages_free(track->k, track->watched, WATCHED_MAX * sizeof(*track->watched));
	pages_free(track->k, track, sizeof(*track));
}

static int open_sets(struct uffdwp_track *track)
{
	track->watched = pages_new(track->k, WATCHED_MAX * sizeof(*track->watched));
	if (!track->watched || ranges_open(&track->ranges, track->k) || ranges_open(&track->registered, track->k) ||
	    ranges_open(&track->shared, track->k))
		return text_fail(track->text, -ENOMEM, "no address space for the sets of a track");
	return 0;
}

static int open_mechanism(struct uffdwp_track *track)
{
	int error = 0;

	if (track->mechanism == UFFDWP_MECHANISM_ASYNC) {
		error = async_open(track);
		if (!error && !(track->flags & UFFDWP_TRACK_NO_EVENTS))
			error = follow_start(track);
	} else if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY) {
		return soft_dirty_works(track->k, track->text);
	}
	return error ? text_fail(track->text, error, "the track could not be started: %s", strerror(-error)) : 0;
}

int track_start(struct uffdwp *runtime, const struct uffdwp_track_options *options, uint32_t mechanism,
                struct text *text, struct uffdwp_track **out)
{
	struct uffdwp_track *track = pages_new(runtime->k, sizeof(*track));

	if (!track)
		return text_fail(text, -ENOMEM, "no memory for a track");
	track->k = runtime->k;
	track->runtime = runtime;
	track->text = text;
	track->flags = options->flags;
	track->mechanism = mechanism;
	track->asked = options->mechanism;
	track->delivery = options->delivery;
	track->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	track->uffd = -1;
	track->pagemap = -1;
	int error = open_sets(track);

	if (!error)
		error = open_mechanism(track);
	if (error) {
		free_track(track);
		return error;
	}
	link_track(track);
	TRACE("track %p: mechanism %u%s", (void *)track, (unsigned)mechanism,
	      track->scan_skips_holes ? ", PAGEMAP_SCAN passes over holes here" : "");
	*out = track;
	return 0;
}

/* With tracks_lock held for writing. */
static void forget_watched(struct uffdwp_track *track, size_t i)
{
	track->watched[i] = track->watched[--track->watched_count];
}

struct uffdwp_region *track_take_owned(struct uffdwp_track *track)
{
	struct uffdwp_region *region = NULL;

	pthread_rwlock_wrlock(&tracks_lock);
	for (size_t i = 0; i < track->watched_count && !region; i++) {
		if (!track->watched[i].owned)
			continue;
		region = track->watched[i].region;
		forget_watched(track, i);
	}
	pthread_rwlock_unlock(&tracks_lock);
	if (region)
		watch_end(region);
	return region;
}

/* Unregisters what is ours of [start, end), and nothing of others. With tracks_lock held for writing. */
static void give_back(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range part;

	for (uint64_t from = start; ranges_next(&track->registered, &from, end, &part);)
		async_unregister(track, part.start, part.end);
	ranges_remove(&track->registered, start, end);
}

void track_stop(struct uffdwp_track *track)
{
	pthread_rwlock_wrlock(&tracks_lock);
	unlink_track(track);
	give_back(track, 0, UINT64_MAX); /* the follower is still there: nobody who unmaps waits in vain */
	ranges_remove(&track->ranges, 0, UINT64_MAX);
	ranges_remove(&track->shared, 0, UINT64_MAX);
	pthread_rwlock_unlock(&tracks_lock);
	follow_stop(track);
	for (size_t i = 0; i < track->watched_count; i++)
		watch_end(track->watched[i].region);
	free_track(track);
}

/* ---- what happens to ranges ---- */

/* Room for what one change may add to each set. */
static int has_room(const struct uffdwp_track *track)
{
	return ranges_have_room(&track->ranges, 2) && ranges_have_room(&track->registered, 2) &&
	       ranges_have_room(&track->shared, 2);
}

/* What of [start, end), all of it registered once, is not any more: it leaves the sets. Bytes that were asked for, or
 * -errno. */
static int64_t audit_part(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = 0;
	struct range found;

	while (start < end) {
		int has = async_next_registered(track, start, end, &found);

		if (has < 0 || !has_room(track))
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
static int64_t audit_within(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = 0;
	struct range part;

	while (ranges_next(&track->registered, &start, end, &part)) {
		int64_t of_part = audit_part(track, part.start, part.end);

		if (of_part < 0)
			return of_part;
		gone += of_part;
	}
	return gone;
}

int64_t track_vanish(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	int64_t gone = audit_within(track, start, end);

	if (gone > 0) {
		atomic_fetch_add(&track->vanished_bytes, (uint64_t)gone);
		atomic_fetch_add(&track->vanished_all_bytes, (uint64_t)gone);
	}
	return gone;
}

int track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes)
{
	pthread_rwlock_wrlock(&tracks_lock);
	int64_t gone = track_vanish(track, 0, UINT64_MAX);

	pthread_rwlock_unlock(&tracks_lock);
	if (gone < 0)
		return (int)gone;
	*vanished_bytes = (uint64_t)gone;
	return 0;
}

/* What of [from, from + length) is in the set is at `to`, too. Of a mapping only a part may be in it. */
static void copy_ranges(struct ranges *ranges, uint64_t from, uint64_t to, uint64_t length)
{
	uint64_t at = from;
	struct range part;

	/* `to` may lie beside the old place, and make one range with it. */
	while (ranges_have_room(ranges, 1) && ranges_next(ranges, &at, from + length, &part))
		ranges_add(ranges, to + (part.start - from), to + (part.end - from));
}

static void disarm_registered(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range part;

	while (ranges_next(&track->registered, &start, end, &part))
		async_disarm(track, part.start, part.end);
}

/* The kernel moves registrations along with the mapping. The old place may have been taken and added again meanwhile,
 * or be kept (MREMAP_DONTUNMAP): what is registered there stays. */
void track_move(struct uffdwp_track *track, uint64_t from, uint64_t to, uint64_t length)
{
	copy_ranges(&track->registered, from, to, length);
	copy_ranges(&track->shared, from, to, length);
	copy_ranges(&track->ranges, from, to, length);
	if (atomic_load(&track->doubtful)) {
		TRACE("track %p: what a scan had armed was moved, perhaps: all of it counts as written", (void *)track);
		disarm_registered(track, to, to + length);
	}
	audit_within(track, from, from + length);
}

/* ---- ranges ---- */

/* 1: the track was asked to watch some of [start, end), and it is still there: whose event was not read yet is taken
 * out.
 */
static int still_tracks(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	if (!ranges_touch(&track->ranges, start, end))
		return 0;
	track_vanish(track, start, end);
	return ranges_touch(&track->ranges, start, end);
}

/* Other tracks' gaps in [start, end). -EBUSY: they were asked to watch some of it. With tracks_lock held for writing.
 */
static int take_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other == track || !ranges_touch(&other->registered, start, end))
			continue;
		if (still_tracks(other, start, end) || !has_room(other))
			return -EBUSY;
		give_back(other, start, end);
	}
	return 0;
}

void track_yield(uint64_t start, uint64_t end)
{
	pthread_rwlock_wrlock(&tracks_lock);
	take_gaps(NULL, start, end);
	pthread_rwlock_unlock(&tracks_lock);
}

static int is_foreign_between(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (const struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other != track && ranges_touch(&other->registered, start, end))
			return 1;
	}
	return 0;
}

/* The range and the gaps beside it, where these are small. */
static struct range with_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	const struct ranges *ranges = &track->ranges;
	uint64_t widest = GAP_PAGES * track->page_bytes;
	size_t next = ranges_find(ranges, start);
	struct range range = {start, end};

	if (next > 0 && start - ranges->at[next - 1].end <= widest)
		range.start = ranges->at[next - 1].end;
	if (next < ranges->count && ranges->at[next].start - end <= widest)
		range.end = ranges->at[next].start;
	return range;
}

/* What lies in a gap may be such that it cannot be registered, or somebody else's: then the range alone. */
static int register_with_gaps(struct uffdwp_track *track, struct range *range, uint64_t start, uint64_t end)
{
	const struct range tries[] = {*range, {start, range->end}, {range->start, end}, {start, end}};
	int error = -EINVAL;

	for (size_t i = 0; i < 4 && error; i++) {
		int is_last = tries[i].start == start && tries[i].end == end;

		if (!is_last && is_foreign_between(track, tries[i].start, tries[i].end))
			continue;
		*range = tries[i];
		error = async_register(track, range->start, range->end);
	}
	return error;
}

/* All of [start, end) must be mapped: what is mapped into a hole later would not be registered. */
static int check_whole(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range found = {0};
	int has = async_next_registered(track, start, end, &found);

	if (has < 0)
		return has;
	return has && found.start == start && found.end == end ? 0 : -ENOENT;
}

/* With room in both sets. */
static int register_range(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	struct range range = with_gaps(track, start, end);
	int error = register_with_gaps(track, &range, start, end);

	if (error)
		return error;
	int was_gap = ranges_touch(&track->registered, start, end);
	int is_shared = (track->flags & UFFDWP_TRACK_POPULATED) && async_is_shared(start, end);

	ranges_add(&track->registered, range.start, range.end);
	error = check_whole(track, start, end);
	if (!error && clean)
		error = async_arm(track, start, end, (track->flags & UFFDWP_TRACK_POPULATED) && !is_shared);
	else if (!error && was_gap) /* it may carry marks */
		error = async_disarm(track, start, end);
	if (error)
		give_back(track, range.start, range.end);
	else
		ranges_add(&track->ranges, start, end);
	if (!error && is_shared)
		ranges_add(&track->shared, start, end);
	return error;
}

int track_add_async(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	pthread_rwlock_wrlock(&tracks_lock);
	int error = has_room(track) ? 0 : -ENOMEM;

	if (!error && still_tracks(track, start, end))
		error = -EBUSY;
	if (!error)
		error = take_gaps(track, start, end);
	if (!error)
		error = register_range(track, start, end, clean);
	pthread_rwlock_unlock(&tracks_lock);
	return error;
}

static int is_watched(const struct uffdwp_track *track, const struct uffdwp_region *region, uint64_t first,
                      uint64_t end)
{
	for (size_t i = 0; i < track->watched_count; i++) {
		const struct watched *watched = &track->watched[i];

		if (watched->region == region && watched->first < end && first < watched->end)
			return 1;
	}
	return 0;
}

static int is_watched_by_any(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (const struct uffdwp_track *track = all_tracks; track; track = track->next) {
		if (is_watched(track, region, first, end))
			return 1;
	}
	return 0;
}

/* What was written until now does not count: a collect into nowhere. */
static void collect_away(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;

	nowhere.start = region_address(region, first);
	nowhere.length = (end - first) << region->page_shift;
	track_collect(track, &nowhere);
	atomic_fetch_add(&track->vanished_bytes, nowhere.vanished_bytes); /* not told to anybody yet */
}

int track_add_watched(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end, int owned,
                      int clean)
{
	pthread_rwlock_wrlock(&tracks_lock);
	int error = is_watched_by_any(region, first, end) ? -EBUSY : 0;

	if (!error && track->watched_count == WATCHED_MAX)
		error = -ENOMEM;
	if (!error) {
		region->soft_dirty = owned && track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
		error = watch_begin(region, first, end);
	}
	if (!error)
		track->watched[track->watched_count++] = (struct watched){region, first, end, owned};
	pthread_rwlock_unlock(&tracks_lock);
	if (!error && clean)
		collect_away(track, region, first, end);
	return error;
}

/* 0, -ENOENT, -EINVAL. With tracks_lock held for writing. */
static int remove_watched(struct uffdwp_track *track, uint64_t start, uint64_t end, struct watched *removed)
{
	for (size_t i = 0; i < track->watched_count; i++) {
		const struct watched *watched = &track->watched[i];
		uint64_t from = address_of(watched, watched->first);
		uint64_t to = address_of(watched, watched->end);

		if (to <= start || from >= end)
			continue;
		if (from != start || to != end)
			return -EINVAL;
		*removed = *watched;
		forget_watched(track, i);
		return 0;
	}
	return -ENOENT;
}

/* And the gaps beside the range, up to its neighbours. With room in both sets. */
static void remove_async(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	const struct ranges *ranges = &track->ranges;

	ranges_remove(&track->ranges, start, end);
	ranges_remove(&track->shared, start, end);
	size_t next = ranges_find(ranges, start);
	uint64_t widest = GAP_PAGES * track->page_bytes;
	uint64_t from = next > 0 ? ranges->at[next - 1].end : 0;
	uint64_t to = next < ranges->count ? ranges->at[next].start : UINT64_MAX;

	give_back(track, start - from > widest ? start - widest : from, to - end > widest ? end + widest : to);
}

int track_remove(struct uffdwp_track *track, uint64_t start, uint64_t end, struct uffdwp_region **owned)
{
	struct watched removed = {0};
	int error = 0;

	*owned = NULL;
	pthread_rwlock_wrlock(&tracks_lock);
	if (!ranges_touch(&track->ranges, start, end))
		error = remove_watched(track, start, end, &removed);
	else if (!has_room(track))
		error = -ENOMEM;
	else
		remove_async(track, start, end);
	pthread_rwlock_unlock(&tracks_lock);
	if (removed.region)
		watch_end(removed.region);
	if (removed.owned)
		*owned = removed.region;
	return error;
}

void track_describe(struct uffdwp_track *track, struct uffdwp_track_info *info)
{
	pthread_rwlock_rdlock(&tracks_lock);
	info->mechanism = track->mechanism;
	info->flags = track->flags;
	info->ranges = track->ranges.count + track->watched_count;
	info->bytes = track->ranges.bytes;
	for (size_t i = 0; i < track->watched_count; i++)
		info->bytes += (track->watched[i].end - track->watched[i].first)
		               << track->watched[i].region->page_shift;
	info->collects = atomic_load(&track->collects);
	info->vanished_bytes = atomic_load(&track->vanished_all_bytes);
	pthread_rwlock_unlock(&tracks_lock);
}
