/* SPDX-License-Identifier: MIT */
/*
 * How a range comes into a track: by the region that it lies in, by async, or by a region that is made for it. See
 * track.h. What is refused is explained in the track's text.
 */
#include <errno.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "fault/runtime.h"
#include "kernel/maps.h"
#include "region/plan.h"
#include "region/registry.h"
#include "track/track.h"

static int add_of_region(struct uffdwp_track *track, struct uffdwp_region *region, uint64_t start, uint64_t end,
                         int clean)
{
	uint64_t base = (uint64_t)(uintptr_t)region_address(region, 0);
	unsigned shift = region->page_shift;

	if (start < base || end > base + atomic_load(&region->length_bytes))
		return text_fail(track->text, -ERANGE, "a part of the range lies in a region, the rest does not");
	if (!math_is_aligned(start, region->page_bytes) || !math_is_aligned(end, region->page_bytes))
		return text_fail(track->text, -EINVAL, "the range is not aligned to the region's pages of %llu bytes",
		                 (unsigned long long)region->page_bytes);
	int error = runtime_check_faults(region);

	if (error)
		return error;
	error = track_add_watched(track, region, (start - base) >> shift, (end - base) >> shift, 0, clean);
	if (error == -EBUSY)
		return text_fail(track->text, error, "some of the range is tracked already");
	if (error == -ESTALE)
		return text_fail(track->text, error, "%s: close it", region_death(region));
	return error ? text_fail(track->text, error, "the range could not be added: %s", errno_text(error)) : 0;
}

int track_open_region(struct uffdwp *runtime, struct region_plan *plan, struct uffdwp_region **out)
{
	int error = plan->mapper ? runtime_plan_adopted(runtime, plan) : runtime_plan(runtime, plan);

	if (error)
		return error;
	if (plan->address)
		track_yield((uintptr_t)plan->address, (uintptr_t)plan->address + plan->length_bytes);
	return runtime_start(runtime, plan, out);
}

/* A region of its own, where there is no async. */
static int add_by_region(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	int is_soft = track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
	struct uffdwp_region *region = NULL;
	struct region_plan plan;

	plan_init(&plan, track->k, track->runtime, end - start);
	plan.address = (void *)(uintptr_t)start;
	plan.options.mechanism = is_soft ? UFFDWP_MECHANISM_MPROTECT : track->asked;
	plan.options.delivery = is_soft ? UFFDWP_DELIVERY_AUTO : track->delivery;
	int error = plan_attach(&plan);

	if (!error)
		error = track_open_region(track->runtime, &plan, &region);
	if (error)
		return error;
	if (is_soft && region->memory != UFFDWP_MEMORY_ANON)
		error = text_fail(track->text, -EOPNOTSUPP,
		                  "soft-dirty bits are reliable for private anonymous memory only");
	if (!error)
		error = track_add_watched(track, region, 0, region_pages(region), 1, clean);
	if (error)
		runtime_end(track->runtime, region);
	return error;
}

/* Why the kernel did not register the range. */
static int add_explain(const struct uffdwp_track *track, uint64_t start, uint64_t end, int error)
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
		return text_fail(track->text, error, "the kernel refused to register the range: %s", errno_text(error));
	}
}

/* Huge pages of hugetlb are at least so large, and so are ranges of them: others need not be looked at. */
#define HUGE_PAGE_LEAST 65536

/* 1: huge pages, which async may not do although it does all else. */
static int add_is_beyond_async(const struct uffdwp_track *track, uint64_t start, uint64_t length)
{
	struct probe_memory trial;
	struct maps_range range;

	if (!math_is_aligned(start, HUGE_PAGE_LEAST) || !math_is_aligned(length, HUGE_PAGE_LEAST) ||
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
	if (add_is_beyond_async(track, start, end - start)) {
		if (track->asked == UFFDWP_MECHANISM_AUTO)
			return add_by_region(track, start, end, clean);
		return text_fail(
		        track->text, -EOPNOTSUPP,
		        "async does not report every write to huge pages (hugetlb) here: see uffdwp-ctl doctor");
	}
	int error = track_add_async(track, start, end, clean);

	return error ? add_explain(track, start, end, error) : 0;
}

int track_add(struct uffdwp_track *track, uint64_t start, uint64_t end, int clean)
{
	struct uffdwp_region *region = registry_locate((uintptr_t)start);

	if (!region)
		region = registry_locate((uintptr_t)(end - 1));
	return region ? add_of_region(track, region, start, end, clean) : add_plain(track, start, end, clean);
}
