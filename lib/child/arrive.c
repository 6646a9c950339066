/* SPDX-License-Identifier: MIT */
/*
 * In the child: its private mappings go to the addresses of the regions before anything else runs there; and before it
 * forks itself it takes a copy of all that it shares with its parent still, which breaks pages off this child alone.
 * See child.h.
 *
 * What is a page of its own, the kernel's pagemap says. What is not, and is a hole of the file at this moment, was one
 * at the cut (a page that had content was broken off before its content went): it becomes anonymous memory, so that
 * nothing is allocated; unless other threads run here, which may write to it meanwhile: then it is copied like the
 * rest.
 *
 * Threads: the one that forked, which is the only one at first; later one that forks.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/math.h"
#include "child/child_private.h"
#include "kernel/mapping.h"
#include "kernel/pagemap.h"
#include "kernel/process.h"
#include "kernel/procfs.h"

/* Pages that are looked at at a time. */
#define ARRIVE_PAGES 512

/* Holes of fewer pages are copied, not mapped anew: each takes a mapping. */
#define ARRIVE_HOLE_PAGES 64

/* How long the parent is waited for, in moments. */
#define ARRIVE_MOMENT_NS 1000000
#define ARRIVE_MOMENTS 1000

struct arrive_range {
	const struct uffdwp_region *region;
	uint64_t start;
	uint64_t end;
};

/* What this process shares with its parent; in a child only. */
static struct arrive_range arrive_ranges[UFFDWP_FORK_REGIONS_MAX];
static unsigned arrive_count;
static uint32_t arrive_process; /* by process_number(): a child of this one has the list, too */

/* Until the parent has opened what it breaks pages off by: an execve(2) or a change of the user before would keep it
 * from that. Bounded: the parent may be stopped, or gone. */
static void arrive_await(const struct uffdwp_child *child)
{
	const struct timespec moment = {.tv_nsec = ARRIVE_MOMENT_NS};

	for (int i = 0; i < ARRIVE_MOMENTS && !atomic_load(&child->in.meeting->met); i++)
		syscall(SYS_futex, &child->in.meeting->met, FUTEX_WAIT, 0, &moment, NULL, 0);
}

void child_end_here(const struct kernel_ops *k)
{
	k->kill(-1, (int)syscall(SYS_getpid));
	_exit(127); /* where a sandbox forbids kill(2) */
}

/* What the parent grows by later the child would see unfrozen, and a mapping that the child makes must not come to lie
 * at addresses of the region. Where mmap(2) is refused the child makes none. */
static void arrive_reserve(const struct kernel_ops *k, uint64_t start, uint64_t end)
{
	void *rest = (void *)(uintptr_t)start;
	int error;

	if (start < end && !k->mmap(rest, end - start, PROT_NONE,
	                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0, &error))
		k->munmap(rest, end - start);
}

void child_arrive(struct uffdwp_child *child)
{
	int error = 0;

	arrive_count = child->count;
	arrive_process = process_number();
	for (unsigned i = 0; i < child->count; i++) {
		const struct uffdwp_view *view = &child->views[i];

		if (!child->k->mremap(child->mapped[i], view->map_bytes, view->map_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
		                      view->base, &error))
			child_end_here(child->k);
		uint64_t start = (uint64_t)(uintptr_t)view->base;
		uint64_t end = start + (view->end_page << view->page_shift);

		arrive_ranges[i] = (struct arrive_range){view->region, start, end};
		arrive_reserve(child->k, end, start + view->map_bytes);
	}
	atomic_store(&child->in.meeting->arrived, (uint32_t)syscall(SYS_getpid));
	if (child_report(child))
		child_end_here(child->k);
	arrive_await(child);
}

/* ---- taking all ---- */

struct arrive_take {
	const struct kernel_ops *k;
	const struct arrive_range *range;
	int pagemap;
	int mem;
	int alone; /* no other thread of this process runs */
	int failed;
	uint64_t page_bytes;
};

/* One page, whatever its mapping allows. */
static void arrive_copy_page(struct arrive_take *take, uint64_t address)
{
	uint64_t entry;

	if (!take->k->madvise((void *)(uintptr_t)address, take->page_bytes, MADV_POPULATE_WRITE))
		return;
	(void)mapping_rewrite(take->k, take->mem, address);
	take->failed |= pagemap_read(take->k, take->pagemap, address, 1, &entry) || !pagemap_is_own(entry);
}

static void arrive_copy(struct arrive_take *take, uint64_t start, uint64_t end)
{
	if (start == end || !take->k->madvise((void *)(uintptr_t)start, end - start, MADV_POPULATE_WRITE))
		return;
	for (uint64_t at = start; at < end; at += take->page_bytes)
		arrive_copy_page(take, at);
}

/* Pages that are not this process's own, and are alike: holes of the file, or not. */
static void arrive_take_run(struct arrive_take *take, uint64_t start, uint64_t end, int hole, int writable)
{
	int error;

	if (!hole || !take->alone || !writable || end - start < ARRIVE_HOLE_PAGES * take->page_bytes ||
	    !take->k->mmap((void *)(uintptr_t)start, end - start, PROT_READ | PROT_WRITE,
	                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0, &error))
		arrive_copy(take, start, end);
}

/* Part of one mapping, of data or of a hole alone. */
static void arrive_take_alike(struct arrive_take *take, uint64_t start, uint64_t end, int hole, int writable)
{
	uint64_t entries[ARRIVE_PAGES];
	uint64_t from = start; /* of the run */

	for (uint64_t at = start; at < end;) {
		uint64_t count = math_min_u64((end - at) / take->page_bytes, ARRIVE_PAGES);
		int known = !pagemap_read(take->k, take->pagemap, at, count, entries);

		for (uint64_t i = 0; i < count; i++, at += take->page_bytes) {
			if (!known || !pagemap_is_own(entries[i]))
				continue;
			arrive_take_run(take, from, at, hole, writable);
			from = at + take->page_bytes;
		}
	}
	arrive_take_run(take, from, end, hole, writable);
}

static uint64_t arrive_seek(const struct arrive_take *take, uint64_t address, uint64_t end, enum region_seek what)
{
	const struct uffdwp_region *region = take->range->region;
	uint64_t start = take->range->start;

	if (region_check_file(region))
		return what == REGION_SEEK_HOLE ? end : address; /* closed meanwhile: all counts as data */
	return start + math_round_up(region_seek((struct uffdwp_region *)region, address - start, end - start, what),
	                             take->page_bytes);
}

static void arrive_take_part(struct arrive_take *take, uint64_t start, uint64_t end, int writable)
{
	while (start < end) {
		uint64_t data =
		        math_min_u64(arrive_seek(take, start, end, REGION_SEEK_DATA) & ~(take->page_bytes - 1), end);

		if (data > start)
			arrive_take_alike(take, start, data, 1, writable);
		start = data;
		uint64_t hole = math_min_u64(arrive_seek(take, start, end, REGION_SEEK_HOLE), end);

		if (hole > start)
			arrive_take_alike(take, start, hole, 0, writable);
		start = hole;
	}
}

/* The parts that are still mapped from the region's file. */
static void arrive_take_range(struct arrive_take *take, int maps)
{
	struct mapping mapping;
	uint64_t at = take->range->start;

	while (at < take->range->end && mapping_at(take->k, maps, at, &mapping) > 0) {
		uint64_t start = mapping.start > at ? mapping.start : at;
		uint64_t end = math_min_u64(mapping.end, take->range->end);

		if (start < end && mapping.inode == take->range->region->fd_inode && mapping.is_private)
			arrive_take_part(take, start, end, mapping.writable);
		at = mapping.end;
	}
}

static int arrive_is_alone(const struct kernel_ops *k)
{
	uint64_t threads = 0;

	return !procfs_number(k, "/proc/self/status", "Threads:", &threads) && threads == 1;
}

int child_take_all(void)
{
	const struct kernel_ops *k = &kernel_real;

	if (!arrive_count || arrive_process != process_number())
		return 0;
	struct arrive_take take = {.k = k,
	                           .pagemap = pagemap_open(k),
	                           .mem = k->open("/proc/self/mem", O_RDWR | O_CLOEXEC, 0),
	                           .alone = arrive_is_alone(k)};
	int maps = k->open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	for (unsigned i = 0; i < arrive_count; i++) {
		take.range = &arrive_ranges[i];
		take.page_bytes = take.range->region->page_bytes;
		if (maps >= 0)
			arrive_take_range(&take, maps);
		else
			arrive_copy(&take, take.range->start, take.range->end);
	}
	const int fds[] = {take.pagemap, take.mem, maps};

	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			k->close(fds[i]);
	}
	if (take.failed)
		return -ENOMEM;
	arrive_count = 0;
	return 0;
}
