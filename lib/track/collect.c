/* SPDX-License-Identifier: MIT */
/*
 * A collect: piece by piece in the order of addresses, each looked at by the side that it belongs to, the findings put
 * where the caller wants them. Async findings for a caller that wants ranges are written by the kernel into the
 * caller's array; all others go through a few of our own on the stack: while faults are stalled nothing may be written
 * to the caller's memory, which may be tracked itself.
 *
 * No fault is stalled while findings are delivered. What was found is armed already then, so it is always delivered.
 */
#include <errno.h>
#include <string.h>

#include "base/math.h"
#include "track/track.h"

#define SCRATCH 256

/* What a scan around gaps finds at a time. */
#define ROUGH 512

struct context {
	struct uffdwp_track *track;
	struct uffdwp_collect *request;
	uint64_t start;
	uint64_t from; /* all before was looked at */
	uint64_t to;
	struct uffdwp_region *prepared;
	struct uffdwp_written scratch[SCRATCH];
};

/* Sets bits [first, end). */
static void collect_set_bits(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t count = math_min_u64(end - first, 64 - first % 64);

		bitmap[first / 64] |= math_low_bits(count) << (first % 64);
		first += count;
	}
}

/* A huge page may reach beyond what was asked for. */
static void collect_set_bitmap(const struct context *context, const struct uffdwp_written *range)
{
	uint64_t page_bytes = context->track->page_bytes;
	uint64_t start = range->start > context->start ? range->start : context->start;
	uint64_t end = math_min_u64(range->end, context->to);

	collect_set_bits(context->request->bitmap, (start - context->start) / page_bytes,
	                 (end - context->start) / page_bytes);
}

static uint64_t collect_bytes_of(const struct findings *found)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < found->count; i++)
		bytes += found->at[i].end - found->at[i].start;
	return bytes;
}

/* Into the caller's array, where they are not there already; what continues the last range is joined to it. */
static void collect_put(struct uffdwp_collect *request, const struct uffdwp_written *at, size_t count)
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

static void collect_deliver(struct context *context, const struct findings *found)
{
	struct uffdwp_collect *request = context->request;

	request->bytes += collect_bytes_of(found);
	if (request->ranges) {
		collect_put(request, found->at, found->count);
		return;
	}
	request->count += found->count;
	for (size_t i = 0; i < found->count; i++) {
		if (request->bitmap)
			collect_set_bitmap(context, &found->at[i]);
		else if (request->callback)
			request->callback(request->user, &found->at[i]);
	}
}

static void collect_make_room(struct context *context, const struct piece *piece, struct findings *found)
{
	struct uffdwp_collect *request = context->request;
	size_t left = request->ranges ? request->capacity - request->count : SCRATCH;

	found->at = context->scratch;
	found->room = math_min_u64(left, SCRATCH);
	if (request->ranges && !piece->region) {
		found->at = &request->ranges[request->count];
		found->room = left;
	}
}

/* No room for what lies at and after `from` of the findings: the next scan shall find it again. */
static void collect_take_back(struct uffdwp_track *track, const struct findings *rough, size_t i, uint64_t from,
                              int peek)
{
	for (; i < rough->count && !peek; i++)
		async_forget(track, from > rough->at[i].start ? from : rough->at[i].start, rough->at[i].end);
}

/* The first range that ends after `address`, which mostly is a near one. */
static size_t collect_find_from(const struct ranges *ranges, size_t hint, uint64_t address)
{
	for (size_t i = hint; i < ranges->count && i < hint + 8; i++) {
		if (ranges->at[i].end > address)
			return i;
	}
	return ranges_find(ranges, address);
}

/* Leaves out what was found in gaps. 0: there is no room for more, from *until on. *hint: the range to begin at, which
 * no earlier one of the findings has passed. */
static int collect_clip(const struct uffdwp_track *track, const struct uffdwp_written *range, size_t *hint,
                        struct findings *found, uint64_t *until)
{
	const struct ranges *ranges = &track->ranges;
	size_t i = *hint = collect_find_from(ranges, *hint, range->start);

	for (; i < ranges->count && ranges->at[i].start < range->end; i++) {
		uint64_t start = range->start > ranges->at[i].start ? range->start : ranges->at[i].start;

		if (found->count == found->room) {
			*until = start;
			return 0;
		}
		found->at[found->count++] =
		        (struct uffdwp_written){start, math_min_u64(range->end, ranges->at[i].end), range->flags};
	}
	return 1;
}

static int collect_scan_around_gaps(struct uffdwp_track *track, const struct piece *piece, int peek,
                                    struct findings *found)
{
	struct uffdwp_written at[ROUGH];
	struct findings rough = {.at = at, .room = ROUGH};
	size_t hint = ranges_find(&track->ranges, piece->start);
	int error = async_scan(track, piece, peek, &rough);

	if (error)
		return error;
	found->until = rough.until;
	for (size_t i = 0; i < rough.count; i++) {
		if (!collect_clip(track, &at[i], &hint, found, &found->until)) {
			collect_take_back(track, &rough, i, found->until, peek);
			break;
		}
	}
	return 0;
}

static int collect_scan(struct uffdwp_track *track, const struct piece *piece, int peek, struct findings *found)
{
	if (piece->region)
		return watch_scan(piece->region, piece, peek, found);
	if (track->registered.bytes != track->ranges.bytes)
		return collect_scan_around_gaps(track, piece, peek, found);
	return async_scan(track, piece, peek, found);
}

/* What takes time is prepared once for each region, before its first portion. */
static int collect_prepare_region(struct context *context, const struct piece *piece)
{
	if (!piece->region || piece->region == context->prepared)
		return 0;
	context->prepared = piece->region;
	return context->request->flags & UFFDWP_TRACK_COLLECT_PEEK ? 0 : watch_prepare(piece->region);
}

/* Looks at the next piece, or at a part of it. 1; 0: all was looked at, or there is no room; or -errno. */
static int collect_step(struct context *context, struct findings *found)
{
	sigset_t before;
	struct uffdwp_track *track = context->track;
	int peek = (context->request->flags & UFFDWP_TRACK_COLLECT_PEEK) != 0;
	struct piece piece;
	int error = 0;

	lock_shared_read(&tracks_lock, &before);
	int has = track_next_piece(track, context->from, context->to, &piece);

	if (has) {
		collect_make_room(context, &piece, found);
		if (found->room == 0)
			context->request->next = (void *)(uintptr_t)context->from;
		has = found->room > 0;
	}
	if (has)
		error = collect_prepare_region(context, &piece);
	if (has && !error)
		error = collect_scan(track, &piece, peek, found);
	lock_shared_give(&tracks_lock, &before);
	return error ? error : has;
}

static int collect_run(struct context *context)
{
	for (;;) {
		struct findings found = {.at = context->scratch};
		int result = collect_step(context, &found);

		if (result <= 0)
			return result;
		collect_deliver(context, &found);
		if (found.until <= context->from) /* the kernel arms huge pages in whole only */
			return -EINVAL;
		context->from = found.until;
	}
}

/* Before anything is looked at. */
static int collect_prepare(struct context *context)
{
	sigset_t before;
	struct uffdwp_track *track = context->track;
	int error = 0;

	lock_shared_read(&tracks_lock, &before);
	if (context->request->length && !track_touches(track, context->from, context->to))
		error = -ENOENT;
	else if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY)
		error = soft_dirty_harvest(track);
	lock_shared_give(&tracks_lock, &before);
	return error;
}

int track_collect(struct uffdwp_track *track, struct uffdwp_collect *request)
{
	struct context context;

	context.track = track;
	context.request = request;
	context.prepared = NULL;
	context.start = context.from = (uintptr_t)request->start;
	context.to = request->length ? context.start + request->length : UINT64_MAX & ~(track->page_bytes - 1);
	request->count = 0;
	request->bytes = 0;
	request->next = NULL;
	int error = collect_prepare(&context);

	if (!error)
		error = collect_run(&context);
	atomic_fetch_add_explicit(&track->collects, 1, memory_order_relaxed);
	request->vanished_bytes = atomic_exchange(&track->vanished_bytes, 0);
	if (error)
		request->next = (void *)(uintptr_t)context.from;
	return error;
}
