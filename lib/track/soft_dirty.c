/* SPDX-License-Identifier: MIT */
/*
 * soft-dirty: the kernel sets a bit in the page-table entry of a page that is written, and clears all of them for the
 * whole process when 4 is written to /proc/self/clear_refs (Documentation/admin-guide/mm/soft-dirty.rst). To look and
 * to clear are two steps: a write between them would be forgotten. So what is tracked is protected by mprotect(2)
 * meanwhile and faults are stalled (INV-TRACK); system calls that write there fail with EFAULT for that moment.
 *
 * Clearing takes the bits of every track: all of them are looked at first, and their pages noted in `written` of their
 * regions, which is what a collect reads. An empty entry counts as written, because what was thrown away leaves no bit.
 *
 * Threads: the one that collects, with tracks_lock held for reading, one at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/forks.h"
#include "base/math.h"
#include "base/signals.h"
#include "fault/fault.h"
#include "fault/phase.h"
#include "fault/runtime.h"
#include "kernel/pagemap.h"
#include "track/track.h"

#define ENTRIES 512

static struct lock harvest_lock = LOCK_INIT;

struct harvest {
	const struct kernel_ops *k;
	int pagemap;
	int error;
};

static int soft_dirty_clear_bits(const struct kernel_ops *k)
{
	int fd = k->open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	ssize_t written = k->write(fd, "4", 1);

	k->close(fd);
	return written < 0 ? (int)written : 0;
}

static void soft_dirty_resume(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	/* Where memory vanished in part, what is left. */
	if (region->mechanism->disarm(region, 0, pages)) {
		for (uint64_t page = 0; page < pages; page++)
			region->mechanism->disarm(region, page, page + 1);
	}
	phase_resume(region, PHASE_IDLE);
}

static int soft_dirty_is_written(uint64_t entry, int populated_only)
{
	int is_empty = !(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED));

	return is_empty ? !populated_only : (entry & PAGEMAP_SOFT_DIRTY) != 0;
}

/* Pages are the system's: only anonymous memory is tracked so. */
static void soft_dirty_note(struct harvest *harvest, const struct uffdwp_track *track, struct uffdwp_region *region)
{
	uint64_t entries[ENTRIES];
	uint64_t pages = region_pages(region);
	int populated_only = (track->flags & UFFDWP_TRACK_START_POPULATED) != 0;

	for (uint64_t page = 0; page < pages && !harvest->error; page += ENTRIES) {
		uint64_t count = math_min_u64(ENTRIES, pages - page);

		harvest->error = pagemap_read(harvest->k, harvest->pagemap,
		                              (uint64_t)(uintptr_t)region_address(region, page), count, entries);
		for (uint64_t i = 0; i < count && !harvest->error; i++) {
			if (soft_dirty_is_written(entries[i], populated_only))
				region_note_written(region, page + i);
		}
	}
}

typedef void act_fn(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region);

static void soft_dirty_each_region(struct harvest *harvest, act_fn *act)
{
	for (struct uffdwp_track *track = track_first(); track; track = track->next) {
		if (track->mechanism != UFFDWP_MECHANISM_SOFT_DIRTY)
			continue;
		for (size_t i = 0; i < track->watched_count; i++) {
			if (track->watched[i].region->soft_dirty)
				act(harvest, track, track->watched[i].region);
		}
	}
}

/* First all locks, then faults are stalled: a thread that waits in a fault may have the lock of another region. */
static void soft_dirty_act_lock(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	lock_take(&region->lock);
}

static void soft_dirty_act_unlock(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	lock_give(&region->lock);
}

static void soft_dirty_act_stall(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	phase_stall(region);
}

/* Memory that vanished cannot be protected, nor written. */
static void soft_dirty_act_protect(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)track;
	int error = atomic_load(&region->dead) ? 0 : region->mechanism->arm(region, 0, region_pages(region));

	if (error == -ESTALE)
		region_die(region, REGION_UNMAPPED);
	else if (error && !harvest->error)
		harvest->error = error;
}

static void soft_dirty_act_note(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	if (!atomic_load(&region->dead))
		soft_dirty_note(harvest, track, region);
}

static void soft_dirty_act_resume(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	soft_dirty_resume(region);
}

static int soft_dirty_harvest_all(struct uffdwp_track *track)
{
	struct harvest harvest = {.k = track->k};
	sigset_t before;

	harvest.pagemap = runtime_pagemap(track->runtime);
	if (harvest.pagemap < 0)
		return harvest.pagemap;
	soft_dirty_each_region(&harvest, soft_dirty_act_lock);
	signals_block(&before);
	soft_dirty_each_region(&harvest, soft_dirty_act_stall);
	soft_dirty_each_region(&harvest, soft_dirty_act_protect);
	soft_dirty_each_region(&harvest, soft_dirty_act_note);
	if (!harvest.error)
		harvest.error = soft_dirty_clear_bits(track->k);
	soft_dirty_each_region(&harvest, soft_dirty_act_resume);
	signals_restore(&before);
	soft_dirty_each_region(&harvest, soft_dirty_act_unlock);
	track->k->close(harvest.pagemap);
	return harvest.error;
}

static void soft_dirty_renew_in_child(void)
{
	lock_init(&harvest_lock);
}

int soft_dirty_harvest(struct uffdwp_track *track)
{
	forks_add(soft_dirty_renew_in_child);
	lock_take(&harvest_lock);
	int error = soft_dirty_harvest_all(track);

	lock_give(&harvest_lock);
	return error;
}

/* A page that is written, cleared, and written again must show that each time. This clears the process. */
static int soft_dirty_try_page(const struct kernel_ops *k, int pagemap, void *page)
{
	static const uint64_t expected[] = {PAGEMAP_SOFT_DIRTY, 0, PAGEMAP_SOFT_DIRTY};

	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		uint64_t entry = 0;
		int error = i == 1 ? soft_dirty_clear_bits(k) : k->try_write(page);

		if (!error)
			error = pagemap_read(k, pagemap, (uintptr_t)page, 1, &entry);
		if (error)
			return error;
		if ((entry & PAGEMAP_SOFT_DIRTY) != expected[i])
			return -EOPNOTSUPP;
	}
	return 0;
}

static int soft_dirty_has_track(void)
{
	for (const struct uffdwp_track *track = track_first(); track; track = track->next) {
		if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY)
			return 1;
	}
	return 0;
}

static int soft_dirty_try_bits(const struct kernel_ops *k)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int pagemap = pagemap_open(k);
	void *page = pages_new(k, page_bytes);
	int error = pagemap < 0 ? pagemap : page ? 0 : -ENOMEM;

	if (!error)
		error = soft_dirty_try_page(k, pagemap, page);
	pages_free(k, page, page_bytes);
	if (pagemap >= 0)
		k->close(pagemap);
	return error;
}

int soft_dirty_works(const struct kernel_ops *k, struct text *text)
{
	sigset_t before;

	/* Where there is a track already, it was tried, and trying would take that one's bits. */
	lock_shared_read(&tracks_lock, &before);
	int error = soft_dirty_has_track() ? 0 : soft_dirty_try_bits(k);

	lock_shared_give(&tracks_lock, &before);
	if (error == -EOPNOTSUPP)
		return text_fail(text, error, "this kernel keeps no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)");
	return error ? text_fail(text, error, "soft-dirty could not be tried: %s", errno_text(error)) : 0;
}
