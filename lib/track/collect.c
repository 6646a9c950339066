/* SPDX-License-Identifier: MIT */
/*
 * A collect: piece by piece in the order of addresses, each looked at by the side that it belongs to, the findings put
 * where the caller wants them. Async findings of a caller who wants ranges are written by the kernel into his array;
 * all others go through a few of our own on the stack: while faults are held nothing may be written to the caller's
 * memory, which may be tracked itself.
 *
 * Nothing is held while findings are delivered. What was found is armed already then, so it is always delivered.
 */
#include <errno.h>
#include <string.h>

#include "base/math.h"
#include "track/track.h"

#define SCRATCH 256

/* What a scan around gaps finds at a time. */
#define ROUGH 512

struct errand {
	struct uffdwp_track *track;
	struct uffdwp_collect *request;
	uint64_t start;
	uint64_t from; /* all before was looked at */
	uint64_t to;
	struct uffdwp_region *prepared;
	struct uffdwp_written scratch[SCRATCH];
};

/* Sets bits [first, end). */
static void set_bits(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t count = min_u64(end - first, 64 - first % 64);

		bitmap[first / 64] |= low_bits(count) << (first % 64);
		first += count;
	}
}

/* A huge page may reach beyond what was asked for. */
static void mark(const struct errand *errand, const struct uffdwp_written *range)
{
	uint64_t page_bytes = errand->track->page_bytes;
	uint64_t start = range->start > errand->start ? range->start : errand->start;
	uint64_t end = min_u64(range->end, errand->to);

	set_bits(errand->request->bitmap, (start - errand->start) / page_bytes, (end - errand->start) / page_bytes);
}

static uint64_t bytes_of(const struct findings *found)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < found->count; i++)
		bytes += found->at[i].end - found->at[i].start;
	return bytes;
}

/* Into the caller's array, where they are not there already; what continues the last range is joined to it. */
static void put(struct uffdwp_collect *request, const struct uffdwp_written *at, size_t count)
{
	struct uffdwp_written *next = &request->ranges[request->count];

	if (count && request->count && next[-1].end == at->start) {
		next[-1].end = at->end;
		at++;
		count--;
	}
	if (count && at != next)
		memmove(next, at, count * sizeof(*at));
	request->count += count;
}

static void deliver(struct errand *errand, const struct findings *found)
{
	struct uffdwp_collect *request = errand->request;

	request->bytes += bytes_of(found);
	if (request->ranges) {
		put(request, found->at, found->count);
		return;
	}
	request->count += found->count;
	for (size_t i = 0; i < found->count; i++) {
		if (request->bitmap)
			mark(errand, &found->at[i]);
		else if (request->callback)
			request->callback(request->user, &found->at[i]);
	}
}

static void make_room(struct errand *errand, const struct piece *piece, struct findings *found)
{
	struct uffdwp_collect *request = errand->request;
	size_t left = request->ranges ? request->capacity - request->count : SCRATCH;

	found->at = errand->scratch;
	found->room = min_u64(left, SCRATCH);
	if (request->ranges && !piece->region) {
		found->at = &request->ranges[request->count];
		found->room = left;
	}
}

/* No room for what lies at and behind `from` of the findings: the next scan shall find it again. */
static void take_back(struct uffdwp_track *track, const struct findings *rough, size_t i, uint64_t from, int peek)
{
	for (; i < rough->count && !peek; i++)
		async_forget(track, from > rough->at[i].start ? from : rough->at[i].start, rough->at[i].end);
}

/* The first range that ends behind `address`, which mostly is a near one. */
static size_t find_from(const struct ranges *ranges, size_t hint, uint64_t address)
{
	for (size_t i = hint; i < ranges->count && i < hint + 8; i++) {
		if (ranges->at[i].end > address)
			return i;
	}
	return ranges_find(ranges, address);
}

/* Leaves out what was found in gaps. 0: there is no room for more, from *until on. *hint: the range to begin at, which
 * no earlier one of the findings has left behind. */
static int clip(const struct uffdwp_track *track, const struct uffdwp_written *range, size_t *hint,
                struct findings *found, uint64_t *until)
{
	const struct ranges *ranges = &track->ranges;
	size_t i = *hint = find_from(ranges, *hint, range->start);

	for (; i < ranges->count && ranges->at[i].start < range->end; i++) {
		uint64_t start = range->start > ranges->at[i].start ? range->start : ranges->at[i].start;

		if (found->count == found->room) {
			*until = start;
			return 0;
		}
		found->at[found->count++] =
		        (struct uffdwp_written){start, min_u64(range->end, ranges->at[i].end), range->flags};
	}
	return 1;
}

static int scan_around_gaps(struct uffdwp_track *track, const struct piece *piece, int peek, struct findings *found)
{
	struct uffdwp_written at[ROUGH];
	struct findings rough = {.at = at, .room = ROUGH};
	size_t hint = ranges_find(&track->ranges, piece->start);
	int error = async_scan(track, piece, peek, &rough);

	if (error)
		return error;
	found->until = rough.until;
	for (size_t i = 0; i < rough.count; i++) {
		if (!clip(track, &at[i], &hint, found, &found->until)) {
			take_back(track, &rough, i, found->until, peek);
			break;
		}
	}
	return 0;
}

static int scan(struct uffdwp_track *track, const struct piece *piece, int peek, struct findings *found)
{
	if (piece->region)
		return watch_scan(piece->region, piece, peek, found);
	if (track->registered.bytes != track->ranges.bytes)
		return scan_around_gaps(track, piece, peek, found);
	return async_scan(track, piece, peek, found);
}

/* What takes time is prepared once for each region, before its first portion. */
static int prepare_region(struct errand *errand, const struct piece *piece)
{
	if (!piece->region || piece->region == errand->prepared)
		return 0;
	errand->prepared = piece->region;
	return errand->request->flags & UFFDWP_COLLECT_PEEK ? 0 : watch_prepare(piece->region);
}

/* Looks at the next piece, or at a part of it. 1; 0: all was looked at, or there is no room; or -errno. */
static int step(struct errand *errand, struct findings *found)
{
	struct uffdwp_track *track = errand->track;
	int peek = (errand->request->flags & UFFDWP_COLLECT_PEEK) != 0;
	struct piece piece;
	int error = 0;

	pthread_rwlock_rdlock(&tracks_lock);
	int has = track_next_piece(track, errand->from, errand->to, &piece);

	if (has) {
		make_room(errand, &piece, found);
		if (found->room == 0)
			errand->request->next = (void *)(uintptr_t)errand->from;
		has = found->room > 0;
	}
	if (has)
		error = prepare_region(errand, &piece);
	if (has && !error)
		error = scan(track, &piece, peek, found);
	pthread_rwlock_unlock(&tracks_lock);
	return error ? error : has;
}

static int run(struct errand *errand)
{
	for (;;) {
		struct findings found = {.at = errand->scratch};
		int result = step(errand, &found);

		if (result <= 0)
			return result;
		deliver(errand, &found);
		if (found.until <= errand->from) /* the kernel arms huge pages in whole only */
			return -EINVAL;
		errand->from = found.until;
	}
}

/* Before anything is looked at. */
static int prepare(struct errand *errand)
{
	struct uffdwp_track *track = errand->track;
	int error = 0;

	pthread_rwlock_rdlock(&tracks_lock);
	if (errand->request->length && !track_touches(track, errand->from, errand->to))
		error = -ENOENT;
	else if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY)
		error = soft_dirty_harvest(track);
	pthread_rwlock_unlock(&tracks_lock);
	return error;
}

int track_collect(struct uffdwp_track *track, struct uffdwp_collect *request)
{
	struct errand errand;

	errand.track = track;
	errand.request = request;
	errand.prepared = NULL;
	errand.start = errand.from = (uintptr_t)request->start;
	errand.to = request->length ? errand.start + request->length : UINT64_MAX & ~(track->page_bytes - 1);
	request->count = 0;
	request->bytes = 0;
	request->next = NULL;
	int error = prepare(&errand);

	if (!error)
		error = run(&errand);
	atomic_fetch_add_explicit(&track->collects, 1, memory_order_relaxed);
	request->vanished_bytes = atomic_exchange(&track->vanished_bytes, 0);
	if (error)
		request->next = (void *)(uintptr_t)errand.from;
	return error;
}
