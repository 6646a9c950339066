/* SPDX-License-Identifier: MIT */
/*
 * Regions that other processes map: one cut over all of them (INV-CUT across processes), increments, views, tracks and
 * restores of their memory, and what becomes of a region when a mapper ends, is killed, forks or unmaps.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "fault/handler.h"
#include "image.h"
#include "mapper.h"
#include "place.h"
#include "region/region.h"
#include "scratch.h"
#include "support.h"

#define PAGES 512
#define HUGE_PAGES 8
#define CUTS support_rounds(12, 100)

static struct uffdwp *runtime;
static struct uffdwp_region *region;
static struct mapper_process processes[MAPPER_MOST];
static struct mapper_board *board;
static int memory;

/* What a row of the table asks for: _i of the loops. */
struct adopt_case {
	int huge;
	int registers;
	enum uffdwp_mechanism mechanism;
};

static const struct adopt_case cases[] = {{0, 0, UFFDWP_MECHANISM_MARKER},
                                          {0, 1, UFFDWP_MECHANISM_MARKER},
                                          {0, 0, UFFDWP_MECHANISM_REARM},
                                          {1, 0, UFFDWP_MECHANISM_MARKER}};
#define CASES ((int)(sizeof(cases) / sizeof(cases[0])))

static int is_possible(const struct adopt_case *which)
{
	struct place_case place = {which->huge ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM, which->mechanism,
	                           UFFDWP_DELIVERY_THREAD};
	return place_possible(place) && (!which->huge || support_has_huge_pages());
}

/* Processes first: they shall not have what the library opens. */
static void open_memory(const struct adopt_case *which, unsigned count, const enum mapper_work *work)
{
	size_t page = which->huge ? place_page_bytes(UFFDWP_MEMORY_HUGETLB) : (size_t)sysconf(_SC_PAGESIZE);
	memory = mapper_memory(page * (which->huge ? HUGE_PAGES : PAGES), which->huge, &board);
	board->page_bytes = page;
	for (unsigned i = 0; i < count; i++) {
		ck_assert_int_eq(mapper_start(&processes[i], board, memory, i, work[i], which->registers), 0);
	}
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
}

static int adopt(const struct adopt_case *which)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.fd = memory;
	options.mechanism = which->mechanism;
	return uffdwp_region_adopt(runtime, board->length, &options, &processes[0].mapper, &region);
}

static void ck_adopt(const struct adopt_case *which, unsigned count)
{
	char text[512];
	int error = adopt(which);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%d: %s", error, text);
	for (unsigned i = 1; i < count; i++) {
		error = uffdwp_region_join(region, &processes[i].mapper);
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(error == 0, "%d: %s", error, text);
	}
}

static void close_memory(void)
{
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	(void)close(memory);
	mapper_board_free(board);
}

static void end_all(unsigned count)
{
	atomic_store(&board->stop, 1);
	for (unsigned i = 0; i < count; i++) {
		mapper_end(&processes[i]);
	}
}

static void wait_for_writes(unsigned number)
{
	uint64_t before = atomic_load(&board->writes[number]);
	while (atomic_load(&board->writes[number]) < before + 20) {
		usleep(200);
	}
}

/* --- cuts --------------------------------------------------------------------------------------------------------- */

/* What the cut must show: the shadow while the gate is closed. */
static uint8_t *expected;

static int enter_cut(void *user, uint64_t *length)
{
	(void)mapper_gate_close(user, length);
	memcpy(expected, board->shadow, board->length);
	return 0;
}

static int enter_view(void *user)
{
	return enter_cut(user, NULL);
}

static struct uffdwp_snapshot_options gated_options(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.cut_enter = enter_cut;
	options.cut_leave = mapper_gate_open;
	options.cut_user = board;
	return options;
}

static int take_image(struct uffdwp_snapshot_options *options)
{
	struct image image;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	image_prepare(&image, UFFDWP_SINK_CALLBACK, board->length);
	int error = image_begin(&image, region, options);
	if (error == 0) {
		error = image_finish(&image, &progress);
	}
	if (error == 0) {
		size_t at = image_difference(&image, expected);
		ck_assert_msg(at == board->length, "the image differs from the shadow at %zu", at);
	}
	image_free(&image);
	return error;
}

static const enum mapper_work all_write[MAPPER_MOST];

START_TEST(test_images_show_one_instant_of_all_processes)
{
	const struct adopt_case *which = &cases[_i / 2];
	unsigned count = _i % 2 ? 4 : 1;
	if (!is_possible(which))
		return;
	open_memory(which, count, all_write);
	expected = malloc(board->length);
	ck_adopt(which, count);
	for (unsigned cut = 0; cut < CUTS; cut++) {
		struct uffdwp_snapshot_options options = gated_options();
		options.flags = cut % 3 == 2 && !which->huge ? UFFDWP_SNAPSHOT_KEEP : 0;
		wait_for_writes(cut % count);
		ck_assert_int_eq(take_image(&options), 0);
	}
	end_all(count);
	close_memory();
	free(expected);
}
END_TEST

/* INV-CUT without a lock: an effect is never without its cause, which another process wrote. */
START_TEST(test_causality_holds_across_processes)
{
	static const enum mapper_work work[] = {MAPPER_CAUSES, MAPPER_EFFECTS, MAPPER_WRITES, MAPPER_WRITES};
	const struct adopt_case *which = &cases[_i];
	struct image image;
	if (!is_possible(which))
		return;
	open_memory(which, 4, work);
	ck_adopt(which, 4);
	for (unsigned cut = 0; cut < CUTS; cut++) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		uint64_t cause;
		uint64_t effect;
		wait_for_writes(cut % 2);
		image_prepare(&image, UFFDWP_SINK_CALLBACK, board->length);
		ck_assert_int_eq(image_begin(&image, region, &options), 0);
		ck_assert_int_eq(image_finish(&image, NULL), 0);
		memcpy(&cause, image.bytes, sizeof(cause));
		memcpy(&effect, image.bytes + board->length - board->page_bytes, sizeof(effect));
		ck_assert_msg(effect <= cause, "effect %llu, cause %llu", (unsigned long long)effect,
		              (unsigned long long)cause);
		image_free(&image);
	}
	end_all(4);
	close_memory();
}
END_TEST

/* --- ends --------------------------------------------------------------------------------------------------------- */

START_TEST(test_a_killed_process_stops_no_cut)
{
	const struct adopt_case *which = &cases[_i];
	if (!is_possible(which))
		return;
	open_memory(which, 4, all_write);
	expected = malloc(board->length);
	ck_adopt(which, 4);
	for (unsigned killed = 3; killed > 0; killed--) {
		struct image image;
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		wait_for_writes(0);
		image_prepare(&image, UFFDWP_SINK_CALLBACK, board->length);
		ck_assert_int_eq(image_begin(&image, region, &options), 0);
		mapper_kill(&processes[killed], board, killed);
		ck_assert_int_eq(image_finish(&image, NULL), 0);
		image_free(&image);
		wait_for_writes(0);
		/* What it wrote last, its shadow may lack. */
		(void)mapper_gate_close(board, NULL);
		for (size_t page = 0; page < board->length; page += board->page_bytes) {
			ck_assert_int_eq(pread(memory, board->shadow + page + killed * MAPPER_STRIPE, MAPPER_STRIPE,
			                       (off_t)(page + killed * MAPPER_STRIPE)),
			                 MAPPER_STRIPE);
		}
		mapper_gate_open(board);
		options = gated_options();
		ck_assert_int_eq(take_image(&options), 0);
	}
	end_all(1);
	close_memory();
	free(expected);
}
END_TEST

static void expect_death(const char *words)
{
	char text[512];
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, words) != NULL, "\"%s\" lacks \"%s\"", text, words);
}

static int region_is_dead(void *ignored)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	(void)ignored;
	return uffdwp_region_info(region, &info) == 0 && info.dead;
}

START_TEST(test_the_last_process_takes_the_region_along)
{
	const struct adopt_case *which = &cases[_i];
	if (!is_possible(which))
		return;
	open_memory(which, 1, all_write);
	expected = malloc(board->length);
	ck_adopt(which, 1);
	wait_for_writes(0);
	mapper_kill(&processes[0], board, 0);
	ck_assert(wait_until(region_is_dead, NULL, 20));
	struct uffdwp_snapshot_options options = gated_options();
	ck_assert_int_lt(take_image(&options), 0);
	ck_assert_int_eq(uffdwp_region_join(region, &processes[0].mapper), -ESTALE);
	expect_death("no process that maps");
	ck_assert_int_eq(uffdwp_region_arm(region, 0, board->length), -ESTALE);
	expect_death("no process that maps");
	close_memory();
	free(expected);
}
END_TEST

static int mapper_is_gone(void *join)
{
	return uffdwp_region_join(region, join) != -EMFILE;
}

START_TEST(test_a_process_that_unmaps_is_named)
{
	static const enum mapper_work unmaps[] = {MAPPER_UNMAPS};
	if (!is_possible(&cases[0]))
		return;
	open_memory(&cases[0], 1, unmaps);
	ck_adopt(&cases[0], 1);
	atomic_store(&board->gate, 1);
	ck_assert(wait_until(region_is_dead, NULL, 20));
	ck_assert_int_eq(uffdwp_region_arm(region, 0, board->length), -ESTALE);
	expect_death("has unmapped");
	end_all(1);
	close_memory();
}
END_TEST

/* By the pagemaps of the processes: what one of them unprotects by itself is found, and armed again in all. */
START_TEST(test_an_audit_reads_the_page_tables_of_all)
{
	static const enum mapper_work waits[] = {MAPPER_WAITS, MAPPER_WAITS};
	const struct adopt_case *which = &cases[_i];
	if (!is_possible(which))
		return;
	open_memory(which, 2, waits);
	processes[1].mapper.pidfd = which->registers ? -1 : processes[1].pidfd;
	ck_adopt(which, 2);
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	uint64_t pages = board->length / board->page_bytes;
	ck_assert_int_eq(uffdwp_region_arm(region, 0, board->length), 0);
	int error = uffdwp_region_audit(region, &audit);
	if (which->registers) {
		ck_assert_int_eq(error, -EOPNOTSUPP);
		expect_death("without a pidfd");
	} else if (which->mechanism == UFFDWP_MECHANISM_MARKER) { /* by rearm what is not there needs no wp bit */
		struct uffdio_writeprotect range = {
		        .range = {.start = processes[1].mappings[0].address, .len = 2 * board->page_bytes}};
		ck_assert_int_eq(error, 0);
		ck_assert_uint_eq(audit.pages_armed, pages);
		ck_assert_uint_eq(audit.pages_lost, 0);
		ck_assert_int_eq(ioctl(processes[1].uffd, UFFDIO_WRITEPROTECT, &range), 0);
		ck_assert_int_eq(uffdwp_region_audit(region, &audit), 0);
		ck_assert_uint_eq(audit.pages_lost, 2);
		ck_assert_uint_eq(audit.pages_rearmed, 2);
		ck_assert_int_eq(uffdwp_region_audit(region, &audit), 0);
		ck_assert_uint_eq(audit.pages_lost, 0);
	}
	end_all(2);
	close_memory();
}
END_TEST

/* More than may live at a time, one after the other. */
START_TEST(test_ended_processes_make_room)
{
	static const enum mapper_work waits[] = {MAPPER_WAITS};
	if (!is_possible(&cases[0]))
		return;
	open_memory(&cases[0], 1, waits);
	ck_adopt(&cases[0], 1);
	size_t files = scratch_open_files();
	for (unsigned i = 0; i < UFFDWP_MAPPERS_MAX + 8; i++) {
		ck_assert_int_eq(mapper_start(&processes[1], board, memory, 1, MAPPER_WAITS, 0), 0);
		ck_assert(wait_until(mapper_is_gone, &processes[1].mapper, 20));
		mapper_kill(&processes[1], board, 1);
	}
	ck_assert_uint_le(scratch_open_files(), files + 2 * UFFDWP_MAPPERS_MAX);
	end_all(1);
	close_memory();
}
END_TEST

/* --- increments, views, tracks, restores -------------------------------------------------------------------------- */

START_TEST(test_views_and_increments_of_another_process)
{
	static const char *const links[] = {"link0", "link1", "link2", "link3"};
	const struct adopt_case *which = &cases[_i];
	char folder[SCRATCH_PATH];
	char parent[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	if (which->huge || !is_possible(which)) {
		return;
	}
	open_memory(which, 2, all_write);
	expected = malloc(board->length);
	ck_adopt(which, 2);
	mapper_await_all(board, 2);
	scratch_folder(folder);
	for (unsigned link = 0; link < 4; link++) {
		struct uffdwp_snapshot_options options = gated_options();
		struct uffdwp_snapshot *snapshot = NULL;
		scratch_join(path, folder, links[link]);
		options.sink = UFFDWP_SINK_IMAGE;
		options.flags = UFFDWP_SNAPSHOT_KEEP;
		options.path = path;
		options.parent = link ? parent : NULL;
		wait_for_writes(link % 2);
		ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
		memcpy(parent, path, sizeof(path));

		struct uffdwp_image *image = NULL;
		uint8_t *bytes = malloc(board->length);
		ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
		ck_assert_int_eq(uffdwp_image_read(image, 0, bytes, board->length), 0);
		ck_assert_int_eq(uffdwp_image_close(image), 0);
		ck_assert_mem_eq(bytes, expected, board->length);
		free(bytes);

		struct uffdwp_view_options view_options = UFFDWP_VIEW_OPTIONS_INIT;
		struct uffdwp_view *view = NULL;
		view_options.cut_enter = enter_view;
		view_options.cut_leave = mapper_gate_open;
		view_options.cut_user = board;
		ck_assert_int_eq(uffdwp_view_open(region, &view_options, &view), 0);
		wait_for_writes(0);
		wait_for_writes(1);
		ck_assert_mem_eq(uffdwp_view_base(view), expected, board->length);
		ck_assert_int_eq(uffdwp_view_close(view), 0);
	}
	/* What this process's own page tables show is not what the mappers' do. */
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	ck_assert_int_eq(uffdwp_region_stats(region, &stats), 0);
	ck_assert_uint_eq(stats.pages_lost, 0);
	end_all(2);
	close_memory();
	free(expected);
}
END_TEST

/* What is collected is what the shadow has changed in since, or more. */
START_TEST(test_tracks_report_what_other_processes_write)
{
	const struct adopt_case *which = &cases[_i];
	struct uffdwp_track *track = NULL;
	if (!is_possible(which))
		return;
	open_memory(which, 2, all_write);
	ck_adopt(which, 2);
	uint8_t *before = malloc(board->length);
	uint64_t bitmap[PAGES * 64 / 64] = {0};
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
	ck_assert_int_eq(uffdwp_track_start(runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, uffdwp_region_base(region), board->length, 0), 0);
	for (unsigned round = 0; round < 6; round++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		collect.start = uffdwp_region_base(region);
		collect.length = board->length;
		collect.bitmap = bitmap;
		collect.bitmap_bytes = sizeof(bitmap);
		memset(bitmap, 0, sizeof(bitmap));
		ck_assert_uint_le(board->length / system_page, 8 * sizeof(bitmap));
		(void)mapper_gate_close(board, NULL);
		ck_assert_int_ge(uffdwp_track_collect(track, &collect), 0);
		for (size_t page = 0; round && page < board->length / board->page_bytes; page++) {
			size_t bit = page * (board->page_bytes / system_page);
			int changed = memcmp(before + page * board->page_bytes,
			                     board->shadow + page * board->page_bytes, board->page_bytes) != 0;
			ck_assert_msg(!changed || bitmap[bit / 64] >> (bit % 64) & 1,
			              "page %zu was written, not reported", page);
		}
		memcpy(before, board->shadow, board->length);
		mapper_gate_open(board);
		wait_for_writes(round % 2);
	}
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	end_all(2);
	close_memory();
	free(before);
}
END_TEST

/* An image comes back page by page in the other process, which reads it through its own mapping. */
START_TEST(test_another_process_reads_what_is_restored)
{
	static const enum mapper_work reads[] = {MAPPER_READS};
	const struct adopt_case *which = &cases[_i];
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	if (which->mechanism != UFFDWP_MECHANISM_REARM || !is_possible(which)) {
		return;
	}
	open_memory(which, 1, reads);
	ck_adopt(which, 1);
	expected = malloc(board->length);
	struct chance chance = chance_new(77);
	chance_fill(&chance, expected, board->length);
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	scratch_write(path, expected, board->length);
	options.path = path;
	options.flags = UFFDWP_RESTORE_BEGIN_ON_DEMAND;
	ck_assert_int_eq(uffdwp_restore_begin(region, &options, &restore), 0);
	atomic_store(&board->gate, 1);
	while (!atomic_load(&board->done[0])) {
		usleep(1000);
	}
	ck_assert_mem_eq(board->shadow, expected, board->length);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_all(1);
	close_memory();
	free(expected);
}
END_TEST

static const struct adopt_case restored[] = {{0, 0, UFFDWP_MECHANISM_REARM}, {1, 0, UFFDWP_MECHANISM_REARM}};

/* Memory of several processes, and the image that will be restored into it. */
static struct uffdwp_restore *begin_restore(const struct adopt_case *which, unsigned count,
                                            const enum mapper_work *work, unsigned mappings, uint32_t flags)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	open_memory(which, count, work);
	for (unsigned i = 0; i < count && mappings == 1; i++) {
		processes[i].mapper.mapping_count = 1;
		processes[i].mapper.mappings = &processes[i].mappings[i % 2];
	}
	ck_adopt(which, count);
	expected = malloc(board->length);
	struct chance chance = chance_new(78);
	chance_fill(&chance, expected, board->length);
	memset(expected + 5 * board->page_bytes, 0, board->page_bytes);
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	scratch_write(path, expected, board->length);
	options.path = path;
	options.flags = flags;
	ck_assert_int_eq(uffdwp_restore_begin(region, &options, &restore), 0);
	return restore;
}

static void wait_for_readers(unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		while (!atomic_load(&board->done[i])) {
			usleep(1000);
		}
	}
}

static void end_restore(struct uffdwp_restore *restore)
{
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
}

static void ck_memory_is_expected(void)
{
	uint8_t *bytes = malloc(board->length);
	for (size_t at = 0; at < board->length; at += board->page_bytes) {
		ck_assert_int_eq(pread(memory, bytes + at, board->page_bytes, (off_t)at), (ssize_t)board->page_bytes);
	}
	ck_assert_mem_eq(bytes, expected, board->length);
	free(bytes);
}

static const enum mapper_work all_read[] = {MAPPER_READS, MAPPER_READS, MAPPER_READS};

/* All read the same pages at once; one of them writes them in the shadow last, which makes no difference. */
START_TEST(test_several_processes_read_what_is_restored)
{
	const struct adopt_case *which = &restored[_i / 2];
	if (!is_possible(which))
		return;
	struct uffdwp_restore *restore =
	        begin_restore(which, 3, all_read, 2, _i % 2 ? UFFDWP_RESTORE_BEGIN_ON_DEMAND : 0);
	atomic_store(&board->gate, 1);
	wait_for_readers(0, 3);
	ck_assert_mem_eq(board->shadow, expected, board->length);
	end_restore(restore);
	ck_memory_is_expected();
	end_all(3);
	close_memory();
	free(expected);
}
END_TEST

/* Each half has one mapper, or only the first has one and the other comes by the memfd. */
START_TEST(test_processes_that_map_a_part_read_what_is_restored)
{
	static const enum mapper_work halves[] = {MAPPER_READS_HALF, MAPPER_READS_HALF};
	const struct adopt_case *which = &restored[_i / 2];
	unsigned count = _i % 2 ? 2 : 1;
	if (!is_possible(which))
		return;
	struct uffdwp_restore *restore = begin_restore(which, count, halves, 1, 0);
	atomic_store(&board->gate, 1);
	wait_for_readers(0, count);
	ck_assert_mem_eq(board->shadow, expected, board->length / 2 * count);
	end_restore(restore);
	ck_memory_is_expected();
	end_all(count);
	close_memory();
	free(expected);
}
END_TEST

/* The first process, which pages were copied to, is killed in the midst. */
START_TEST(test_a_restore_outlives_a_process)
{
	if (!is_possible(&restored[_i]))
		return;
	struct uffdwp_restore *restore = begin_restore(&restored[_i], 3, all_read, 2, UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	ck_assert_int_eq(uffdwp_restore_check(restore, 0, 3 * board->page_bytes), 0);
	mapper_kill(&processes[0], board, 0);
	atomic_store(&board->gate, 1);
	wait_for_readers(1, 3);
	ck_assert_mem_eq(board->shadow, expected, board->length);
	end_restore(restore);
	processes[0] = processes[2];
	end_all(2);
	close_memory();
	free(expected);
}
END_TEST

/* Pages are filled armed, for all of them. */
START_TEST(test_a_snapshot_of_what_is_restored_to_several)
{
	if (!is_possible(&restored[_i]))
		return;
	struct uffdwp_restore *restore = begin_restore(&restored[_i], 3, all_read, 2, 0);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, board->length);
	ck_assert_int_eq(image_begin(&image, region, &options), 0);
	atomic_store(&board->gate, 1);
	wait_for_readers(0, 3);
	ck_assert_int_eq(image_finish(&image, NULL), 0);
	ck_assert_uint_eq(image_difference(&image, expected), board->length);
	image_free(&image);
	ck_assert_mem_eq(board->shadow, expected, board->length);
	end_restore(restore);
	end_all(3);
	close_memory();
	free(expected);
}
END_TEST

/* What was not fetched raises SIGBUS in each of them: while the region is there, after it was closed, also with its
 * pages armed. */
START_TEST(test_an_aborted_restore_raises_sigbus_in_all)
{
	const struct adopt_case *which = &restored[_i % 2];
	int is_armed = _i / 2 == 2;
	int is_closed = _i / 2 > 0;
	static const enum mapper_work down[] = {MAPPER_READS_DOWN, MAPPER_READS_DOWN};
	if (!is_possible(which))
		return;
	struct uffdwp_restore *restore = begin_restore(which, 2, down, 2, UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	if (is_armed)
		ck_assert_int_eq(uffdwp_region_arm(region, 0, board->length), 0);
	ck_assert_int_eq(uffdwp_restore_abort(restore), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -ECANCELED);
	if (is_closed) {
		ck_assert_int_eq(uffdwp_restore_free(restore), 0);
		ck_assert_int_eq(uffdwp_region_close(region), 0);
		region = NULL;
	}
	atomic_store(&board->gate, 1);
	wait_for_readers(0, 2);
	for (size_t at = 0; at < board->length; at += board->page_bytes / 2) {
		ck_assert_uint_eq(board->shadow[at], MAPPER_BUS);
	}
	if (!is_closed)
		ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_all(2);
	close_memory();
	free(expected);
}
END_TEST

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static void expect_adopt(int wanted, const struct uffdwp_region_options *options, const struct uffdwp_mapper *mapper,
                         const char *words)
{
	char text[512] = "";
	struct uffdwp_region *none = NULL;
	int error = uffdwp_region_adopt(runtime, board->length, options, mapper, &none);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == wanted && strstr(text, words) && !none, "%d, \"%s\" instead of %d, \"%s\"", error, text,
	              wanted, words);
}

START_TEST(test_what_is_refused_says_why)
{
	static const enum mapper_work waits[] = {MAPPER_WAITS, MAPPER_WAITS};
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	if (!is_possible(&cases[0]))
		return;
	open_memory(&cases[0], 2, waits);
	size_t files = scratch_open_files();
	struct uffdwp_mapper mapper = processes[0].mapper;
	struct uffdwp_mapping mappings[2];
	memcpy(mappings, processes[0].mappings, sizeof(mappings));
	mapper.mappings = mappings;
	options.fd = memory;
	expect_adopt(-EINVAL, &options, NULL, "mapper is NULL");
	mapper.mapping_count = 0;
	expect_adopt(-EINVAL, &options, &mapper, "mapping_count is 0");
	mapper.mapping_count = 17;
	expect_adopt(-EINVAL, &options, &mapper, "mapping_count is 17");
	mapper.mapping_count = 2;
	mappings[1].length += board->page_bytes;
	expect_adopt(-EINVAL, &options, &mapper, "reaches beyond the region's");
	mappings[1].length = UINT64_MAX - 4095;
	expect_adopt(-EINVAL, &options, &mapper, "mapping 1");
	mappings[1] = mappings[0];
	expect_adopt(-EINVAL, &options, &mapper, "overlap");
	mapper.mappings = processes[0].mappings;
	mapper.flags = 1u << 31;
	expect_adopt(-EINVAL, &options, &mapper, "flag");
	mapper.flags = 0;
	options.delivery = UFFDWP_DELIVERY_INLINE;
	expect_adopt(-EINVAL, &options, &mapper, "UFFDWP_DELIVERY_THREAD");
	options.delivery = 0;
	options.mechanism = UFFDWP_MECHANISM_MPROTECT;
	expect_adopt(-EINVAL, &options, &mapper, "marker or rearm");
	options.mechanism = UFFDWP_MECHANISM_REARM;
	mapper.flags = UFFDWP_MAPPER_REGISTERED;
	expect_adopt(-EINVAL, &options, &mapper, "UFFDWP_MAPPER_REGISTERED");
	mapper.flags = 0;
	options.mechanism = 0;
	options.fd_offset = board->page_bytes;
	expect_adopt(-ENXIO, &options, &mapper, "end beyond");
	options.fd_offset = 0;
	options.fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	expect_adopt(-EMEDIUMTYPE, &options, &mapper, "no memfd");
	(void)close(options.fd);
	options.fd = memory;
	mapper.uffd = memory;
	expect_adopt(-ENOTTY, &options, &mapper, "no userfaultfd");
	mapper.uffd = 999;
	expect_adopt(-EBADF, &options, &mapper, "uffd 999");
	mapper.uffd = processes[0].uffd;
	mappings[0] = (struct uffdwp_mapping){processes[0].mappings[0].address + (1ull << 40), 0, board->page_bytes};
	mapper.mappings = mappings;
	mapper.mapping_count = 1;
	expect_adopt(-EOPNOTSUPP, &options, &mapper, "if anything is");
	ck_assert_uint_eq(scratch_open_files(), files);
	ck_adopt(&cases[0], 1);
	expect_adopt(-EBUSY, &options, &processes[0].mapper, "serves another region");
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_adopt(&cases[0], 1);
	ck_assert_int_eq(uffdwp_region_arm(region, 0, board->length), 0);
	ck_assert_int_eq(uffdwp_region_join(region, &processes[1].mapper), -EBUSY);
	ck_assert_int_eq(uffdwp_region_disarm(region, 0, board->length), 0);
	ck_assert_int_eq(uffdwp_region_join(region, &processes[1].mapper), 0);
	ck_assert_int_eq(uffdwp_region_grow(region, 2 * board->length), -EOPNOTSUPP);
	pid_t pid = uffdwp_fork(runtime, NULL, NULL);
	if (pid == 0) {
		_exit(0);
	}
	ck_assert_int_lt(pid, 0);
	end_all(2);
	close_memory();
}
END_TEST
/* Such a userfaultfd answers poll(2) with an error, which is no fault that waits: its thread sleeps rightly. */
START_TEST(test_a_userfaultfd_that_the_mapper_lets_block_costs_no_handler)
{
	enum mapper_work work = MAPPER_WAITS;
	open_memory(&cases[0], 1, &work);
	ck_adopt(&cases[0], 1);
	must(uffdwp_region_arm(region, 0, board->length) == 0);
	uint32_t thread = handler_thread(region->handler);
	for (int i = 0; i < 10; i++, sleep_us(100000)) { /* a look of the guard */
		must(fcntl(processes[0].uffd, F_SETFL, 0) == 0);
		must(region->k->uffd_read_shared(processes[0].uffd, &(struct uffd_msg){0}, 1) == -EAGAIN);
	}
	ck_assert_uint_eq(handler_thread(region->handler), thread);
	mapper_kill(&processes[0], board, 0);
	close_memory();
}
END_TEST

int main(void)
{
	support_begin("test_adopt", &(struct support_needs){.huge_pages = 3 * HUGE_PAGES});
	place_begin();
	if (!is_possible(&cases[0]) && !is_possible(&cases[2])) {
		return support_skip("shared memory cannot be write-protected here");
	}
	Suite *suite = suite_create("adopt");
	TCase *tests = tcase_create("adopt");
	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, test_images_show_one_instant_of_all_processes, 0, 2 * CASES);
	tcase_add_loop_test(tests, test_causality_holds_across_processes, 0, CASES);
	tcase_add_loop_test(tests, test_a_killed_process_stops_no_cut, 0, CASES);
	tcase_add_loop_test(tests, test_the_last_process_takes_the_region_along, 0, CASES);
	tcase_add_test(tests, test_a_process_that_unmaps_is_named);
	tcase_add_loop_test(tests, test_an_audit_reads_the_page_tables_of_all, 0, CASES);
	tcase_add_test(tests, test_ended_processes_make_room);
	tcase_add_loop_test(tests, test_views_and_increments_of_another_process, 0, CASES);
	tcase_add_loop_test(tests, test_tracks_report_what_other_processes_write, 0, CASES);
	tcase_add_loop_test(tests, test_another_process_reads_what_is_restored, 0, CASES);
	tcase_add_loop_test(tests, test_several_processes_read_what_is_restored, 0, 4);
	tcase_add_loop_test(tests, test_processes_that_map_a_part_read_what_is_restored, 0, 4);
	tcase_add_loop_test(tests, test_a_restore_outlives_a_process, 0, 2);
	tcase_add_loop_test(tests, test_a_snapshot_of_what_is_restored_to_several, 0, 2);
	tcase_add_loop_test(tests, test_an_aborted_restore_raises_sigbus_in_all, 0, 6);
	tcase_add_test(tests, test_what_is_refused_says_why);
	tcase_add_loop_test(tests, test_a_userfaultfd_that_the_mapper_lets_block_costs_no_handler, 0,
	                    is_possible(&cases[0]));
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
