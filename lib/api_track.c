/* SPDX-License-Identifier: MIT */
/* The exporters of tracks; see api.c and track/track.h. What a range is made of is decided here: async, a region that
 * is there, or a region that is made for it. */
#include <errno.h>
#include <string.h>

#include "api_private.h"
#include "base/math.h"
#include "kernel/maps.h"
#include "track/track.h"

/* The smallest structures that were ever released. */
#define TRACK_OPTIONS_SZ_MIN sizeof(struct uffdwp_track_options)
#define COLLECT_SZ_MIN sizeof(struct uffdwp_collect)
#define TRACK_INFO_SZ_MIN sizeof(struct uffdwp_track_info)

#define TRACK_FLAGS (UFFDWP_TRACK_POPULATED | UFFDWP_TRACK_NO_EVENTS | UFFDWP_TRACK_RESET_PROCESS)

/* ---- start ---- */

static int check_options(const struct uffdwp_track_options *options, struct text *text)
{
	if (options->mechanism >= UFFDWP_MECHANISM_COUNT)
		return text_fail(text, -EINVAL, "unknown mechanism %u", (unsigned)options->mechanism);
	if (options->delivery > UFFDWP_DELIVERY_INLINE)
		return text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (options->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY && !(options->flags & UFFDWP_TRACK_RESET_PROCESS))
		return text_fail(text, -EINVAL,
		                 "soft-dirty clears the marks of the whole process with each collect: say "
		                 "UFFDWP_TRACK_RESET_PROCESS if it may");
	return api_unknown_flags(text, options->flags, TRACK_FLAGS, options->reserved);
}

/* What serves ranges outside of regions. */
static int choose_mechanism(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct text *text,
                            uint32_t *mechanism)
{
	struct uffdwp_probe_memory trial;

	*mechanism = options->mechanism;
	if (options->mechanism != UFFDWP_MECHANISM_AUTO && options->mechanism != UFFDWP_MECHANISM_ASYNC)
		return 0;
	runtime_try(runtime, UFFDWP_MEMORY_ANON, &trial);
	const struct uffdwp_probe_rung *rung = &trial.rungs[UFFDWP_MECHANISM_ASYNC];

	if (rung->works)
		*mechanism = UFFDWP_MECHANISM_ASYNC;
	else if (options->mechanism == UFFDWP_MECHANISM_ASYNC)
		return text_fail(text, -EOPNOTSUPP, "memory cannot be tracked by async: %s", rung->reason);
	return 0;
}

UFFDWP_EXPORT int uffdwp_track_start(struct uffdwp *runtime, const struct uffdwp_track_options *given,
                                     struct uffdwp_track **out)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct text *text = &runtime->text;
	uint32_t mechanism;

	if (api_is_foreign(runtime))
		return -ECHILD;
	int error = api_take_options(text, given, TRACK_OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (!error)
		error = check_options(&options, text);
	if (!error)
		error = choose_mechanism(runtime, &options, text, &mechanism);
	if (!error)
		error = track_start(runtime, &options, mechanism, text, out);
	if (!error)
		runtime_count_track(runtime, 1);
	return error;
}

UFFDWP_EXPORT int uffdwp_track_stop(struct uffdwp_track *track)
{
	struct uffdwp_region *region;

	if (!track)
		return 0;
	struct uffdwp *runtime = track->runtime;

	if (api_is_foreign(runtime))
		return -ECHILD;
	while ((region = track_take_owned(track)))
		uffdwp_region_close(region);
	track_stop(track);
	runtime_count_track(runtime, -1);
	return 0;
}

/* ---- ranges ---- */

static int check_range(const struct uffdwp_track *track, uint64_t start, uint64_t length)
{
	if (!is_aligned(start, track->page_bytes) || !is_aligned(length, track->page_bytes))
		return text_fail(
		        track->text, -EINVAL, "address %#llx and length %llu are not multiples of the page size %llu",
		        (unsigned long long)start, (unsigned long long)length, (unsigned long long)track->page_bytes);
	if (!length)
		return text_fail(track->text, -EINVAL, "length is 0");
	if (start + length < start)
		return text_fail(track->text, -EOVERFLOW, "the range ends beyond the address space");
	return 0;
}

static int add_of_region(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t start, uint64_t end,
                         int clean)
{
	uint64_t base = (uint64_t)(uintptr_t)region_address(region, 0);
	unsigned shift = region->page_shift;

	if (start < base || end > base + atomic_load(&region->length_bytes))
		return text_fail(track->text, -ERANGE, "a part of the range lies in a region, the rest does not");
	if (!is_aligned(start, region->page_bytes) || !is_aligned(end, region->page_bytes))
		return text_fail(track->text, -EINVAL, "the range is not aligned to the region's pages of %llu bytes",
		                 (unsigned long long)region->page_bytes);
	int error = track_add_watched(track, region, (start - base) >> shift, (end - base) >> shift, 0, clean);

	if (error == -EBUSY)
		return text_fail(track->text, error, "some of the range is tracked already");
	if (error == -ESTALE)
		return text_fail(track->text, error, "the region was unmapped: close it");
	return error ? text_fail(track->text, error, "the range could not be added: %s", strerror(-error)) : 0;
}

/* A region of its own, where there is no async. */
static int add_by_region(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	int is_soft = track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region;

	options.mechanism = is_soft ? UFFDWP_MECHANISM_MPROTECT : track->asked;
	options.delivery = is_soft ? UFFDWP_DELIVERY_AUTO : track->delivery;
	int error = uffdwp_region_attach(track->runtime, (void *)(uintptr_t)start, end - start, &options, &region);

	if (error)
		return error;
	if (is_soft && region->memory != UFFDWP_MEMORY_ANON)
		error = text_fail(track->text, -EOPNOTSUPP,
		                  "soft-dirty bits are reliable for private anonymous memory only");
	if (!error)
		error = track_add_watched(track, region, 0, region_pages(region), 1, clean);
	if (error)
		uffdwp_region_close(region);
	return error;
}

/* Why the kernel did not register the range. */
static int explain_async(const struct uffdwp_track *track, uint64_t start, uint64_t end, int error)
{
	struct maps_range range;
	int looked = maps_look(start, end - start, &range);

	if (error == -ENOENT || (!looked && !range.covered && error != -EBUSY))
		return text_fail(track->text, -ENOENT, "nothing, or not everything, is mapped at %#llx",
		                 (unsigned long long)start);
	switch (error) {
	case -EBUSY:
		return text_fail(track->text, error,
		                 "some of the range is tracked already, or another userfaultfd is registered there");
	case -EPERM:
		return text_fail(track->text, error, "the range may not be written: a read-only file");
	default:
		return text_fail(track->text, error, "the kernel refused to register the range: %s", strerror(-error));
	}
}

/* Huge pages of hugetlb are at least so large, and so are ranges of them: others need not be looked at. */
#define HUGE_PAGE_LEAST 65536

/* 1: huge pages, which async may not do although it does all else. */
static int is_beyond_async(const struct uffdwp_track *track, uint64_t start, uint64_t length)
{
	struct uffdwp_probe_memory trial;
	struct maps_range range;

	if (!is_aligned(start, HUGE_PAGE_LEAST) || !is_aligned(length, HUGE_PAGE_LEAST) ||
	    maps_look(start, length, &range) || !range.hugetlb)
		return 0;
	runtime_try(track->runtime, UFFDWP_MEMORY_HUGETLB, &trial);
	return !trial.rungs[UFFDWP_MECHANISM_ASYNC].works;
}

/* Where the memory is no region's. */
static int add_plain(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	if (track->mechanism != UFFDWP_MECHANISM_ASYNC)
		return add_by_region(track, start, end, clean);
	if (is_beyond_async(track, start, end - start)) {
		if (track->asked == UFFDWP_MECHANISM_AUTO)
			return add_by_region(track, start, end, clean);
		return text_fail(
		        track->text, -EOPNOTSUPP,
		        "async does not report every write to huge pages (hugetlb) here: see uffdwp-ctl doctor");
	}
	int error = track_add_async(track, start, end, clean);

	return error ? explain_async(track, start, end, error) : 0;
}

UFFDWP_EXPORT int uffdwp_track_add(struct uffdwp_track *track, void *address, size_t length, uint32_t flags)
{
	uint64_t start = (uintptr_t)address;
	int clean = (flags & UFFDWP_TRACK_CLEAN) != 0;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = api_unknown_flags(track->text, flags, UFFDWP_TRACK_CLEAN, 0);

	if (!error)
		error = check_range(track, start, length);
	if (error)
		return error;
	uint64_t end = start + length;
	struct uffdwp_region *region = uffdwp_region_locate(address);

	if (!region)
		region = uffdwp_region_locate((const char *)address + length - 1);
	if (region)
		return add_of_region(track, region, start, end, clean);
	return add_plain(track, start, end, clean);
}

UFFDWP_EXPORT int uffdwp_track_remove(struct uffdwp_track *track, void *address, size_t length)
{
	uint64_t start = (uintptr_t)address;
	struct uffdwp_region *owned = NULL;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	int error = check_range(track, start, length);

	if (error)
		return error;
	error = track_remove(track, start, start + length, &owned);
	if (owned)
		uffdwp_region_close(owned);
	if (error == -ENOENT)
		return text_fail(track->text, error, "nothing of the range at %#llx is tracked",
		                 (unsigned long long)start);
	if (error == -EINVAL)
		return text_fail(track->text, error,
		                 "a range that is watched by a region is removed as it was added, not in parts");
	return error ? text_fail(track->text, error, "the range could not be removed: %s", strerror(-error)) : 0;
}

/* ---- collect ---- */

static int check_places(const struct uffdwp_collect *request, struct text *text)
{
	int places = (request->ranges != NULL) + (request->bitmap != NULL) + (request->callback != NULL);

	if (places > 1)
		return text_fail(text, -EINVAL, "of ranges, bitmap and callback one may be given, not %d", places);
	if (request->ranges && !request->capacity)
		return text_fail(text, -ENOSPC, "capacity is 0: give room for one range at least");
	return 0;
}

static int check_bitmap(const struct uffdwp_track *track, const struct uffdwp_collect *request)
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

static int check_collect(const struct uffdwp_track *track, const struct uffdwp_collect *request)
{
	int error = api_unknown_flags(track->text, request->flags, UFFDWP_COLLECT_PEEK, request->reserved);
	uint64_t start = (uintptr_t)request->start;

	if (!error && (!is_aligned(start, track->page_bytes) || !is_aligned(request->length, track->page_bytes)))
		error = text_fail(track->text, -EINVAL, "start and length are not multiples of the page size %llu",
		                  (unsigned long long)track->page_bytes);
	if (!error && start + request->length < start)
		error = text_fail(track->text, -EOVERFLOW, "the range ends beyond the address space");
	if (!error)
		error = check_places(request, track->text);
	return error ? error : check_bitmap(track, request);
}

static int explain_collect(const struct uffdwp_track *track, const struct uffdwp_collect *request, int error)
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
	return text_fail(track->text, error, "the collect failed at %p: %s", request->next, strerror(-error));
}

UFFDWP_EXPORT int uffdwp_track_collect(struct uffdwp_track *track, struct uffdwp_collect *collect)
{
	struct uffdwp_collect request = UFFDWP_COLLECT_INIT;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	if (!collect)
		return text_fail(track->text, -EINVAL, "collect is NULL");
	int error = api_take_options(track->text, collect, COLLECT_SZ_MIN, &request, sizeof(request));

	if (!error)
		error = check_collect(track, &request);
	if (error)
		return error;
	error = track_collect(track, &request);
	api_give_answer(collect, COLLECT_SZ_MIN, &request, sizeof(request));
	return error ? explain_collect(track, &request, error) : 0;
}

UFFDWP_EXPORT int uffdwp_track_info(struct uffdwp_track *track, struct uffdwp_track_info *info)
{
	struct uffdwp_track_info answer = {.sz = sizeof(answer)};

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	track_describe(track, &answer);
	return api_give_answer(info, TRACK_INFO_SZ_MIN, &answer, sizeof(answer));
}

UFFDWP_EXPORT int uffdwp_track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes)
{
	uint64_t vanished;

	if (api_is_foreign(track->runtime))
		return -ECHILD;
	if (!vanished_bytes)
		return text_fail(track->text, -EINVAL, "vanished_bytes is NULL");
	int error = track_audit(track, &vanished);

	if (error)
		return text_fail(track->text, error, "the audit failed: %s", strerror(-error));
	*vanished_bytes = vanished;
	return 0;
}
