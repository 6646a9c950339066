/* SPDX-License-Identifier: MIT */
/* See tour.h. */
#include "tour.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "place.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define PAGES 64

const char *volatile tour_at = "nothing yet";

/* The call, with its name noted. */
#define TOUR(function, ...) (tour_at = #function, uffdwp_##function(__VA_ARGS__))

struct tour {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t page_bytes;
	size_t length;
	const char *folder;
	char whole[SCRATCH_PATH];
	char delta[SCRATCH_PATH];
	char merged[SCRATCH_PATH];
	int is_shmem;
};

static void tour_write(const struct tour *tour, uint8_t value)
{
	for (size_t page = 0; page < PAGES; page += 2) {
		tour->base[page * tour->page_bytes] = value;
	}
}

static int sink(void *user, uint64_t offset, const void *bytes, size_t length)
{
	(void)user;
	(void)offset;
	(void)bytes;
	(void)length;
	return 0;
}

static int enter(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	return 0;
}

static int enter_view(void *user)
{
	(void)user;
	return 0;
}

static void leave(void *user)
{
	(void)user;
}

static void tour_snapshot(struct tour *tour, const struct uffdwp_snapshot_options *options, int expected)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot *snapshot;
	char text[256];

	must(TOUR(snapshot_begin, tour->region, options, &snapshot) == 0);
	tour_write(tour, 7);
	must(TOUR(prepare_write, tour->region, 0, tour->length) == 0);
	must(TOUR(snapshot_poll, snapshot, &progress) == 0);
	must(TOUR(snapshot_fd, snapshot) >= 0);
	if (expected == -ECANCELED) {
		must(TOUR(snapshot_abort, snapshot) == 0);
	}
	int result = TOUR(snapshot_wait, snapshot, -1, &progress);
	must(result == expected || (expected == -ECANCELED && result == 0));
	(void)TOUR(snapshot_text, snapshot, text, sizeof(text));
	must(TOUR(snapshot_free, snapshot) == 0);
}

static void tour_snapshots(struct tour *tour)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;

	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = sink;
	options.cut_enter = enter;
	options.cut_leave = leave;
	tour_snapshot(tour, &options, 0);
	tour_snapshot(tour, &options, -ECANCELED);
	must(TOUR(snapshot_begin_group, &tour->region, &options, 1, &snapshot) == 0);
	must(TOUR(snapshot_free, snapshot) == 0);
	options = (struct uffdwp_snapshot_options)UFFDWP_SNAPSHOT_OPTIONS_INIT;
	must(TOUR(snapshot_begin, tour->region, &options, &snapshot) == -EINVAL);
	options.path = "/nowhere/at/all";
	must(TOUR(snapshot_begin, tour->region, &options, &snapshot) < 0);
	options.path = tour->whole;
	options.flags = tour->is_shmem ? UFFDWP_SNAPSHOT_KEEP : 0;
	tour_snapshot(tour, &options, 0);
	if (tour->is_shmem) {
		options.path = tour->delta;
		options.parent = tour->whole;
		options.compress = 1;
		tour_snapshot(tour, &options, 0);
	}
}

static void tour_view(struct tour *tour)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view_info info = {.sz = sizeof(info)};
	struct uffdwp_view *view;

	options.cut_enter = enter_view;
	options.cut_leave = leave;
	must(TOUR(view_open, tour->region, &options, &view) == 0);
	tour_write(tour, 8);
	must(TOUR(view_base, view) != NULL);
	must(TOUR(view_info, view, &info) == 0);
	must(TOUR(view_close, view) == 0);
}

static void tour_track(struct tour *tour, uint32_t mechanism, void *memory)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_track_info info = {.sz = sizeof(info)};
	struct uffdwp_written ranges[8];
	struct uffdwp_track *track;
	uint64_t vanished;

	options.mechanism = mechanism;
	options.flags = mechanism == UFFDWP_MECHANISM_SOFT_DIRTY ? UFFDWP_TRACK_START_RESET_PROCESS : 0;
	if (TOUR(track_start, tour->runtime, &options, &track) == -EOPNOTSUPP) {
		return;
	}
	must(TOUR(track_add, track, memory, tour->length, 0) == 0);
	must(TOUR(track_add, track, memory, tour->length, 0) < 0);
	must(TOUR(track_add, track, tour->base, tour->length, UFFDWP_TRACK_ADD_CLEAN) == 0);
	((uint8_t *)memory)[0] = 1;
	tour_write(tour, 9);
	collect.ranges = ranges;
	collect.capacity = 8;
	must(TOUR(track_collect, track, &collect) == 0);
	must(TOUR(track_info, track, &info) == 0);
	must(TOUR(track_audit, track, &vanished) == 0);
	must(TOUR(track_remove, track, memory, tour->length) == 0);
	must(TOUR(track_remove, track, memory, tour->length) == -ENOENT);
	must(TOUR(track_stop, track) == 0);
}

static void tour_tracks(struct tour *tour)
{
	void *memory = mmap(NULL, tour->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED);
	memset(memory, 1, tour->length);
	tour_track(tour, UFFDWP_MECHANISM_AUTO, memory);
	tour_track(tour, UFFDWP_MECHANISM_MPROTECT, memory);
	tour_track(tour, UFFDWP_MECHANISM_SOFT_DIRTY, memory);
	munmap(memory, tour->length);
}

static void tour_region(struct tour *tour)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	struct uffdwp_lost_range lost[4];
	uint64_t pages;
	char text[256];

	must(TOUR(region_locate, tour->base) == tour->region);
	must(TOUR(region_info, tour->region, &info) == 0);
	must(TOUR(region_arm, tour->region, 0, tour->length) == 0);
	must(TOUR(region_armed, tour->region, 0, tour->length, &pages) == 0);
	must(TOUR(region_arm, tour->region, 1, tour->length) == -EINVAL);
	(void)TOUR(error_text, text, sizeof(text));
	tour_write(tour, 2);
	must(TOUR(region_disarm, tour->region, 0, tour->length) == 0);
	must(TOUR(region_stats, tour->region, &stats) == 0);
	(void)TOUR(region_audit, tour->region, &audit);
	(void)TOUR(region_losses, tour->region, lost, 4);
	must(TOUR(region_losses, tour->region, lost, 0) == -EINVAL);
	must(TOUR(region_grow, tour->region, tour->length + tour->page_bytes) == 0);
	must(TOUR(region_punch, tour->region, tour->page_bytes, tour->page_bytes) == 0);
	must(TOUR(region_close, NULL) == 0);
}

static void tour_restore(struct tour *tour, const char *path)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_restore *restore;
	char text[256];

	options.path = path;
	must(TOUR(restore, tour->region, &options, &progress) == 0);
	int error = TOUR(restore_begin, tour->region, &options, &restore);
	if (error == -EOPNOTSUPP) {
		return;
	}
	must(error == 0);
	must(TOUR(restore_check, restore, 0, tour->length) == 0);
	must(TOUR(restore_fd, restore) >= 0);
	must(TOUR(restore_poll, restore, &progress) == 0);
	must(TOUR(restore_wait, restore, -1, &progress) == 0);
	(void)TOUR(restore_text, restore, text, sizeof(text));
	must(TOUR(restore_free, restore) == 0);
}

static void tour_image(struct tour *tour)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	struct uffdwp_image_merge_options merge = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	struct uffdwp_image *image;
	struct uffdwp_image *whole;
	char bytes[256];

	must(TOUR(image_open, "/nowhere/at/all", &options, &image) < 0);
	must(TOUR(image_open, tour->whole, &options, &whole) == 0);
	must(TOUR(image_open, tour->delta, &options, &image) == 0);
	must(TOUR(image_info, image, 0, &info) == 0);
	must(TOUR(image_read, image, 0, bytes, sizeof(bytes)) == 0);
	must(TOUR(image_next, image, 0, &extent) >= 0);
	must(TOUR(image_verify, image, &verified) == 0);
	must(TOUR(image_merge, image, tour->merged, &merge) == 0);
	must(TOUR(image_diff, whole, image, &diff) == 0);
	(void)TOUR(image_text, image, bytes, sizeof(bytes));
	must(TOUR(image_close, image) == 0);
	must(TOUR(image_close, whole) == 0);
}

static void tour_place(struct tour *tour, struct place_case which)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;

	options.mechanism = which.mechanism;
	options.delivery = which.delivery;
	options.capacity_bytes = 2 * tour->length;
	must(TOUR(region_create, tour->runtime, tour->length, &options, &tour->region) == 0);
	tour->base = TOUR(region_base, tour->region);
	tour->is_shmem = place_has_increments(which);
	tour_region(tour);
	tour_tracks(tour);
	tour_snapshots(tour);
	if (tour->is_shmem) {
		tour_view(tour);
		tour_image(tour);
	}
	tour_restore(tour, tour->is_shmem ? tour->delta : tour->whole);
	must(TOUR(region_close, tour->region) == 0);
}

static void tour_attach(struct tour *tour)
{
	void *memory = mmap(NULL, tour->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED);
	must(TOUR(region_attach, tour->runtime, memory, tour->length, NULL, &tour->region) == 0);
	must(TOUR(region_attach, tour->runtime, memory, tour->length, NULL, &tour->region) < 0);
	tour->base = memory;
	must(TOUR(region_arm, tour->region, 0, tour->length) == 0);
	tour_write(tour, 3);
	must(TOUR(region_close, tour->region) == 0);
	munmap(memory, tour->length);
}

static void tour_probe(void)
{
	struct uffdwp_probe_system system = {.sz = sizeof(system)};
	struct uffdwp_probe_memory memory = {.sz = sizeof(memory)};
	struct uffdwp_probe_trial trial = {.sz = sizeof(trial)};
	struct uffdwp_probe_rung rung = {.sz = sizeof(rung)};
	struct uffdwp_probe_arming arming = {.sz = sizeof(arming)};
	struct uffdwp_probe *probe;
	int32_t result;

	must(TOUR(probe_run, &probe) == 0);
	must(TOUR(probe_system, probe, &system) == 0);
	must(TOUR(probe_access, probe, 0, &result) == 0);
	must(TOUR(probe_memory, probe, UFFDWP_MEMORY_SHMEM, &memory) == 0);
	must(TOUR(probe_trial, probe, UFFDWP_MEMORY_SHMEM, 0, &trial) == 0);
	must(TOUR(probe_rung, probe, UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, &rung) == 0);
	must(TOUR(probe_arming, probe, UFFDWP_MEMORY_SHMEM, UFFDWP_ARMING_MOVE, &arming) == 0);
	must(TOUR(probe_free, probe) == 0);
}

void tour_run(const char *folder)
{
	struct tour tour = {.page_bytes = place_page_bytes(UFFDWP_MEMORY_SHMEM), .folder = folder};

	tour.length = PAGES * tour.page_bytes;
	scratch_join(tour.whole, folder, "whole");
	scratch_join(tour.delta, folder, "delta");
	scratch_join(tour.merged, folder, "merged");
	(void)TOUR(version);
	must(TOUR(log_to, NULL, NULL) == 0);
	tour_probe();
	must(TOUR(open, NULL, &tour.runtime) == 0);
	for (int i = 0; i < PLACE_CASES; i++) {
		struct place_case which = place_case(i);
		if (which.memory == UFFDWP_MEMORY_SHMEM && place_possible(which)) {
			tour_place(&tour, which);
		}
	}
	tour_attach(&tour);
	must(TOUR(close, tour.runtime) == 0);
}
