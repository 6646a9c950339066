/* SPDX-License-Identifier: MIT */
/*
 * A program of today, to be run with the library of a later release (test_future.sh): it gives options and takes
 * answers of today's sizes in every call that has them, and checks what it gets. After each answer lies a guard that a
 * library which knows a longer one must not touch. Exit code 0: all is as with today's library.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uffdwp.h"

#define LENGTH_BYTES ((size_t)1 << 20)
#define GUARD 0x5a5a5a5a5a5a5a5aull

#define require(condition) require_holds((condition) ? 1 : 0, __LINE__, #condition)

static void require_holds(int holds, int line, const char *text)
{
	char why[512];

	if (holds)
		return;
	(void)uffdwp_error_text(why, sizeof(why));
	fprintf(stderr, "old_program.c:%d: %s; the last error: %s\n", line, text, why);
	exit(1);
}

/* An answer of today with a guard after it. */
#define ANSWER(type, name)                                                                                             \
	struct {                                                                                                       \
		struct type answer;                                                                                    \
		uint64_t guard;                                                                                        \
	} name = {{.sz = sizeof(struct type)}, GUARD}

/* The same of what has no sz, and so never grows: the library writes as many as it was asked for. */
#define ARRAY(type, name)                                                                                              \
	struct {                                                                                                       \
		struct type first[2];                                                                                  \
		uint64_t guard;                                                                                        \
	} name = {.guard = GUARD}

static void use_region(struct uffdwp_region *region)
{
	ANSWER(uffdwp_region_info, info);
	ANSWER(uffdwp_region_stats, stats);
	ANSWER(uffdwp_audit, audit);

	require(uffdwp_region_info(region, &info.answer) == 0 && info.guard == GUARD);
	require(info.answer.length_bytes == LENGTH_BYTES && info.answer.base == uffdwp_region_base(region));
	require(uffdwp_region_stats(region, &stats.answer) == 0 && stats.guard == GUARD);
	int error = uffdwp_region_audit(region, &audit.answer);

	require((error == 0 || error == -EOPNOTSUPP) && audit.guard == GUARD);
	require(info.answer.delivery == UFFDWP_DELIVERY_THREAD || info.answer.delivery == UFFDWP_DELIVERY_INLINE);
	ARRAY(uffdwp_lost_range, lost);
	int count = uffdwp_region_losses(region, lost.first, 2);

	require(count >= 0 && count <= 2 && lost.guard == GUARD);
	require(count == 0 || lost.first[0].cause <= UFFDWP_LOSS_UNKNOWN);
}

static void use_view(struct uffdwp_region *region)
{
	struct uffdwp_view_options options = {.sz = sizeof(options)};
	ANSWER(uffdwp_view_info, info);
	struct uffdwp_view *view;
	int error = uffdwp_view_open(region, &options, &view);

	require(error == 0 || error == -EOPNOTSUPP);
	if (error)
		return;
	require(uffdwp_view_info(view, &info.answer) == 0 && info.guard == GUARD);
	require(info.answer.length_bytes == LENGTH_BYTES && uffdwp_view_base(view) != NULL);
	require(uffdwp_view_close(view) == 0);
}

static void use_child(struct uffdwp *runtime)
{
	struct uffdwp_fork_options options = {.sz = sizeof(options)};
	ANSWER(uffdwp_child_info, info);
	struct uffdwp_child *child;
	pid_t pid = uffdwp_fork(runtime, &options, &child);

	if (pid == 0)
		_exit(0);
	require(pid > 0 || pid == -EOPNOTSUPP);
	if (pid < 0)
		return;
	require(waitpid(pid, NULL, 0) == pid);
	require(uffdwp_child_info(child, &info.answer) == 0 && info.guard == GUARD && info.answer.pid == pid);
	require(info.answer.state == UFFDWP_CHILD_STATE_RUNNING || info.answer.state == UFFDWP_CHILD_STATE_ENDED);
	require(uffdwp_child_free(child) == 0);
}

/* A memfd is no userfaultfd: what was given is read before that is found out. */
static void use_mapper(struct uffdwp *runtime)
{
	int fd = memfd_create("memory", 0);
	struct uffdwp_mapping mapping = {.address = LENGTH_BYTES, .offset = 0, .length = LENGTH_BYTES};
	struct uffdwp_mapper mapper = {.sz = sizeof(mapper), .uffd = fd, .mapping_count = 1, .mappings = &mapping};
	struct uffdwp_region_options options = {.sz = sizeof(options), .fd = fd};
	struct uffdwp_region *region;

	require(fd >= 0 && ftruncate(fd, LENGTH_BYTES) == 0);
	require(uffdwp_region_adopt(runtime, LENGTH_BYTES, &options, &mapper, &region) == -ENOTTY);
	close(fd);
}

static void use_snapshot(struct uffdwp_region *region, const char *path)
{
	struct uffdwp_snapshot_options options = {
	        .sz = sizeof(options), .path = path, .sink = UFFDWP_SINK_IMAGE, .policy = UFFDWP_POLICY_ABORT};
	ANSWER(uffdwp_snapshot_progress, progress);
	struct uffdwp_snapshot *snapshot;

	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES);
	require(uffdwp_snapshot_begin(region, &options, &snapshot) == 0);
	memset(uffdwp_region_base(region), 'b', LENGTH_BYTES);
	require(uffdwp_snapshot_wait(snapshot, -1, &progress.answer) == 0 && progress.guard == GUARD);
	require(progress.answer.state == UFFDWP_SNAPSHOT_STATE_COMMITTED &&
	        progress.answer.length_bytes == LENGTH_BYTES);
	require(uffdwp_snapshot_poll(snapshot, &progress.answer) == 0 && progress.guard == GUARD);
	require(uffdwp_snapshot_free(snapshot) == 0);
}

static int note_progress(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
	*(int *)user = done_bytes == total_bytes;
	return 0;
}

static void use_image(const char *path, const char *merged)
{
	struct uffdwp_image_options options = {.sz = sizeof(options)};
	struct uffdwp_image_merge_options merge = {.sz = sizeof(merge)};
	ANSWER(uffdwp_image_info, info);
	ANSWER(uffdwp_image_extent, extent);
	ANSWER(uffdwp_image_verified, verified);
	ANSWER(uffdwp_image_diff, diff);
	struct uffdwp_image *image;
	char byte = 0;

	require(uffdwp_image_open(path, &options, &image) == 0);
	require(uffdwp_image_info(image, 0, &info.answer) == 0 && info.guard == GUARD);
	require(info.answer.length_bytes == LENGTH_BYTES && info.answer.kind == UFFDWP_IMAGE_KIND_RAW);
	require(uffdwp_image_next(image, 0, &extent.answer) == 1 && extent.guard == GUARD);
	require(extent.answer.kind == UFFDWP_EXTENT_DATA && extent.answer.fd >= 0);
	int complete = 0;

	require(uffdwp_image_progress(image, note_progress, &complete) == 0);
	require(uffdwp_image_verify(image, &verified.answer) == 0 && verified.guard == GUARD && complete);
	require(uffdwp_image_progress(image, NULL, NULL) == 0);
	struct uffdwp_image_id id = verified.answer.raw_id;

	require(id.low != 0 || id.high != 0);
	require(uffdwp_image_diff(image, image, &diff.answer) == 0 && diff.guard == GUARD && diff.answer.ranges == 0);
	require(uffdwp_image_merge(image, merged, &merge) == 0);
	require(uffdwp_image_read(image, LENGTH_BYTES - 1, &byte, 1) == 0 && byte == 'a');
	require(uffdwp_image_close(image) == 0);
}

static void use_restore(struct uffdwp *runtime, const char *path)
{
	struct uffdwp_region_options created = {.sz = sizeof(created), .numa = UFFDWP_NUMA_DEFAULT};
	struct uffdwp_restore_options options = {.sz = sizeof(options), .path = path};
	ANSWER(uffdwp_restore_progress, progress);
	struct uffdwp_region *region;

	require(uffdwp_region_create(runtime, LENGTH_BYTES, &created, &region) == 0);
	require(uffdwp_restore(region, &options, &progress.answer) == 0 && progress.guard == GUARD);
	require(progress.answer.state == UFFDWP_RESTORE_STATE_DONE);
	require(((const char *)uffdwp_region_base(region))[LENGTH_BYTES - 1] == 'a');
	require(uffdwp_region_close(region) == 0);
}

/* Where the machine has what it needs. */
static void use_lazy_restore(struct uffdwp *runtime, const char *path)
{
	struct uffdwp_region_options created = {.sz = sizeof(created), .mechanism = UFFDWP_MECHANISM_REARM};
	const uint64_t first[] = {LENGTH_BYTES - 1};
	struct uffdwp_restore_options options = {
	        .sz = sizeof(options), .path = path, .touches_max = 4, .first = first, .first_count = 1};
	struct uffdwp_region *region;
	struct uffdwp_restore *restore;
	uint64_t offset = 1;
	size_t count = 0;

	if (uffdwp_region_create(runtime, LENGTH_BYTES, &created, &region) != 0)
		return;
	if (uffdwp_restore_begin(region, &options, &restore) == 0) {
		(void)*(volatile char *)uffdwp_region_base(region);
		require(uffdwp_restore_touched(restore, &offset, 1, &count) == 0 && count <= 4);
		require(uffdwp_restore_free(restore) == 0);
	}
	require(uffdwp_region_close(region) == 0);
}

static void use_track(struct uffdwp *runtime, struct uffdwp_region *region)
{
	struct uffdwp_track_options options = {.sz = sizeof(options)};
	ANSWER(uffdwp_track_info, info);
	ANSWER(uffdwp_collect, collect);
	ARRAY(uffdwp_written, written);
	struct uffdwp_track *track;

	require(uffdwp_track_start(runtime, &options, &track) == 0);
	require(uffdwp_track_add(track, uffdwp_region_base(region), LENGTH_BYTES, UFFDWP_TRACK_ADD_CLEAN) == 0);
	*(volatile char *)uffdwp_region_base(region) = 'c';
	collect.answer.ranges = written.first;
	collect.answer.capacity = 2;
	require(uffdwp_track_collect(track, &collect.answer) == 0 && collect.guard == GUARD);
	require(collect.answer.bytes > 0 && collect.answer.next == NULL && collect.answer.count == 1);
	require(written.first[0].start == (uintptr_t)uffdwp_region_base(region) && written.guard == GUARD);
	require(written.first[0].flags & UFFDWP_TRACK_WRITTEN);
	require(uffdwp_track_info(track, &info.answer) == 0 && info.guard == GUARD &&
	        info.answer.bytes == LENGTH_BYTES);
	require(uffdwp_track_stop(track) == 0);
}

static void use_probe(void)
{
	ANSWER(uffdwp_probe_system, system);
	ANSWER(uffdwp_probe_memory, memory);
	ANSWER(uffdwp_probe_rung, rung);
	ANSWER(uffdwp_probe_trial, trial);
	ANSWER(uffdwp_probe_arming, arming);
	struct uffdwp_probe *probe;

	require(uffdwp_probe_run(&probe) == 0);
	require(uffdwp_probe_system(probe, &system.answer) == 0 && system.guard == GUARD);
	require(uffdwp_probe_memory(probe, UFFDWP_MEMORY_ANON, &memory.answer) == 0 && memory.guard == GUARD);
	require(memory.answer.page_bytes == (uint64_t)sysconf(_SC_PAGESIZE));
	require(uffdwp_probe_rung(probe, UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MPROTECT, &rung.answer) == 0);
	require(rung.guard == GUARD && rung.answer.works == 1);
	require(uffdwp_probe_trial(probe, UFFDWP_MEMORY_ANON, UFFDWP_TRIAL_MREMAP, &trial.answer) == 0);
	require(trial.guard == GUARD && trial.answer.answer <= UFFDWP_ANSWER_FAILED);
	require(uffdwp_probe_arming(probe, UFFDWP_MEMORY_ANON, UFFDWP_ARMING_MOVE, &arming.answer) == 0);
	require(arming.guard == GUARD && arming.answer.works == 0);
	int32_t access = 1;

	require(uffdwp_probe_access(probe, UFFDWP_ACCESS_SYSCALL, &access) == 0 && access <= 0);
	require(uffdwp_probe_free(probe) == 0);
}

int main(int argc, char **argv)
{
	struct uffdwp_options options = {.sz = sizeof(options)};
	struct uffdwp *runtime;
	struct uffdwp_region *region;

	require(argc == 3);
	require(uffdwp_open(&options, &runtime) == 0);
	require(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region) == 0);
	use_region(region);
	use_view(region);
	use_child(runtime);
	use_mapper(runtime);
	use_snapshot(region, argv[1]);
	use_image(argv[1], argv[2]);
	use_restore(runtime, argv[1]);
	use_lazy_restore(runtime, argv[1]);
	use_track(runtime, region);
	use_probe();
	require(uffdwp_region_close(region) == 0);
	require(uffdwp_close(runtime) == 0);
	puts("all answers are as they were");
	return 0;
}
