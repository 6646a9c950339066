/* SPDX-License-Identifier: MIT */
/* Tracks and their ranges; see track.h for the idea. */
#include "track/track.h"

#include <errno.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/trace.h"
#include "fault/runtime.h"
#include "track/sets.h"

/* Gaps of so many pages and less are registered along: two mappings more cost as much as the faults of some pages. */
#define GAP_PAGES 16

/* Each is a region, of which there may be 4096. */
#define WATCHED_MAX 65536

/* ---- start and stop ---- */

static void track_free(struct uffdwp_track *track)
{
	async_close(track);
	ranges_close(&track->ranges, track->k);
	ranges_close(&track->registered, track->k);
	ranges_close(&track->shared, track->k);
	pages_free(track->k, track->watched, WATCHED_MAX * sizeof(*track->watched));
	pages_free(track->k, track, sizeof(*track));
}

static int track_open_sets(struct uffdwp_track *track)
{
	track->watched = pages_new(track->k, WATCHED_MAX * sizeof(*track->watched));
	if (!track->watched || ranges_open(&track->ranges, track->k) || ranges_open(&track->registered, track->k) ||
	    ranges_open(&track->shared, track->k))
		return text_fail(track->text, -ENOMEM, "no address space for the sets of a track");
	return 0;
}

static int track_open_mechanism(struct uffdwp_track *track)
{
	int error = 0;

	if (track->mechanism == UFFDWP_MECHANISM_ASYNC) {
		error = async_open(track);
		if (!error && !(track->flags & UFFDWP_TRACK_START_NO_EVENTS))
			error = follow_start(track);
	} else if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY) {
		return soft_dirty_works(track->k, track->text);
	}
	return error ? text_fail(track->text, error, "the track could not be started: %s", errno_text(error)) : 0;
}

/* What serves ranges outside of regions. */
static int track_choose_mechanism(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct text *text,
                                  uint32_t *mechanism)
{
	struct probe_memory trial;

	*mechanism = options->mechanism;
	if (options->mechanism != UFFDWP_MECHANISM_AUTO && options->mechanism != UFFDWP_MECHANISM_ASYNC)
		return 0;
	int error = runtime_check_access(runtime);

	if (error)
		return error;
	runtime_try(runtime, UFFDWP_MEMORY_ANON, &trial);
	const struct probe_rung *rung = &trial.rungs[UFFDWP_MECHANISM_ASYNC];

	if (rung->error)
		return text_fail(text, rung->error, "it could not be tried whether async works: %s",
		                 errno_text(rung->error));
	if (rung->works)
		*mechanism = UFFDWP_MECHANISM_ASYNC;
	else if (options->mechanism == UFFDWP_MECHANISM_ASYNC)
		return text_fail(text, -EOPNOTSUPP, "memory cannot be tracked by async: %s", rung->reason);
	return 0;
}

int track_start(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct text *text,
                struct uffdwp_track **out)
{
	uint32_t mechanism;

	sets_watch_forks();
	int error = track_choose_mechanism(runtime, options, text, &mechanism);

	if (error)
		return error;
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
	error = track_open_sets(track);

	if (!error)
		error = track_open_mechanism(track);
	if (error) {
		track_free(track);
		return error;
	}
	sets_link(track);
	runtime_count_track(runtime, 1);
	TRACE("track %p: mechanism %u%s", (void *)track, (unsigned)mechanism,
	      track->scan_skips_holes ? ", PAGEMAP_SCAN passes over holes here" : "");
	*out = track;
	return 0;
}

/* With tracks_lock held for writing. */
static void track_forget_watched(struct uffdwp_track *track, size_t i)
{
	track->watched[i] = track->watched[--track->watched_count];
}

/* Takes one region that was made for the track out of it, NULL when there is none left. */
static struct uffdwp_region *track_take_owned(struct uffdwp_track *track)
{
	sigset_t before;
	struct uffdwp_region *region = NULL;

	lock_shared_write(&tracks_lock, &before);
	for (size_t i = 0; i < track->watched_count && !region; i++) {
		if (!track->watched[i].owned)
			continue;
		region = track->watched[i].region;
		track_forget_watched(track, i);
	}
	lock_shared_give(&tracks_lock, &before);
	if (region)
		watch_end(region);
	return region;
}

void track_stop(struct uffdwp_track *track)
{
	struct uffdwp *runtime = track->runtime;
	struct uffdwp_region *owned;
	sigset_t before;

	while ((owned = track_take_owned(track)))
		runtime_end(runtime, owned);
	lock_shared_write(&tracks_lock, &before);
	sets_unlink(track);
	sets_give_back(track, 0, UINT64_MAX); /* the follower is still there: no thread that unmaps waits in vain */
	ranges_remove(&track->ranges, 0, UINT64_MAX);
	ranges_remove(&track->shared, 0, UINT64_MAX);
	lock_shared_give(&tracks_lock, &before);
	follow_stop(track);
	for (size_t i = 0; i < track->watched_count; i++)
		watch_end(track->watched[i].region);
	track_free(track);
	runtime_count_track(runtime, -1);
}

/* ---- ranges ---- */

/* The range and the gaps beside it, where these are small. */
static struct range track_with_gaps(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	const struct ranges *ranges = &track->ranges;
	uint64_t widest = GAP_PAGES * track->page_bytes;
	size_t next = ranges_find(ranges, start);
	struct range range = {start, end};

	if (track->flags & UFFDWP_TRACK_START_NO_GAPS)
		return range;
	if (next > 0 && start - ranges->at[next - 1].end <= widest)
		range.start = ranges->at[next - 1].end;
	if (next < ranges->count && ranges->at[next].start - end <= widest)
		range.end = ranges->at[next].start;
	return range;
}

/* What lies in a gap may be such that it cannot be registered, or another userfaultfd's: then the range alone. */
static int track_register_with_gaps(struct uffdwp_track *track, struct range *range, uint64_t start, uint64_t end)
{
	const struct range tries[] = {*range, {start, range->end}, {range->start, end}, {start, end}};
	int error = -EINVAL;

	for (size_t i = 0; i < 4 && error; i++) {
		int is_last = tries[i].start == start && tries[i].end == end;

		if (!is_last && sets_foreign_between(track, tries[i].start, tries[i].end))
			continue;
		*range = tries[i];
		error = async_register(track, range->start, range->end);
	}
	return error;
}

/* All of [start, end) must be mapped: what is mapped into a hole later would not be registered. */
static int track_check_whole(const struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	struct range found = {0};
	int has = async_next_registered(track, start, end, &found);

	if (has < 0)
		return has;
	return has && found.start == start && found.end == end ? 0 : -ENOENT;
}

/* With room in both sets. */
static int track_register_range(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	struct range range = track_with_gaps(track, start, end);
	int error = track_register_with_gaps(track, &range, start, end);

	if (error)
		return error;
	int was_gap = ranges_touch(&track->registered, start, end);
	int is_shared = (track->flags & UFFDWP_TRACK_START_POPULATED) && async_is_shared(start, end);

	ranges_add(&track->registered, range.start, range.end);
	error = track_check_whole(track, start, end);
	if (!error && clean)
		error = async_arm(track, start, end, (track->flags & UFFDWP_TRACK_START_POPULATED) && !is_shared);
	else if (!error && was_gap) /* it may carry wp bits */
		error = async_disarm(track, start, end);
	if (error)
		sets_give_back(track, range.start, range.end);
	else
		ranges_add(&track->ranges, start, end);
	if (!error && is_shared)
		ranges_add(&track->shared, start, end);
	return error;
}

int track_add_async(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	sigset_t before;

	lock_shared_write(&tracks_lock, &before);
	int error = sets_have_room(track) ? 0 : -ENOMEM;

	if (!error && sets_still_track(track, start, end))
		error = -EBUSY;
	if (!error)
		error = sets_take_gaps(track, start, end);
	if (!error)
		error = track_register_range(track, start, end, clean);
	lock_shared_give(&tracks_lock, &before);
	return error;
}

/* What was written until now does not count: a collect into nowhere. */
static void track_collect_elsewhere(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first,
                                    uint64_t end)
{
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;

	nowhere.start = region_address(region, first);
	nowhere.length = (end - first) << region->page_shift;
	track_collect(track, &nowhere);
	atomic_fetch_add(&track->vanished_bytes, nowhere.vanished_bytes); /* not reported yet */
}

int track_add_watched(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t first, uint64_t end, int owned,
                      int clean)
{
	sigset_t before;

	lock_shared_write(&tracks_lock, &before);
	int error = sets_any_watches(region, first, end) ? -EBUSY : 0;

	if (!error && track->watched_count == WATCHED_MAX)
		error = -ENOMEM;
	if (!error) {
		region->soft_dirty = owned && track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
		error = watch_begin(region, first, end);
	}
	if (!error)
		track->watched[track->watched_count++] = (struct watched){region, first, end, owned};
	lock_shared_give(&tracks_lock, &before);
	if (!error && clean)
		track_collect_elsewhere(track, region, first, end);
	return error;
}

/* 0, -ENOENT, -EINVAL. With tracks_lock held for writing. */
static int track_remove_watched(struct uffdwp_track *track, uint64_t start, uint64_t end, struct watched *removed)
{
	for (size_t i = 0; i < track->watched_count; i++) {
		const struct watched *watched = &track->watched[i];
		uint64_t from = sets_address_of(watched, watched->first);
		uint64_t to = sets_address_of(watched, watched->end);

		if (to <= start || from >= end)
			continue;
		if (from != start || to != end)
			return -EINVAL;
		*removed = *watched;
		track_forget_watched(track, i);
		return 0;
	}
	return -ENOENT;
}

/* And the gaps beside the range, up to its neighbours. With room in both sets. */
static void track_remove_async(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	const struct ranges *ranges = &track->ranges;

	ranges_remove(&track->ranges, start, end);
	ranges_remove(&track->shared, start, end);
	size_t next = ranges_find(ranges, start);
	uint64_t widest = GAP_PAGES * track->page_bytes;
	uint64_t from = next > 0 ? ranges->at[next - 1].end : 0;
	uint64_t to = next < ranges->count ? ranges->at[next].start : UINT64_MAX;

	sets_give_back(track, start - from > widest ? start - widest : from, to - end > widest ? end + widest : to);
}

int track_remove(struct uffdwp_track *track, uint64_t start, uint64_t end)
{
	sigset_t before;
	struct watched removed = {0};
	int error = 0;

	lock_shared_write(&tracks_lock, &before);
	if (!ranges_touch(&track->ranges, start, end))
		error = track_remove_watched(track, start, end, &removed);
	else if (!sets_have_room(track))
		error = -ENOMEM;
	else
		track_remove_async(track, start, end);
	lock_shared_give(&tracks_lock, &before);
	if (removed.region)
		watch_end(removed.region);
	if (removed.owned)
		runtime_end(track->runtime, removed.region);
	return error;
}

void track_prepare(struct uffdwp_track *track, const struct uffdwp_written *ranges, size_t count)
{
	sigset_t before;

	struct range part;

	lock_shared_read(&tracks_lock, &before);
	for (size_t i = 0; i < count; i++) {
		for (uint64_t from = ranges[i].start; ranges_next(&track->ranges, &from, ranges[i].end, &part);)
			async_prepare(track, part.start, part.end);
	}
	lock_shared_give(&tracks_lock, &before);
}

void track_describe(struct uffdwp_track *track, struct uffdwp_track_info *info)
{
	sigset_t before;

	lock_shared_read(&tracks_lock, &before);
	info->mechanism = track->mechanism;
	info->flags = track->flags;
	info->ranges = track->ranges.count + track->watched_count;
	info->bytes = track->ranges.bytes;
	for (size_t i = 0; i < track->watched_count; i++)
		info->bytes += (track->watched[i].end - track->watched[i].first)
		               << track->watched[i].region->page_shift;
	info->collects = atomic_load(&track->collects);
	info->vanished_bytes = atomic_load(&track->vanished_all_bytes);
	lock_shared_give(&tracks_lock, &before);
}

int track_check_faults(struct uffdwp_track *track)
{
	sigset_t before;
	int error = 0;

	lock_shared_read(&tracks_lock, &before);
	for (size_t i = 0; i < track->watched_count && !error; i++)
		error = runtime_check_faults(track->watched[i].region);
	lock_shared_give(&tracks_lock, &before);
	return error;
}
