/* SPDX-License-Identifier: MIT */
/*
 * soft-dirty: the kernel sets a bit in the page-table entry of a page that is written, and clears all of them for the
 * whole process when 4 is written to /proc/self/clear_refs (Documentation/admin-guide/mm/soft-dirty.rst). To look and
 * to clear are two steps: a write between them would be forgotten. So what is tracked is protected by mprotect(2)
 * meanwhile and faults are held (INV-TRACK); system calls that write there fail with EFAULT for that moment.
 *
 * Clearing takes the bits of every track: all of them are looked at first, and their pages noted in `written` of their
 * regions, which is what a collect reads. An empty entry counts as written, because what was thrown away leaves no bit.
 *
 * Threads: whoever collects, with tracks_lock held for reading, one at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "base/signals.h"
#include "fault/fault.h"
#include "track/track.h"

#define ENTRIES 512

static pthread_mutex_t harvest_lock = PTHREAD_MUTEX_INITIALIZER;

struct harvest {
	const struct kernel_ops *k;
	int pagemap;
	int error;
};

static int clear_bits(const struct kernel_ops *k)
{
	int fd = k->open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	ssize_t written = k->write(fd, "4", 1);

	k->close(fd);
	return written < 0 ? (int)written : 0;
}

static void hold(struct uffdwp_region *region)
{
	pthread_mutex_lock(&region->lock);
	fault_enter_phase(region, PHASE_HOLD);
}

static void let_go(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	/* Of memory that vanished in part, what is left. */
	if (region->mechanism->disarm(region, 0, pages)) {
		for (uint64_t page = 0; page < pages; page++)
			region->mechanism->disarm(region, page, page + 1);
	}
	atomic_store(&region->phase, (uint32_t)PHASE_IDLE);
	fault_wake_held(region);
	pthread_mutex_unlock(&region->lock);
}

static int is_written(uint64_t entry, int populated_only)
{
	int is_empty = !(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED));

	return is_empty ? !populated_only : (entry & PAGEMAP_SOFT_DIRTY) != 0;
}

/* Pages are the system's: only anonymous memory is tracked so. */
static void note(struct harvest *harvest, const struct uffdwp_track *track, struct uffdwp_region *region)
{
	uint64_t entries[ENTRIES];
	uint64_t pages = region_pages(region);
	uint64_t index = (uint64_t)(uintptr_t)region_address(region, 0) >> region->page_shift;
	int populated_only = (track->flags & UFFDWP_TRACK_POPULATED) != 0;

	for (uint64_t page = 0; page < pages && !harvest->error; page += ENTRIES) {
		uint64_t count = min_u64(ENTRIES, pages - page);
		ssize_t got = harvest->k->pread(harvest->pagemap, entries, count * sizeof(entries[0]),
		                                (index + page) * sizeof(entries[0]));

		if (got != (ssize_t)(count * sizeof(entries[0])))
			harvest->error = got < 0 ? (int)got : -EIO;
		for (uint64_t i = 0; i < count && !harvest->error; i++) {
			if (is_written(entries[i], populated_only))
				region_note_written(region, page + i);
		}
	}
}

typedef void act_fn(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region);

static void each_region(struct harvest *harvest, act_fn *act)
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

static void act_hold(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	hold(region);
}

/* Of memory that vanished nothing can be protected, nor written. */
static void act_protect(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)track;
	int error = atomic_load(&region->dead) ? 0 : region->mechanism->arm(region, 0, region_pages(region));

	if (error == -ESTALE)
		atomic_store(&region->dead, 1);
	else if (error && !harvest->error)
		harvest->error = error;
}

static void act_note(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	if (!atomic_load(&region->dead))
		note(harvest, track, region);
}

static void act_let_go(struct harvest *harvest, struct uffdwp_track *track, struct uffdwp_region *region)
{
	(void)harvest;
	(void)track;
	let_go(region);
}

static int harvest_all(struct uffdwp_track *track)
{
	struct harvest harvest = {.k = track->k};
	sigset_t before;

	harvest.pagemap = track->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	if (harvest.pagemap < 0)
		return harvest.pagemap;
	signals_block(&before);
	each_region(&harvest, act_hold);
	each_region(&harvest, act_protect);
	each_region(&harvest, act_note);
	if (!harvest.error)
		harvest.error = clear_bits(track->k);
	each_region(&harvest, act_let_go);
	signals_restore(&before);
	track->k->close(harvest.pagemap);
	return harvest.error;
}

int soft_dirty_harvest(struct uffdwp_track *track)
{
	pthread_mutex_lock(&harvest_lock);
	int error = harvest_all(track);

	pthread_mutex_unlock(&harvest_lock);
	return error;
}

/* A page that is written, cleared, and written again must show that each time. This clears the process. */
static int try_page(const struct kernel_ops *k, int pagemap, void *page, uint64_t page_bytes)
{
	static const uint64_t expected[] = {PAGEMAP_SOFT_DIRTY, 0, PAGEMAP_SOFT_DIRTY};
	uint64_t at = (uintptr_t)page / page_bytes * sizeof(uint64_t);

	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		uint64_t entry = 0;
		int error = i == 1 ? clear_bits(k) : k->try_write(page);

		if (error)
			return error;
		if (k->pread(pagemap, &entry, sizeof(entry), at) != (ssize_t)sizeof(entry))
			return -EIO;
		if ((entry & PAGEMAP_SOFT_DIRTY) != expected[i])
			return -EOPNOTSUPP;
	}
	return 0;
}

static int has_track(void)
{
	for (const struct uffdwp_track *track = track_first(); track; track = track->next) {
		if (track->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY)
			return 1;
	}
	return 0;
}

static int try_bits(const struct kernel_ops *k)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int pagemap = k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	void *page = pages_new(k, page_bytes);
	int error = pagemap < 0 ? pagemap : page ? 0 : -ENOMEM;

	if (!error)
		error = try_page(k, pagemap, page, page_bytes);
	pages_free(k, page, page_bytes);
	if (pagemap >= 0)
		k->close(pagemap);
	return error;
}

int soft_dirty_works(const struct kernel_ops *k, struct text *text)
{
	/* Where there is a track already, it was tried, and trying would take that one's bits. */
	pthread_rwlock_rdlock(&tracks_lock);
	int error = has_track() ? 0 : try_bits(k);

	pthread_rwlock_unlock(&tracks_lock);
	if (error == -EOPNOTSUPP)
		return text_fail(text, error, "this kernel keeps no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)");
	return error ? text_fail(text, error, "soft-dirty could not be tried: %s", strerror(-error)) : 0;
}
