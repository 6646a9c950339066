/* SPDX-License-Identifier: MIT */
/*
 * Snapshots whose region is armed by a move of its page tables, beside what relies on the protection of its pages
 * beyond a snapshot: increments, views, tracks. All else: test_move.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "image.h"
#include "kernel/procfs.h"
#include "moves.h"
#include "place.h"
#include "support.h"

#define PAGES 2048 /* far more than the sweep has in hand at once */
#define DENSE 12

static struct place place;
static uint8_t *expected;

static void open_filled(void)
{
	place_open(&place, moves_case(), PAGES);
	place_fill(&place, 7);
	expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
}

/* The image is what was there at the cut. */
static void finish(struct image *image)
{
	ck_assert_int_eq(image_finish(image, NULL), 0);
	ck_assert_uint_eq(image_difference(image, expected), image->length_bytes);
	image_free(image);
}

static int take_nothing(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return 0;
}

/* 0: before Linux 6.4, where it is refused with the reason. */
static int keeps(void)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot *snapshot = NULL;
	char text[512] = "";
	if (place_report()->memory[UFFDWP_MEMORY_SHMEM].fills & UFFDWP_PROBE_FILL_CONTINUE_WP) {
		return 1;
	}
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_nothing;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), -EOPNOTSUPP);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "UFFDIO_CONTINUE_MODE_WP"));
	place_close(&place);
	return 0;
}

static size_t pages_seen(const struct image *image)
{
	size_t pages = 0;
	for (size_t page = 0; page < place.pages; page++) {
		pages += image->seen[page] != 0;
	}
	return pages;
}

/* Each of the snapshots by a move or by rounds: an increment holds what was written since the one before, and no more.
 */
START_TEST(test_increments_hold_what_was_written)
{
	open_filled();
	if (!keeps()) {
		return;
	}
	for (unsigned i = 0; i < 4; i++) {
		struct uffdwp_snapshot_options options = moves_options();
		struct image image;
		options.flags = UFFDWP_SNAPSHOT_KEEP | (i ? UFFDWP_SNAPSHOT_INCREMENT : 0);
		options.arming = (unsigned)_i >> i & 1 ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS;
		image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
		moves_begin(&image, place.region, &options);
		moves_write(&place, 17 + i); /* the next increment's */
		ck_assert_int_eq(image_finish(&image, NULL), 0);
		ck_assert_uint_eq(pages_seen(&image), i ? 1 + DENSE + place.pages / 64 : place.pages);
		image_free(&image);
		for (size_t page = 0; page < place.pages; page++) {
			(void)moves_read(&place, page);
		}
		ck_assert_int_ne(place_agrees(&place), 0);
		for (size_t page = 32; page < place.pages; page += 64) {
			moves_write(&place, page);
		}
		for (size_t page = 256; page < 256 + DENSE; page++) {
			moves_write(&place, page); /* in order, and so many of a block that the rest could go along */
		}
	}
	struct uffdwp_region_stats stats = place_stats(&place);
	ck_assert_uint_eq(stats.lost_by[UFFDWP_LOSS_ZAP], 0);
	place_close(&place);
}
END_TEST

START_TEST(test_view_beside_shows_its_own_instant)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_view *view;
	struct image image;
	open_filled();
	if (!keeps()) {
		return;
	}
	uint8_t *viewed = malloc(place.length_bytes);
	must(viewed != NULL);
	memcpy(viewed, expected, place.length_bytes);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), 0);
	for (size_t page = 0; page < place.pages; page += 3) {
		moves_write(&place, page);
	}
	memcpy(expected, place.base, place.length_bytes);
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	for (size_t page = 0; page < place.pages; page += 2) {
		moves_write(&place, page);
	}
	finish(&image);
	for (size_t page = 1; page < place.pages; page += 2) {
		moves_write(&place, page);
	}
	ck_assert_int_eq(memcmp(uffdwp_view_base(view), viewed, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	free(viewed);
	place_close(&place);
}
END_TEST

/* INV-TRACK: what was written before the move, and after, is in the answers; what was only read is not. */
START_TEST(test_track_beside_misses_no_write)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_track *track;
	struct image image;
	open_filled();
	if (!keeps()) {
		return;
	}
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, UFFDWP_TRACK_ADD_CLEAN), 0);
	for (int round = 0; round < 3; round++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		moves_write(&place, 3);
		memcpy(expected, place.base, place.length_bytes);
		options.window_max = 1;
		image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
		moves_begin(&image, place.region, &options);
		moves_write(&place, 7);
		finish(&image);
		moves_write(&place, 11);
		(void)moves_read(&place, 15);
		ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
		ck_assert_uint_eq(collect.bytes, 3 * place.page_bytes);
	}
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}
END_TEST

/* --- where the move is not available ------------------------------------------------------------------------- */

static void expect_image(enum uffdwp_sink sink, uint32_t arming)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	image_prepare(&image, sink, place.length_bytes);
	moves_begin(&image, place.region, &options);
	for (size_t page = 0; page < place.pages; page += 7) {
		moves_write(&place, page);
	}
	ck_assert_int_eq(image_finish(&image, &progress), 0);
	ck_assert_uint_eq(image_difference(&image, expected), image.length_bytes);
	ck_assert_uint_eq(progress.arming, arming);
	image_free(&image);
	memcpy(expected, place.base, place.length_bytes);
}

/* For as long as it is. */
START_TEST(test_mapping_in_parts_is_armed_otherwise)
{
	open_filled();
	must(madvise(place.base + 8 * place.page_bytes, place.page_bytes, MADV_DONTDUMP) == 0);
	expect_image((enum uffdwp_sink)_i, UFFDWP_ARMING_ROUNDS);
	expect_image((enum uffdwp_sink)_i, UFFDWP_ARMING_ROUNDS);
	must(madvise(place.base + 8 * place.page_bytes, place.page_bytes, MADV_DODUMP) == 0);
	expect_image((enum uffdwp_sink)_i,
	             place_moves_unasked(moves_case()) ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS);
	place_close(&place);
}
END_TEST

/* The page tables need as much address space as the region has. */
START_TEST(test_region_without_a_place_to_move_to_is_armed_otherwise)
{
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	struct rlimit limit;
	uint64_t kib = 0;
	region.capacity_bytes = UINT64_C(4) << 30;
	place_open_with(&place, moves_case(), PAGES, &region);
	place_fill(&place, 7);
	expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
	must(procfs_number(&kernel_real, "/proc/self/status", "VmSize:", &kib) == 0);
	must(getrlimit(RLIMIT_AS, &limit) == 0);
	limit.rlim_cur = (rlim_t)(kib * 1024 + (UINT64_C(512) << 20));
	must(setrlimit(RLIMIT_AS, &limit) == 0);
	expect_image((enum uffdwp_sink)_i, UFFDWP_ARMING_ROUNDS);
	place_close(&place);
}
END_TEST

static void add(TCase *tests)
{
	tcase_add_loop_test(tests, test_mapping_in_parts_is_armed_otherwise, 0, 3);
	tcase_add_loop_test(tests, test_region_without_a_place_to_move_to_is_armed_otherwise, 0, 3);
	tcase_add_loop_test(tests, test_increments_hold_what_was_written, 0, 16);
	tcase_add_test(tests, test_view_beside_shows_its_own_instant);
	tcase_add_test(tests, test_track_beside_misses_no_write);
}

int main(void)
{
	support_begin("test_move_beside", &(struct support_needs){0});
	place_begin();
	if (!place_report()->moves[UFFDWP_MEMORY_SHMEM].works) {
		return support_skip(place_report()->moves[UFFDWP_MEMORY_SHMEM].reason);
	}
	Suite *suite = suite_create("move_beside");
	moves_add_cases(suite, add);
	return support_run(suite);
}
