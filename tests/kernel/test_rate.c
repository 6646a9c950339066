/* SPDX-License-Identifier: MIT */
/*
 * Snapshots with a bound on bytes per second (`rate_bytes`): no sink gets more than that, what is zero does not count,
 * and no writer is braked by it. Times are bounded from one side only, the one that a slow machine cannot break.
 */
#include <errno.h>
#include <string.h>

#include "base/bucket.h"
#include "chance.h"
#include "image.h"
#include "place.h"
#include "support.h"

#define SINKS 3
#define PAGES 1024
#define PIECE (1u << 20) /* at most what goes to a sink at once */

static struct place place;

static int open_filled(struct place_case which)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 4 : PAGES);
	place_fill(&place, 3);
	return 1;
}

static void write_everywhere(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
	}
}

static double least_seconds(uint64_t bytes, uint64_t rate)
{
	double piece = place.page_bytes > PIECE ? (double)place.page_bytes : PIECE;
	return ((double)bytes - piece) / (double)rate - BUCKET_SLACK_NS / 1e9;
}

START_TEST(test_no_sink_gets_more)
{
	if (!open_filled(place_auto_case(_i / SINKS))) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	options.rate_bytes = 2 * place.length_bytes;
	image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &options), 0);
	ck_assert_int_eq(image_finish(&image, &progress), 0);
	ck_assert_uint_eq(progress.bytes_written, place.length_bytes);
	ck_assert_double_gt(least_seconds(progress.bytes_written, options.rate_bytes), 0);
	ck_assert_double_ge((double)progress.elapsed_ns / 1e9,
	                    least_seconds(progress.bytes_written, options.rate_bytes));
	ck_assert_uint_eq(image_difference(&image, place.base), place.length_bytes);
	image_free(&image);
	place_close(&place);
}
END_TEST

/* A byte a second: it would take days if zeros counted, but for the stream, which has to write them. */
START_TEST(test_zeros_do_not_count)
{
	if (!open_filled(place_auto_case(_i / SINKS)) || _i % SINKS == UFFDWP_SINK_STREAM) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	memset(place.base, 0, place.length_bytes);
	options.rate_bytes = 1;
	image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &options), 0);
	ck_assert_int_eq(image_finish(&image, &progress), 0);
	ck_assert_uint_eq(progress.bytes_written, 0);
	image_free(&image);
	place_close(&place);
}
END_TEST

/* All pages are written while a pool of 16 pages keeps what they were, at a byte a second. Then it can be ended. */
START_TEST(test_no_writer_is_braked)
{
	if (!open_filled(place_auto_case(_i / SINKS))) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	options.rate_bytes = 1;
	options.pool_bytes = 16 * place.page_bytes;
	image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &options), 0);
	write_everywhere(1);
	ck_assert_int_eq(uffdwp_snapshot_poll(image.snapshot, &progress), 0);
	ck_assert_uint_ne(progress.state, UFFDWP_SNAPSHOT_STATE_FAILED);
	ck_assert_int_eq(uffdwp_snapshot_abort(image.snapshot), 0);
	int result = image_finish(&image, NULL);
	ck_assert_msg(result == -ECANCELED || result == 0, "%s", strerror(-result));
	image_free(&image);
	ck_assert_uint_eq(place_ledger(&place), 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_rate", &(struct support_needs){.huge_pages = 20, .swap = 0});
	place_begin();
	Suite *suite = suite_create("rate");
	TCase *tests = tcase_create("rate");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_no_sink_gets_more, 0, PLACE_AUTO_CASES * SINKS);
	tcase_add_loop_test(tests, test_zeros_do_not_count, 0, PLACE_AUTO_CASES * SINKS);
	tcase_add_loop_test(tests, test_no_writer_is_braked, 0, PLACE_AUTO_CASES * SINKS);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
