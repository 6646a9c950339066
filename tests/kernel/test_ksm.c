/* SPDX-License-Identifier: MIT */
/*
 * KSM makes one page of those that are alike, and drops their wp bits: the next write passes unseen. Memory that was
 * merged before the attach is taken out of it; where the owner turns it on again later, a snapshot whose pages lost
 * their protection fails, and a track reports them. The witness is the pagemap, which shows that bits are gone.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "gate.h"
#include "place.h"
#include "settings.h"
#include "support.h"
#include "witness.h"

#define PAGES 512
#define SECONDS 20

static struct place place;
static struct gate gate = GATE_INIT;
static uint8_t image[PAGES];

static void write_all(size_t pages, uint8_t value)
{
	for (size_t page = 0; page < pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes] = value;
	}
}

static int take(void *user, uint64_t offset, const void *data, size_t length)
{
	const uint8_t *bytes = data;
	for (size_t at = 0; at < length; at += place.page_bytes) {
		image[(offset + at) / place.page_bytes] = bytes[at];
	}
	if (user != NULL) {
		gate_pass(user);
	}
	return 0;
}

static struct uffdwp_snapshot *begin(struct gate *at)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	memset(image, 0, sizeof(image));
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.wait_ns = at != NULL ? 1000000000u : 0; /* a gate holds the sweep: what was not merged fills the pool */
	options.user = at;
	options.pool_bytes = 64 * place.page_bytes; /* small chunks */
	options.window_max = 1;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	return snapshot;
}

static int end(struct uffdwp_snapshot *snapshot)
{
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	return result;
}

static int image_is(uint8_t value)
{
	for (size_t page = 0; page < PAGES; page++) {
		if (image[page] != value) {
			return 0;
		}
	}
	return 1;
}

/* Anonymous memory, all pages alike. */
static int open_alike(struct place_case which)
{
	if (which.memory != UFFDWP_MEMORY_ANON || !place_possible(which)) {
		return 0;
	}
	place_attach(&place, which, PAGES, 1);
	memset(place.base, 'K', place.length_bytes);
	return 1;
}

static void merge(void)
{
	ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_MERGEABLE), 0);
}

/* KSM has cleared bits: of pages that are armed, and that no thread has written to. */
static int has_taken_bits(void *armed)
{
	return witness_armed(place.base, place.length_bytes, place.page_bytes) + PAGES / 4 < *(const size_t *)armed;
}

static int await_merge(size_t armed, const char *test)
{
	int has = wait_until(has_taken_bits, &armed, SECONDS);
	if (!has) {
		support_note(test, "KSM did not merge");
	}
	return has;
}

START_TEST(test_snapshot_of_pages_that_ksm_merges_is_never_wrong)
{
	struct place_case which = place_case(_i);
	if (!open_alike(which)) {
		return;
	}
	gate = (struct gate)GATE_INIT;
	struct uffdwp_snapshot *snapshot = begin(&gate);
	gate_await(&gate);
	size_t armed = witness_armed(place.base, place.length_bytes, place.page_bytes);
	merge();
	int merged = which.mechanism != UFFDWP_MECHANISM_MPROTECT && place_witness_knows(&place) &&
	             await_merge(armed, __func__);
	write_all(PAGES / 2, 'N');
	gate_open(&gate);
	int result = end(snapshot);
	ck_assert(!merged || result == -ENODATA || result == -ETIME);
	ck_assert(result != 0 || image_is('K'));
	/* the next one takes care */
	write_all(PAGES, 'L');
	snapshot = begin(NULL);
	write_all(PAGES, 'M');
	ck_assert_int_eq(end(snapshot), 0);
	ck_assert(image_is('L'));
	place_close(&place);
}
END_TEST

START_TEST(test_memory_that_may_be_merged_since_before_the_attach_is_snapshotted)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_ANON || !open_alike(which)) {
		return;
	}
	merge(); /* before the first arming, which is what counts */
	struct uffdwp_snapshot *snapshot = begin(NULL);
	for (size_t page = 0; page < PAGES / 2; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes] = 'N';
		sleep_us(100);
	}
	ck_assert_int_eq(end(snapshot), 0);
	ck_assert(image_is('K'));
	place_close(&place);
}
END_TEST

/* What an increment leaves out must not have been written: its pages are looked at as well. */
START_TEST(test_increment_whose_other_pages_ksm_merges_fails)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_ANON || !place_has_increments(which) || !open_alike(which) ||
	    !place_witness_knows(&place)) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	options.window_max = 1;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(end(snapshot), 0);
	write_all(1, 'N');
	gate = (struct gate)GATE_INIT;
	options.flags |= UFFDWP_SNAPSHOT_INCREMENT;
	options.user = &gate;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	size_t armed = witness_armed(place.base, place.length_bytes, place.page_bytes);
	merge();
	int merged = await_merge(armed, __func__);
	gate_open(&gate);
	ck_assert_int_eq(end(snapshot), merged ? -ENODATA : 0);
	place_close(&place);
}
END_TEST

/* Also under the mechanisms where the kernel reports no more than that a page faulted. */
START_TEST(test_track_reports_pages_that_ksm_took_the_protection_from)
{
	struct place_case which = place_case(_i);
	if (!open_alike(which)) {
		return;
	}
	struct uffdwp_track *track = NULL;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	size_t armed = witness_armed(place.base, place.length_bytes, place.page_bytes);
	merge();
	if (which.mechanism != UFFDWP_MECHANISM_MPROTECT && place_witness_knows(&place)) {
		await_merge(armed, __func__);
	}
	write_all(PAGES / 2, 'N');
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_ge(collect.bytes, PAGES / 2 * place.page_bytes);
	write_all(PAGES / 4, 'O');
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_ge(collect.bytes, PAGES / 4 * place.page_bytes);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_ksm", &(struct support_needs){.huge_pages = 0, .swap = 0});
	if (settings_ksm() != 0) {
		return support_skip("KSM cannot be turned on");
	}
	place_begin();
	Suite *suite = suite_create("pages that KSM merges");
	TCase *tests = tcase_create("pages that KSM merges");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_snapshot_of_pages_that_ksm_merges_is_never_wrong, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_memory_that_may_be_merged_since_before_the_attach_is_snapshotted, 0,
	                    PLACE_CASES);
	tcase_add_loop_test(tests, test_track_reports_pages_that_ksm_took_the_protection_from, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_increment_whose_other_pages_ksm_merges_fails, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
