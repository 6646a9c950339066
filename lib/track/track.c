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

/* Gaps so wide end a run: a scan goes over what lies between in steps of a page table. */
#define BRIDGE_BYTES (64ull << 20)

/* Whoever collects all the time must not keep out who unmaps. */
pthread_rwlock_t tracks_lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static struct uffdwp_track *all_tracks;
static uint64_t generation = 1; /* of the ranges of all tracks */

struct uffdwp_track *track_first(void)
{
	return all_tracks;
}

/* ---- runs ---- */

static int is_foreign_between(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (const struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other != track && ranges_touch(&other->registered, start, end))
			return 1;
	}
	return 0;
}

/* With tracks_lock held for writing. */
static int make_runs(struct uffdwp_track *track)
{
	const struct ranges *ranges = &track->registered;
	struct ranges *runs = &track->runs;

	runs->count = 0;
	int error = ranges_reserve(runs, track->k, ranges->count);

	if (error)
		return error;
	for (size_t i = 0; i < ranges->count; i++) {
		const struct range *range = &ranges->at[i];
		struct range *last = runs->count ? &runs->at[runs->count - 1] : NULL;

		if (last && range->start - last->end <= BRIDGE_BYTES &&
		    !is_foreign_between(track, last->end, range->start))
			last->end = range->end;
		else
			ranges_append(runs, *range);
	}
	track->has_gaps = ranges_bytes(ranges) != ranges_bytes(&track->ranges);
	track->runs_made = generation;
	return 0;
}

int track_lock_runs(struct uffdwp_track *track)
{
	pthread_rwlock_rdlock(&tracks_lock);
	while (track->runs_made != generation) {
		pthread_rwlock_unlock(&tracks_lock);
		pthread_rwlock_wrlock(&tracks_lock);
		int error = track->runs_made != generation ? make_runs(track) : 0;

		pthread_rwlock_unlock(&tracks_lock);
		if (error)
			return error;
		pthread_rwlock_rdlock(&tracks_lock);
	}
	return 0;
}

/* ---- pieces ---- */

static uint64_t address_of(const struct watched *watched, uint64_t page)
{
	return (uint64_t)(uintptr_t)region_address(watched->region, page);
}

/* The part of a watched range at or behind `from`. 0: none. */
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
	out->end = min_u64(end, base + round_up(to - base, watched->region->page_bytes));
	return 1;
}

int track_next_piece(const struct uffdwp_track *track, uint64_t from, uint64_t to, struct piece *out)
{
	size_t run = ranges_find(&track->runs, from);
	struct piece piece;
	int found = run < track->runs.count && track->runs.at[run].start < to;

	if (found) {
		const struct range *range = &track->runs.at[run];

		*out = (struct piece){.start = range->start > from ? range->start : from,
		                      .end = min_u64(range->end, to)};
	}
	for (size_t i = 0; i < track->watched_count; i++) {
		if (!watched_piece(&track->watched[i], from, to, &piece) || (found && piece.start >= out->start))
			continue;
		*out = piece;
		found = 1;
	}
	return found;
}

int track_touches(const struct uffdwp_track *track, uint64_t from, uint64_t to)
{
	struct piece piece;

	if (ranges_touch(&track->ranges, from, to))
		return 1;
	for (size_t i = 0; i < track->watched_count; i++) {
		if (watched_piece(&track->watched[i], from, to, &piece))
			return 1;
	}
	return 0;
}

/* ---- start and stop ---- */

static void link_track(struct uffdwp_track *track)
{
	pthread_rwlock_wrlock(&tracks_lock);
	track->next = all_tracks;
	all_tracks = track;
	generation++;
	pthread_rwlock_unlock(&tracks_lock);
}

static void unlink_track(struct uffdwp_track *track)
{
	pthread_rwlock_wrlock(&tracks_lock);
	for (struct uffdwp_track **link = &all_tracks; *link; link = &(*link)->next) {
		if (*link == track) {
			*link = track->next;
			break;
		}
	}
	generation++;
	pthread_rwlock_unlock(&tracks_lock);
}

static void free_track(struct uffdwp_track *track)
{
	async_close(track);
	ranges_free(&track->ranges, track->k);
	ranges_free(&track->registered, track->k);
	ranges_free(&track->runs, track->k);
	pages_free(track->k, track->watched, track->watched_room * sizeof(*track->watched));
	pages_free(track->k, track, sizeof(*track));
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
	track->delivery = options->delivery;
	track->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	track->uffd = -1;
	track->pagemap = -1;
	int error = open_mechanism(track);

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

void track_stop(struct uffdwp_track *track)
{
	unlink_track(track);
	pthread_rwlock_wrlock(&tracks_lock); /* the follower is still there: nobody who unmaps waits in vain */
	for (size_t i = 0; i < track->registered.count; i++)
		async_unregister(track, track->registered.at[i].start, track->registered.at[i].end);
	track->ranges.count = track->registered.count = 0;
	pthread_rwlock_unlock(&tracks_lock);
	follow_stop(track);
	for (size_t i = 0; i < track->watched_count; i++)
		watch_end(track->watched[i].region);
	free_track(track);
}

/* ---- ranges ---- */

/* Room for what one change may add to both sets. */
static int reserve(struct uffdwp_track *track)
{
	int error = ranges_reserve(&track->ranges, track->k, 2);

	return error ? error : ranges_reserve(&track->registered, track->k, 2);
}

/* With room reserved; `registered` only, of which the caller has not asked for [start, end). */
static void give_back(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	if (!ranges_touch(&track->registered, start, end))
		return;
	ranges_remove(&track->registered, start, end);
	async_unregister(track, start, end);
	generation++;
}

/* Other tracks' gaps in [start, end). -EBUSY: they were asked to watch some of it. With tracks_lock held for writing.
 */
static int take_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	for (struct uffdwp_track *other = all_tracks; other; other = other->next) {
		if (other == track || !ranges_touch(&other->registered, start, end))
			continue;
		if (ranges_touch(&other->ranges, start, end) || reserve(other))
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

/* With room reserved. */
static int register_range(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	struct range range = with_gaps(track, start, end);
	int error = register_with_gaps(track, &range, start, end);

	if (error)
		return error;
	if (clean)
		error = async_arm(track, start, end);
	else if (ranges_touch(&track->registered, start, end)) /* what was a gap may carry marks */
		async_disarm(track, start, end);
	if (error < 0) {
		async_unregister(track, range.start, range.end);
		ranges_remove(&track->registered, range.start, range.end); /* gaps that were registered before */
		return error;
	}
	ranges_add(&track->ranges, start, end);
	ranges_add(&track->registered, range.start, range.end);
	generation++;
	return 0;
}

int track_add_async(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	pthread_rwlock_wrlock(&tracks_lock);
	int error = ranges_touch(&track->ranges, start, end) ? -EBUSY : reserve(track);

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

static int reserve_watched(struct uffdwp_track *track)
{
	size_t room = track->watched_room ? track->watched_room * 2 : 64;

	if (track->watched_count < track->watched_room)
		return 0;
	struct watched *watched = pages_new(track->k, room * sizeof(*watched));

	if (!watched)
		return -ENOMEM;
	if (track->watched_count)
		memcpy(watched, track->watched, track->watched_count * sizeof(*watched));
	pages_free(track->k, track->watched, track->watched_room * sizeof(*watched));
	track->watched = watched;
	track->watched_room = room;
	return 0;
}

/* What was written until now does not count: a collect into nowhere. */
static void collect_away(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, first);
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;

	nowhere.start = (void *)(uintptr_t)start;
	nowhere.length = (end - first) << region->page_shift;
	track_collect(track, &nowhere);
}

int track_add_watched(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end, int owned,
                      int clean)
{
	pthread_rwlock_wrlock(&tracks_lock);
	int error = is_watched_by_any(region, first, end) ? -EBUSY : reserve_watched(track);

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

/* And the gaps beside the range, up to its neighbours. With room reserved. */
static void remove_async(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	const struct ranges *ranges = &track->ranges;

	ranges_remove(&track->ranges, start, end);
	size_t next = ranges_find(ranges, start);
	uint64_t widest = GAP_PAGES * track->page_bytes;
	uint64_t from = next > 0 ? ranges->at[next - 1].end : 0;
	uint64_t to = next < ranges->count ? ranges->at[next].start : UINT64_MAX;

	from = start - from > widest ? start - widest : from;
	to = to - end > widest ? end + widest : to;
	give_back(track, from, to);
	generation++;
}

int track_remove(struct uffdwp_track *track, uint64_t start, uint64_t end, struct uffdwp_region **owned)
{
	struct watched removed = {0};

	*owned = NULL;
	pthread_rwlock_wrlock(&tracks_lock);
	int error = ranges_touch(&track->ranges, start, end) ? 0 : -ENOENT;

	error = error ? remove_watched(track, start, end, &removed) : reserve(track);
	if (!error && !removed.region)
		remove_async(track, start, end);
	pthread_rwlock_unlock(&tracks_lock);
	if (removed.region)
		watch_end(removed.region);
	if (removed.owned)
		*owned = removed.region;
	return error;
}

/* ---- what happens to ranges ---- */

static void count_vanished(struct uffdwp_track *track, uint64_t bytes)
{
	atomic_fetch_add(&track->vanished_bytes, bytes);
	atomic_fetch_add(&track->vanished_all_bytes, bytes);
}

void track_vanish(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	if (reserve(track))
		return; /* a scan passes over what is not there */
	count_vanished(track, ranges_remove(&track->ranges, start, end));
	ranges_remove(&track->registered, start, end);
	generation++;
}

/* What of [from, from + length) is in the set moves to `to`. Of a mapping only a part may be in it. */
static void move_ranges(struct ranges *ranges, const struct kernel_ops *k, uint64_t from, uint64_t to, uint64_t length)
{
	size_t i;

	while ((i = ranges_find(ranges, from)) < ranges->count && ranges->at[i].start < from + length &&
	       !ranges_reserve(ranges, k, 2)) {
		uint64_t start = ranges->at[i].start > from ? ranges->at[i].start : from;
		uint64_t end = min_u64(ranges->at[i].end, from + length);

		ranges_remove(ranges, start, end);
		ranges_add(ranges, to + (start - from), to + (end - from));
	}
}

/* The kernel moves registrations along with the mapping. */
void track_move(struct uffdwp_track *track, uint64_t from, uint64_t to, uint64_t length)
{
	move_ranges(&track->ranges, track->k, from, to, length);
	move_ranges(&track->registered, track->k, from, to, length);
	generation++;
}

/* Takes out of [start, end) what is not registered any more. */
static int audit_range(struct uffdwp_track *track, uint64_t start, uint64_t end, uint64_t *vanished)
{
	struct range found;

	while (start < end) {
		int has = async_next_registered(track, start, end, &found);

		if (has < 0)
			return has;
		if (!has)
			found = (struct range){end, end};
		if (found.start > start) {
			*vanished += found.start - start;
			track_vanish(track, start, found.start);
		}
		start = found.end;
	}
	return 0;
}

/* Each look at the set may find it changed by the last: hence by address. */
int track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes)
{
	uint64_t vanished = 0;
	uint64_t at = 0;
	int error = 0;
	size_t i;

	pthread_rwlock_wrlock(&tracks_lock);
	while (!error && (i = ranges_find(&track->ranges, at)) < track->ranges.count) {
		struct range range = track->ranges.at[i];

		error = reserve(track);
		if (!error)
			error = audit_range(track, range.start > at ? range.start : at, range.end, &vanished);
		at = range.end;
	}
	pthread_rwlock_unlock(&tracks_lock);
	*vanished_bytes = vanished;
	return error;
}

void track_describe(struct uffdwp_track *track, struct uffdwp_track_info *info)
{
	pthread_rwlock_rdlock(&tracks_lock);
	info->mechanism = track->mechanism;
	info->flags = track->flags;
	info->ranges = track->ranges.count + track->watched_count;
	info->bytes = ranges_bytes(&track->ranges);
	for (size_t i = 0; i < track->watched_count; i++)
		info->bytes += (track->watched[i].end - track->watched[i].first)
		               << track->watched[i].region->page_shift;
	info->collects = atomic_load(&track->collects);
	info->vanished_bytes = atomic_load(&track->vanished_all_bytes);
	pthread_rwlock_unlock(&tracks_lock);
}
