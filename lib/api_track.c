/* SPDX-License-Identifier: MIT */
/* The exporters of tracks, as api.c: checks, then calls. What a track is made of: track/track.h. */
#include <errno.h>

#include "api_private.h"
#include "base/errno_name.h"
#include "base/math.h"
#include "kernel/own.h"
#include "track/track.h"

#define TRACK_FLAGS                                                                                                    \
	(UFFDWP_TRACK_START_POPULATED | UFFDWP_TRACK_START_NO_EVENTS | UFFDWP_TRACK_START_RESET_PROCESS |              \
	 UFFDWP_TRACK_START_NO_GAPS)

/* ---- start ---- */

static int api_track_check_options(const struct uffdwp_track_options *options, struct text *text)
{
	if (options->mechanism >= UFFDWP_MECHANISM_COUNT)
		return text_fail(text, -EINVAL, "unknown mechanism %u", (unsigned)options->mechanism);
	if (options->delivery > UFFDWP_DELIVERY_INLINE)
		return text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (options->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY && !(options->flags & UFFDWP_TRACK_START_RESET_PROCESS))
		return text_fail(text, -EINVAL,
		                 "soft-dirty clears the soft-dirty bits of the whole process with each collect: say "
		                 "UFFDWP_TRACK_START_RESET_PROCESS if it may");
	return api_unknown_flags(text, "uffdwp_track_start", options->flags, TRACK_FLAGS, options->reserved);
}

UFFDWP_EXPORT int uffdwp_track_start(struct uffdwp *runtime, const struct uffdwp_track_options *given,
                                     struct uffdwp_track **out)
{
	API_CALL();
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct text *text = NULL; /* the thread's */

	text_forget();
	if (api_is_foreign(runtime))
		return -ECHILD;
	int error = api_take_options(text, given, &options, sizeof(options));

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (!error)
		error = api_track_check_options(&options, text);
	return error ? error : track_start(runtime, &options, text, out);
}

UFFDWP_EXPORT int uffdwp_track_stop(struct uffdwp_track *track)
{
	API_CALL();
	if (!track)
		return 0;
	if (api_is_foreign(track->runtime))
		return -ECHILD;
	track_stop(track);
	return 0;
}

/* ---- ranges ---- */

static int api_track_check_range(const struct uffdwp_track *track, uint64_t start, uint64_t length)
{
	if (!math_is_aligned(start, track->page_bytes) || !math_is_aligned(length, track->page_bytes))
		return text_fail(track->text, -EINVAL,
		                 "address %#llx and length %llu are not multiples of the page size %llu: use mmap() or "
		                 "aligned_alloc()",
		                 (unsigned long long)start, (unsigned long long)length,
		                 (unsigned long long)track->page_bytes);
	if (!length)
		return text_fail(track->text, -EINVAL, "length is 0");
	if (start + length < start)
		return text_fail(track->text, -EOVERFLOW, "the range ends beyond the address space");
	return 0;
}

UFFDWP_EXPORT int uffdwp_track_add(struct uffdwp_track *track, void *address, uint64_t length, uint32_t flags)
{
	API_CALL();
	text_forget();
	uint64_t start = (uintptr_t)address;
	int clean = (flags & UFFDWP_TRACK_ADD_CLEAN) != 0;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = api_unknown_flags(track->text, "uffdwp_track_add", flags, UFFDWP_TRACK_ADD_CLEAN, 0);

	if (!error)
		error = api_track_check_range(track, start, length);
	if (error)
		return error;
	return track_add(track, start, start + length, clean);
}

UFFDWP_EXPORT int uffdwp_track_remove(struct uffdwp_track *track, void *address, uint64_t length)
{
	API_CALL();
	uint64_t start = (uintptr_t)address;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = api_track_check_range(track, start, length);

	if (error)
		return error;
	error = track_remove(track, start, start + length);
	if (error == -ENOENT)
		return text_fail(track->text, error, "nothing of the range at %#llx is tracked",
		                 (unsigned long long)start);
	if (error == -EINVAL)
		return text_fail(track->text, error,
		                 "a range that is watched by a region is removed as it was added, not in parts");
	return error ? text_fail(track->text, error, "the range could not be removed: %s", errno_text(error)) : 0;
}

/* ---- collect ---- */

static int api_track_check_places(const struct uffdwp_collect *request, struct text *text)
{
	int places = (request->ranges != NULL) + (request->bitmap != NULL) + (request->callback != NULL);

	if (places > 1)
		return text_fail(text, -EINVAL, "of ranges, bitmap and callback one may be given, not %d", places);
	if (request->ranges && !request->capacity)
		return text_fail(text, -ENOSPC, "capacity is 0: give room for one range at least");
	return 0;
}

static int api_track_check_bitmap(const struct uffdwp_track *track, const struct uffdwp_collect *request)
{
	uint64_t wanted = (request->length / track->page_bytes + 63) / 64 * 8;

	if (!request->bitmap)
		return 0;
	if (!request->start || !request->length)
		return text_fail(track->text, -EINVAL, "a bitmap needs start and length: what its first bit means");
	if (request->bitmap_bytes < wanted)
		return text_fail(track->text, -ENOSPC, "the bitmap has %zu bytes, %llu are needed",
		                 request->bitmap_bytes, (unsigned long long)wanted);
	return 0;
}

static int api_track_check_collect(const struct uffdwp_track *track, const struct uffdwp_collect *request)
{
	int error = api_unknown_flags(track->text, "uffdwp_track_collect", request->flags, UFFDWP_TRACK_COLLECT_PEEK,
	                              request->reserved);
	uint64_t start = (uintptr_t)request->start;

	if (!error &&
	    (!math_is_aligned(start, track->page_bytes) || !math_is_aligned(request->length, track->page_bytes)))
		error = text_fail(track->text, -EINVAL, "start and length are not multiples of the page size %llu",
		                  (unsigned long long)track->page_bytes);
	if (!error && start + request->length < start)
		error = text_fail(track->text, -EOVERFLOW, "the range ends beyond the address space");
	if (!error)
		error = api_track_check_places(request, track->text);
	return error ? error : api_track_check_bitmap(track, request);
}

static int api_track_explain_collect(const struct uffdwp_track *track, const struct uffdwp_collect *request, int error)
{
	if (error == -ENOENT)
		return text_fail(track->text, error, "nothing of [%p, +%zu) is tracked", request->start,
		                 request->length);
	if (error == -ESTALE)
		return text_fail(track->text, error, "the region at %p was unmapped: uffdwp_track_remove() it",
		                 request->next);
	if (error == -EINVAL)
		return text_fail(track->text, error,
		                 "nothing can be collected at %p: start or end lies inside of a huge page",
		                 request->next);
	return text_fail(track->text, error, "the collect failed at %p: %s", request->next, errno_text(error));
}

static int api_track_check_own(const struct uffdwp_track *track)
{
	int error = track->uffd < 0 ? 0 : own_check(track->k, track->uffd, track->tag);

	if (!error && track->pagemap >= 0)
		error = own_check(track->k, track->pagemap, track->runtime->tag);
	return error ? text_fail(track->text, error, "the program has closed descriptors of the track: stop it") : 0;
}

UFFDWP_EXPORT int uffdwp_track_collect(struct uffdwp_track *track, struct uffdwp_collect *collect)
{
	API_CALL();
	struct uffdwp_collect request = UFFDWP_COLLECT_INIT;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	if (!collect)
		return text_fail(track->text, -EINVAL, "collect is NULL");
	int error = api_take_options(track->text, collect, &request, sizeof(request));

	if (!error)
		error = api_track_check_collect(track, &request);
	if (error)
		return error;
	error = runtime_check_own(track->runtime, NULL);
	if (!error)
		error = api_track_check_own(track);
	if (!error)
		error = track_check_faults(track);
	if (error)
		return error;
	error = track_collect(track, &request);
	api_give_answer(collect, &request, sizeof(request));
	return error ? api_track_explain_collect(track, &request, error) : 0;
}

static int api_track_check_written(const struct uffdwp_track *track, const struct uffdwp_written *ranges, size_t count)
{
	if (!ranges && count)
		return text_fail(track->text, -EINVAL, "ranges is NULL");
	for (size_t i = 0; i < count; i++) {
		if (!math_is_aligned(ranges[i].start, track->page_bytes) ||
		    !math_is_aligned(ranges[i].end, track->page_bytes) || ranges[i].end <= ranges[i].start)
			return text_fail(track->text, -EINVAL,
			                 "range %zu, [%#llx, %#llx), is empty or not of whole pages of %llu bytes", i,
			                 (unsigned long long)ranges[i].start, (unsigned long long)ranges[i].end,
			                 (unsigned long long)track->page_bytes);
	}
	return 0;
}

UFFDWP_EXPORT int uffdwp_track_prepare(struct uffdwp_track *track, const struct uffdwp_written *ranges, size_t count)
{
	API_CALL();
	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = api_track_check_written(track, ranges, count);

	if (error)
		return error;
	track_prepare(track, ranges, count);
	return 0;
}

UFFDWP_EXPORT int uffdwp_track_info(struct uffdwp_track *track, struct uffdwp_track_info *info)
{
	API_CALL();
	struct uffdwp_track_info answer = {.sz = sizeof(answer)};

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = api_check_answer(track->text, info, "the info");

	if (error)
		return error;
	track_describe(track, &answer);
	api_give_answer(info, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes)
{
	API_CALL();
	uint64_t vanished;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	if (!vanished_bytes)
		return text_fail(track->text, -EINVAL, "vanished_bytes is NULL");
	int error = track_audit(track, &vanished);

	if (error)
		return text_fail(track->text, error, "the audit failed: %s", errno_text(error));
	*vanished_bytes = vanished;
	return 0;
}
