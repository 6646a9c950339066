/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `mprotect`: protection by mprotect(2), for kernels and users without userfaultfd. A write raises SIGSEGV in
 * the writer, so delivery is always inline; the kernel sends no events.
 *
 * The kernel keeps one mapping (VMA) for each run of pages that are protected alike, and a process may have only
 * vm.max_map_count of them: then mprotect(2) answers ENOMEM, which a fault could not bear. So each region counts the
 * mappings that its protection makes: one when it was armed from end to end, and then what each run that is unprotected
 * adds at most. While all regions have added less than half of what the process had left when an arming was prepared, a
 * fault unprotects what it wants. Beyond, it unprotects whole aligned blocks, which are so large that all of them
 * together cannot use up the other half. A quarter of the limit stays for the program.
 *
 * Threads: counters of the process, moved by the fault path; they are estimates, rather too high than too low.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/math.h"
#include "base/trace.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "region/region.h"

#define MAPS_LEFT_DEFAULT 32768

static _Atomic int64_t maps_used;                        /* that our protection makes, about */
static _Atomic int64_t maps_base;                        /* of these: counted with the program's own at the last look */
static _Atomic int64_t maps_allowed = MAPS_LEFT_DEFAULT; /* beyond those */
static _Atomic uint64_t pages_watched;                   /* of all regions of this mechanism */

static int mprotect_is_all_mapped(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (!region_is_mapped(region, page))
			return 0;
	}
	return 1;
}

static int mprotect_set_protection(struct uffdwp_region *region, uint64_t first, uint64_t end, int prot)
{
	int error = region->k->mprotect(region_address(region, first), (end - first) << region->page_shift, prot);

	/* A part that is not mapped any more raises no event; else no mapping is left. */
	return error == -ENOMEM && !mprotect_is_all_mapped(region, first, end) ? -ESTALE : error;
}

static void mprotect_count_maps(struct uffdwp_region *region, int64_t by)
{
	atomic_fetch_add_explicit(&region->maps, by, memory_order_relaxed);
	atomic_fetch_add_explicit(&maps_used, by, memory_order_relaxed);
}

static void mprotect_set_maps(struct uffdwp_region *region, int64_t maps)
{
	mprotect_count_maps(region, maps - atomic_load(&region->maps));
}

/* What one side of a run that is unprotected adds: a border, where the neighbour may still be protected; else it takes
 * one away, if its own last page was protected until now. */
static int64_t mprotect_border(const struct uffdwp_region *region, uint64_t own, uint64_t neighbour, int exists)
{
	enum ledger_state state = ledger_get(&region->ledger, own);

	if (state != LEDGER_SAVED && state != LEDGER_LEAVING)
		return 0;
	state = exists ? ledger_get(&region->ledger, neighbour) : LEDGER_FREE;
	return state == LEDGER_FREE || state == LEDGER_OPEN || state == LEDGER_LOST ? -1 : 1;
}

/* A region that was armed from end to end is one mapping again. With the region's lock held. */
static int mprotect_arm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = mprotect_set_protection(region, first, end, region->prot & ~PROT_WRITE);

	if (error)
		return error;
	uint64_t until = atomic_load(&region->armed_until);

	until = first == 0 || first == until ? end : 0;
	atomic_store(&region->armed_until, until);
	if (until >= region_pages(region))
		mprotect_set_maps(region, 1);
	else
		mprotect_count_maps(region, first > 0 ? 2 : 1);
	return 0;
}

static int mprotect_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int64_t by = mprotect_border(region, first, first - 1, first > 0) +
	             mprotect_border(region, end - 1, end, end < region->ledger.count);
	int error = mprotect_set_protection(region, first, end, region->prot);

	if (error)
		return error;
	if (atomic_load_explicit(&region->maps, memory_order_relaxed) + by >= 1)
		mprotect_count_maps(region, by);
	atomic_store_explicit(&region->armed_until, 0, memory_order_relaxed);
	return 0;
}

/* So many pages together that what is left for blocks is enough for all: each makes two borders. */
static uint64_t mprotect_granularity_most(struct uffdwp_region *region)
{
	int64_t half = atomic_load_explicit(&maps_allowed, memory_order_relaxed) / 2;
	uint64_t blocks = half > 4 ? (uint64_t)half / 2 : 2;
	uint64_t granularity = 1;

	(void)region;
	while (granularity * blocks < atomic_load_explicit(&pages_watched, memory_order_relaxed))
		granularity *= 2;
	return granularity;
}

static uint64_t mprotect_granularity(struct uffdwp_region *region)
{
	int64_t half = atomic_load_explicit(&maps_allowed, memory_order_relaxed) / 2;
	int64_t added = atomic_load_explicit(&maps_used, memory_order_relaxed) -
	                atomic_load_explicit(&maps_base, memory_order_relaxed);

	return added < half ? 1 : mprotect_granularity_most(region);
}

/* All that there is now beside this region, which will be one mapping, is taken off the limit. */
static void mprotect_prepare(struct uffdwp_region *region)
{
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, 0);
	struct maps_count count;
	uint64_t limit;

	if (maps_count(start, start + region->capacity_bytes, &count) ||
	    procfs_number(region->k, "/proc/sys/vm/max_map_count", "", &limit))
		return;
	if (count.inside > 0) /* the truth, where faults and arming have estimated */
		mprotect_set_maps(region, (int64_t)count.inside);
	int64_t allowed = (int64_t)(limit - limit / 4) - (int64_t)(count.all - count.inside);

	atomic_store(&maps_base, atomic_load(&maps_used) - atomic_load(&region->maps));
	atomic_store(&maps_allowed, allowed > 8 ? allowed : 8);
	TRACE("region %p: mprotect may make %lld of %llu mappings", (void *)region, (long long)allowed,
	      (unsigned long long)limit);
}

static void mprotect_watch(struct uffdwp_region *region, int on)
{
	if (on) {
		atomic_fetch_add(&pages_watched, region->ledger.count);
		mprotect_count_maps(region, 1);
	} else {
		atomic_fetch_sub(&pages_watched, region->ledger.count);
		mprotect_count_maps(region, -atomic_load(&region->maps));
	}
}

const struct mechanism mechanism_mprotect = {
        .name = "mprotect",
        .id = UFFDWP_MECHANISM_MPROTECT,
        .arm = mprotect_arm,
        .disarm = mprotect_disarm,
        .granularity = mprotect_granularity,
        .granularity_most = mprotect_granularity_most,
        .watch = mprotect_watch,
        .prepare = mprotect_prepare,
};
