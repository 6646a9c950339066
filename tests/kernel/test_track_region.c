/* SPDX-License-Identifier: MIT */
/*
 * Tracks of regions: both jobs on the same memory at once. A snapshot takes nothing from a track, however it ends, and
 * a track spoils no image. For each memory, mechanism and delivery of regions.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "gate.h"
#include "image.h"
#include "place.h"
#include "support.h"
#include "track_check.h"

#define PAGES 96
#define HUGE_PAGES 4

static struct place place;
static int case_now;
static struct uffdwp_track *track;
static struct pages answer;
static struct pages wanted;

static void start_track(void)
{
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
}

/* A region, all of its pages written, tracked and collected. */
static int open_tracked(int index)
{
	struct place_case which = place_case(index);
	if (!place_possible(which)) {
		return 0;
	}
	case_now = index;
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? HUGE_PAGES : PAGES);
	place_touch(&place);
	start_track();
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, UFFDWP_TRACK_ADD_CLEAN), 0);
	return 1;
}

static void close_tracked(void)
{
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}

static void write_page(size_t page)
{
	((volatile uint8_t *)place.base)[page * place.page_bytes + 9]++;
}

static void want(size_t first, size_t end)
{
	pages_clear(&wanted);
	pages_put(&wanted, first, end);
}

static void ask(uint32_t flags)
{
	struct uffdwp_written ranges[PAGES];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.flags = flags;
	collect.ranges = ranges;
	collect.capacity = PAGES;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_ptr_null(collect.next);
	pages_clear(&answer);
	for (size_t i = 0; i < collect.count; i++) {
		uint64_t base = (uint64_t)(uintptr_t)place.base;
		pages_put(&answer, (size_t)(ranges[i].start - base) / place.page_bytes,
		          (size_t)(ranges[i].end - base) / place.page_bytes);
	}
}

static void expect(const char *what)
{
	ask(0);
	pages_expect(&answer, &wanted, place.pages, what);
}

/* What was written is there, whatever is besides: over-reports are allowed. */
static void expect_at_least(const char *what)
{
	ask(0);
	for (size_t page = 0; page < place.pages; page++) {
		ck_assert_msg(answer.in[page] || !wanted.in[page], "%s, %s: page %zu was written and is not reported",
		              place_case_name(place_case(case_now)), what, page);
	}
}

/* --- what may be done to a tracked region ------------------------------------------------------------------------- */

START_TEST(test_a_tracked_region_is_not_armed_by_hand)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	if (!open_tracked(_i)) {
		return;
	}
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), -EBUSY);
	expect_text_says("track");
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), -EBUSY);
	ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
	expect_text_says("uffdwp_track_remove");
	ck_assert_int_eq(uffdwp_close(place.runtime), -EBUSY);
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
	write_page(1);
	want(1, 2);
	expect("after refusals");
	close_tracked();
}
END_TEST

START_TEST(test_a_barrier_counts_as_a_write)
{
	if (!open_tracked(_i)) {
		return;
	}
	ck_assert_int_eq(uffdwp_prepare_write(place.region, place.page_bytes, place.page_bytes), 0);
	want(1, 2);
	expect_at_least("a barrier");
	close_tracked();
}
END_TEST

START_TEST(test_a_hole_punched_by_the_library_is_reported)
{
	if (!open_tracked(_i)) {
		return;
	}
	int error = uffdwp_region_punch(place.region, 2 * place.page_bytes, place.page_bytes);
	if (error == 0) {
		want(2, 3);
		expect_at_least("a punch");
	}
	close_tracked();
}
END_TEST

START_TEST(test_an_audit_and_counters_of_a_tracked_region_work)
{
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	if (!open_tracked(_i)) {
		return;
	}
	write_page(0);
	int error = uffdwp_region_audit(place.region, &audit);
	ck_assert(error == 0 || error == -EOPNOTSUPP || error == -EAGAIN);
	ck_assert(error != 0 || audit.pages_lost == 0);
	want(0, 1);
	expect_at_least("an audit");
	close_tracked();
}
END_TEST

/* Parts of one region, by two tracks. */
START_TEST(test_two_tracks_share_a_region)
{
	struct uffdwp_track *other = NULL;
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, 4);
	place_touch(&place);
	start_track();
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &other), 0);
	size_t half = 2 * place.page_bytes;
	ck_assert_int_eq(uffdwp_track_add(track, place.base, half, UFFDWP_TRACK_ADD_CLEAN), 0);
	ck_assert_int_eq(uffdwp_track_add(other, place.base + half, half, UFFDWP_TRACK_ADD_CLEAN), 0);
	ck_assert_int_eq(uffdwp_track_add(other, place.base + place.page_bytes, half, 0), -EBUSY);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, 2 * half + small_page(), 0), -ERANGE);
	write_page(1);
	write_page(2);
	want(1, 2);
	expect("the first track");
	ck_assert_uint_eq(collect_all(other), place.page_bytes);
	ck_assert_int_eq(uffdwp_track_remove(track, place.base, half), 0);
	write_page(3);
	ck_assert_uint_eq(collect_all(other), place.page_bytes);
	ck_assert_int_eq(uffdwp_track_stop(other), 0);
	ck_assert_uint_eq(place_ledger(&place), 0);
	ck_assert_int_eq(place_agrees(&place), 1);
	close_tracked();
}
END_TEST

/* --- snapshots ---------------------------------------------------------------------------------------------------- */

static struct image image;

static int begin(struct uffdwp_snapshot_options *options)
{
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	return image_begin(&image, place.region, options);
}

START_TEST(test_a_snapshot_takes_no_write_from_a_track)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	if (!open_tracked(_i)) {
		return;
	}
	uint8_t *cut = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(cut);
	for (unsigned round = 0; round < 3; round++) {
		want(0, 0);
		write_page(1); /* before the cut, not collected */
		pages_put(&wanted, 1, 2);
		memcpy(cut, place.base, place.length_bytes);
		ck_assert_int_eq(begin(&options), 0);
		write_page(3);
		pages_put(&wanted, 3, 4);
		ck_assert_int_eq(image_finish(&image, NULL), 0);
		ck_assert_uint_eq(image_difference(&image, cut), place.length_bytes);
		image_free(&image);
		write_page(0);
		pages_put(&wanted, 0, 1);
		expect_at_least("over a snapshot");
		want(0, 0);
		if (place.mechanism != UFFDWP_MECHANISM_MINOR) {
			expect("after it was collected");
		}
	}
	free(cut);
	close_tracked();
}
END_TEST

/* Held in the sink: collects go on in the middle. */
static struct gate gate;
static uint8_t *image_bytes;

static int take_held(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	gate_pass(&gate);
	memcpy(image_bytes + offset, data, length);
	return 0;
}

static void begin_held(struct uffdwp_snapshot **snapshot)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	static const struct gate closed = GATE_INIT;
	gate = closed;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_held;
	options.pool_bytes = 4 * place.length_bytes;
	image_bytes = calloc(1, place.length_bytes);
	must(image_bytes != NULL);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, snapshot), 0);
}

START_TEST(test_a_collect_in_the_middle_of_a_snapshot_spoils_no_image)
{
	struct uffdwp_snapshot *snapshot = NULL;
	if (!open_tracked(_i)) {
		return;
	}
	uint8_t *cut = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(cut);
	write_page(0);
	memcpy(cut, place.base, place.length_bytes);
	begin_held(&snapshot);
	for (size_t page = 0; page < place.pages; page += 2) {
		write_page(page);
	}
	want(0, 0);
	for (size_t page = 0; page < place.pages; page += 2) {
		pages_put(&wanted, page, page + 1);
	}
	expect_at_least("in the middle of a snapshot");
	for (size_t page = 1; page < place.pages; page += 2) {
		write_page(page);
	}
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_mem_eq(image_bytes, cut, place.length_bytes);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	want(0, 0);
	for (size_t page = 1; page < place.pages; page += 2) {
		pages_put(&wanted, page, page + 1);
	}
	expect_at_least("after the snapshot");
	free(cut);
	free(image_bytes);
	close_tracked();
}
END_TEST

/* The track starts while a snapshot runs. */
START_TEST(test_a_track_starts_in_the_middle_of_a_snapshot)
{
	struct uffdwp_snapshot *snapshot = NULL;
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	case_now = _i;
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? HUGE_PAGES : PAGES);
	place_touch(&place);
	uint8_t *cut = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(cut);
	memcpy(cut, place.base, place.length_bytes);
	begin_held(&snapshot);
	write_page(1);
	start_track();
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	want(0, place.pages);
	expect_at_least("added in the middle");
	write_page(2);
	want(2, 3);
	expect_at_least("written in the middle");
	write_page(3);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_mem_eq(image_bytes, cut, place.length_bytes);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	want(3, 4);
	expect_at_least("after the snapshot");
	write_page(0);
	want(0, 1);
	expect_at_least("armed again");
	free(cut);
	free(image_bytes);
	close_tracked();
}
END_TEST

/* The track ends while a snapshot runs: the image is not its business. */
START_TEST(test_a_track_ends_in_the_middle_of_a_snapshot)
{
	struct uffdwp_snapshot *snapshot = NULL;
	if (!open_tracked(_i)) {
		return;
	}
	uint8_t *cut = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(cut);
	memcpy(cut, place.base, place.length_bytes);
	begin_held(&snapshot);
	write_page(1);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	track = NULL;
	for (size_t page = 0; page < place.pages; page++) {
		write_page(page);
	}
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_mem_eq(image_bytes, cut, place.length_bytes);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_expect_armed(&place, 0);
	free(cut);
	free(image_bytes);
	place_close(&place);
}
END_TEST

static int refuse(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return -EIO;
}

START_TEST(test_a_snapshot_that_fails_takes_no_write_from_a_track)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	if (!open_tracked(_i)) {
		return;
	}
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = refuse;
	write_page(0);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	write_page(1);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), -EIO);
	write_page(2);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	want(0, 3);
	expect_at_least("over a snapshot that failed");
	write_page(1);
	want(1, 2);
	expect_at_least("armed again");
	close_tracked();
}
END_TEST

START_TEST(test_a_snapshot_that_is_aborted_takes_no_write_from_a_track)
{
	struct uffdwp_snapshot *snapshot = NULL;
	if (!open_tracked(_i)) {
		return;
	}
	write_page(0);
	begin_held(&snapshot);
	write_page(1);
	ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
	gate_open(&gate);
	(void)uffdwp_snapshot_wait(snapshot, -1, NULL);
	write_page(2);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	want(0, 3);
	expect_at_least("over a snapshot that was aborted");
	write_page(1);
	want(1, 2);
	expect_at_least("armed again");
	free(image_bytes);
	close_tracked();
}
END_TEST

/* --- a region that grows or dies ---------------------------------------------------------------------------------- */

/* What a region grew by is not tracked until it is added. */
START_TEST(test_a_tracked_region_grows)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM) {
		return;
	}
	options.capacity_bytes = 2 * PAGES * small_page();
	place_open_with(&place, which, PAGES, &options);
	place_touch(&place);
	start_track();
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, UFFDWP_TRACK_ADD_CLEAN), 0);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 2 * place.length_bytes), 0);
	((volatile uint8_t *)place.base)[place.length_bytes] = 1;
	write_page(5);
	want(5, 6);
	expect("the old part");
	ck_assert_int_eq(
	        uffdwp_track_add(track, place.base + place.length_bytes, place.length_bytes, UFFDWP_TRACK_ADD_CLEAN),
	        0);
	((volatile uint8_t *)place.base)[place.length_bytes + 9 * place.page_bytes] = 1;
	ck_assert_uint_eq(collect_all(track), place.page_bytes);
	close_tracked();
}
END_TEST

static int is_stale(void *ignored)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	(void)ignored;
	return uffdwp_track_collect(track, &collect) == -ESTALE;
}

START_TEST(test_a_dead_region_is_reported)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_ANON || !place_follows(which)) {
		return;
	}
	ck_assert_int_eq(open_tracked(_i), 1);
	ck_assert_int_eq(munmap(place.base, place.length_bytes), 0);
	ck_assert_int_eq(wait_until(is_stale, NULL, 10), 1);
	ck_assert_int_eq(uffdwp_track_remove(track, place.base, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_track_region", &(struct support_needs){.huge_pages = 12, .swap = 0});
	place_begin();
	Suite *suite = suite_create("track_region");
	TCase *tests = tcase_create("regions");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_a_tracked_region_is_not_armed_by_hand, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_barrier_counts_as_a_write, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_hole_punched_by_the_library_is_reported, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_an_audit_and_counters_of_a_tracked_region_work, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_two_tracks_share_a_region, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_snapshot_takes_no_write_from_a_track, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_collect_in_the_middle_of_a_snapshot_spoils_no_image, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_track_starts_in_the_middle_of_a_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_track_ends_in_the_middle_of_a_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_snapshot_that_fails_takes_no_write_from_a_track, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_snapshot_that_is_aborted_takes_no_write_from_a_track, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_tracked_region_grows, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_dead_region_is_reported, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
