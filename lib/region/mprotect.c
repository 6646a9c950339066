/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `mprotect`: protection by mprotect(2), for kernels and users without userfaultfd. A write raises SIGSEGV in
 * the writer, so delivery is always inline; the kernel tells no events.
 *
 * The kernel keeps one mapping (VMA) for each run of pages that are protected alike, and a process may have only
 * vm.max_map_count of them: then mprotect(2) answers ENOMEM, which a fault could not bear. So the mappings that this
 * mechanism makes are counted, as an upper bound, against what the process had left when an arming was prepared. While
 * less than half of that is used a fault lets go what it wants. Beyond, it lets go whole aligned blocks, which are so
 * large that all of them together cannot use up the other half. A quarter of the limit stays for the program.
 *
 * Threads: counters of the process, moved by the fault path; they are estimates and may be off by a few.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/math.h"
#include "base/trace.h"
#include "kernel/procfs.h"
#include "region/region.h"

#define MAPS_LEFT_DEFAULT 32768

static _Atomic int64_t maps_used;                        /* that our protection makes, about */
static _Atomic int64_t maps_base;                        /* of these: counted with the program's own at the last look */
static _Atomic int64_t maps_allowed = MAPS_LEFT_DEFAULT; /* beyond those */
static _Atomic uint64_t pages_watched;                   /* of all regions of this mechanism */

static int set_protection(struct uffdwp_region *region, uint64_t first, uint64_t end, int prot)
{
	int error = region->k->mprotect(region_address(region, first), (end - first) << region->page_shift, prot);

	/* Not all mapped any more: nobody tells of that. */
	return error == -ENOMEM && !region_is_mapped(region, first) ? -ESTALE : error;
}

static void count_maps(struct uffdwp_region *region, int64_t by)
{
	atomic_fetch_add_explicit(&region->maps, by, memory_order_relaxed);
	atomic_fetch_add_explicit(&maps_used, by, memory_order_relaxed);
}

static void set_maps(struct uffdwp_region *region, int64_t maps)
{
	count_maps(region, maps - atomic_load(&region->maps));
}

/* What one side of a run that is let go adds: a border, where the neighbour may still be protected; else it takes one
 * away, if its own last page was protected until now. */
static int64_t border(const struct uffdwp_region *region, uint64_t own, uint64_t neighbour, int exists)
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
	int error = set_protection(region, first, end, region->prot & ~PROT_WRITE);

	if (error)
		return error;
	if (first == 0 || first == region->armed_until)
		region->armed_until = end;
	else
		region->armed_until = 0;
	if (region->armed_until >= region_pages(region))
		set_maps(region, 1);
	else
		count_maps(region, first > 0 ? 2 : 1);
	return 0;
}

static int mprotect_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int64_t by =
	        border(region, first, first - 1, first > 0) + border(region, end - 1, end, end < region->ledger.count);
	int error = set_protection(region, first, end, region->prot);

	if (error)
		return error;
	if (atomic_load_explicit(&region->maps, memory_order_relaxed) + by >= 1)
		count_maps(region, by);
	return 0;
}

static uint64_t mprotect_grain(struct uffdwp_region *region)
{
	int64_t half = atomic_load_explicit(&maps_allowed, memory_order_relaxed) / 2;
	int64_t used = atomic_load_explicit(&maps_used, memory_order_relaxed) -
	               atomic_load_explicit(&maps_base, memory_order_relaxed);

	(void)region;
	if (used < half)
		return 1;
	uint64_t blocks = half > 4 ? (uint64_t)half / 2 : 2; /* each makes two borders */
	uint64_t grain = 2;

	while (grain * blocks < atomic_load_explicit(&pages_watched, memory_order_relaxed))
		grain *= 2;
	return grain;
}

/* Lines of /proc/self/maps: how many mappings there are. */
static int64_t count_lines(const struct kernel_ops *k)
{
	char text[4096];
	int64_t lines = 0;
	ssize_t got;
	int fd = k->open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	while ((got = k->read(fd, text, sizeof(text))) > 0) {
		for (ssize_t i = 0; i < got; i++)
			lines += text[i] == '\n';
	}
	k->close(fd);
	return lines;
}

/* All that there is now, ours and the program's, is what is beside the rest of the limit. */
static void mprotect_prepare(struct uffdwp_region *region)
{
	uint64_t limit;
	int64_t lines = count_lines(region->k);

	if (lines < 0 || procfs_number(region->k, "/proc/sys/vm/max_map_count", "", &limit))
		return;
	int64_t allowed = (int64_t)limit - (int64_t)limit / 4 - lines;

	atomic_store(&maps_base, atomic_load(&maps_used));
	atomic_store(&maps_allowed, allowed > 8 ? allowed : 8);
	TRACE("region %p: mprotect may make %lld more of %llu mappings", (void *)region, (long long)allowed,
	      (unsigned long long)limit);
}

void mprotect_watch(struct uffdwp_region *region, int on)
{
	if (on) {
		atomic_fetch_add(&pages_watched, region->ledger.count);
		count_maps(region, 1);
	} else {
		atomic_fetch_sub(&pages_watched, region->ledger.count);
		count_maps(region, -atomic_load(&region->maps));
	}
}

const struct mechanism mechanism_mprotect = {
        .name = "mprotect",
        .id = UFFDWP_MECHANISM_MPROTECT,
        .arm = mprotect_arm,
        .disarm = mprotect_disarm,
        .grain = mprotect_grain,
        .prepare = mprotect_prepare,
};
