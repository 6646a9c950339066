/* SPDX-License-Identifier: MIT */
/*
 * Every error that uffdwp.h states for tracks: the right errno, a text that names what was wrong, outputs untouched,
 * and nothing changed: what was written before is reported after.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "place.h"
#include "scratch.h"
#include "support.h"
#include "track_check.h"

#define PAGES 16

static struct tracked tracked;
static int is_open;
static uint8_t *base;
static size_t page;

static void setup(void)
{
	page = small_page();
	is_open = tracked_open(&tracked, UFFDWP_MECHANISM_AUTO, 0);
	ck_assert_int_eq(is_open, 1);
	base = anon_new(PAGES, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * page, UFFDWP_TRACK_ADD_CLEAN), 0);
	touch(base, 3);
}

/* Else ranges become regions, and it is uffdwp_region_attach() that refuses. */
static int is_async(void)
{
	struct uffdwp_track_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &info), 0);
	return info.mechanism == UFFDWP_MECHANISM_ASYNC;
}

/* The track is as it was. */
static void teardown(void)
{
	struct pages answer;
	struct pages wanted;
	pages_clear(&wanted);
	pages_put(&wanted, 3, 4);
	pages_collect(&answer, tracked.track, base, PAGES, 0);
	pages_expect(&answer, &wanted, PAGES, "after what was refused");
	tracked_close(&tracked);
	anon_free(base, PAGES);
}

/* --- start -------------------------------------------------------------------------------------------------------- */

static void expect_start_refused(const struct uffdwp_track_options *options, int error, const char *says)
{
	struct uffdwp_track *untouched = (struct uffdwp_track *)&tracked;
	struct uffdwp_track *out = untouched;
	size_t files = scratch_open_files();
	ck_assert_int_eq(uffdwp_track_start(tracked.runtime, options, &out), error);
	ck_assert_ptr_eq(out, untouched);
	ck_assert_uint_eq(scratch_open_files(), files);
	expect_text_says(says);
}

START_TEST(test_start_refuses_what_it_does_not_know)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.flags = 1u << 30;
	expect_start_refused(&options, -EINVAL, "flag");
	options.flags = 0;
	options.mechanism = UFFDWP_MECHANISM_COUNT;
	expect_start_refused(&options, -EINVAL, "mechanism");
	options.mechanism = 0;
	options.delivery = 3;
	expect_start_refused(&options, -EINVAL, "delivery");
	options.delivery = 0;
	options.reserved = 1;
	expect_start_refused(&options, -EINVAL, "reserved");
	options.reserved = 0;
	options.sz = 15;
	expect_start_refused(&options, -EINVAL, "sz");
	options.sz = 0;
	expect_start_refused(&options, -EINVAL, "sz");
	ck_assert_int_eq(uffdwp_track_start(tracked.runtime, NULL, NULL), -EINVAL);
	expect_text_says("out");
}
END_TEST

START_TEST(test_soft_dirty_wants_to_be_allowed_to_clear)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.mechanism = UFFDWP_MECHANISM_SOFT_DIRTY;
	expect_start_refused(&options, -EINVAL, "UFFDWP_TRACK_START_RESET_PROCESS");
}
END_TEST

/* A caller that was compiled with a newer header: zeros at the end are ignored, all else is unknown. */
START_TEST(test_a_longer_structure_is_taken_if_its_tail_is_zero)
{
	struct {
		struct uffdwp_track_options options;
		uint64_t tail;
	} newer = {UFFDWP_TRACK_OPTIONS_INIT, 1};
	struct {
		struct uffdwp_collect collect;
		uint64_t tail;
	} asks = {UFFDWP_COLLECT_INIT, 1};
	struct uffdwp_track *track = NULL;
	newer.options.sz = sizeof(newer);
	expect_start_refused(&newer.options, -E2BIG, "");
	newer.tail = 0;
	ck_assert_int_eq(uffdwp_track_start(tracked.runtime, &newer.options, &track), 0);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	asks.collect.sz = sizeof(asks);
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &asks.collect), -E2BIG);
	asks.tail = 0;
	asks.collect.flags = UFFDWP_TRACK_COLLECT_PEEK;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &asks.collect), 0);
	ck_assert_uint_eq(asks.collect.bytes, page);
	ck_assert_uint_eq(asks.collect.sz, sizeof(asks));
}
END_TEST

/* One that is named is taken or refused with the reason, never replaced. */
START_TEST(test_a_named_mechanism_is_taken_or_refused_with_the_reason)
{
	for (uint32_t mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_COUNT; mechanism++) {
		struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
		struct uffdwp_track_info info = {.sz = sizeof(info)};
		struct uffdwp_track *track = NULL;
		options.mechanism = mechanism;
		options.flags = UFFDWP_TRACK_START_RESET_PROCESS;
		int error = uffdwp_track_start(tracked.runtime, &options, &track);
		ck_assert(error == 0 || error == -EOPNOTSUPP);
		if (error != 0) {
			char text[256];
			ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 10);
			continue;
		}
		ck_assert_int_eq(uffdwp_track_info(track, &info), 0);
		ck_assert_uint_eq(info.mechanism, mechanism);
		ck_assert_uint_eq(info.flags, UFFDWP_TRACK_START_RESET_PROCESS);
		ck_assert_uint_eq(info.ranges + info.bytes + info.collects + info.vanished_bytes, 0);
		ck_assert_int_eq(uffdwp_track_stop(track), 0);
	}
}
END_TEST

START_TEST(test_a_runtime_with_a_track_is_not_closed)
{
	ck_assert_int_eq(uffdwp_close(tracked.runtime), -EBUSY);
	expect_text_says(is_async() ? "track" : "open");
	ck_assert_int_eq(uffdwp_track_stop(NULL), 0);
}
END_TEST

/* --- add and remove ----------------------------------------------------------------------------------------------- */

static void expect_add_refused(void *address, size_t length, uint32_t flags, int error)
{
	struct uffdwp_track_info before = {.sz = sizeof(before)};
	struct uffdwp_track_info after = {.sz = sizeof(after)};
	char text[256] = "";
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &before), 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, address, length, flags), error);
	ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 10);
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &after), 0);
	ck_assert_mem_eq(&before, &after, sizeof(before));
}

/* An address at which nothing is mapped, nor soon will be: in the middle of much room. */
static uint8_t *nowhere(void)
{
	size_t length = (size_t)1 << 30;
	uint8_t *room = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(room != MAP_FAILED && munmap(room, length) == 0);
	return room + length / 2;
}

START_TEST(test_add_refuses_ranges_that_are_none)
{
	uint8_t *other = anon_new(4, 1);
	expect_add_refused(other + 1, page, 0, -EINVAL);
	expect_add_refused(other, page - 1, 0, -EINVAL);
	expect_add_refused(other, 0, 0, -EINVAL);
	expect_add_refused(other, page, 2, -EINVAL);
	expect_add_refused(other, ~(page - 1), 0, -EOVERFLOW);
	anon_free(other, 4);
	expect_add_refused(nowhere(), page, 0, -ENOENT);
	expect_add_refused(NULL, page, 0, is_async() ? -ENOENT : -EINVAL);
}
END_TEST

START_TEST(test_add_refuses_what_is_tracked)
{
	expect_add_refused(base, PAGES * page, 0, -EBUSY);
	expect_add_refused(base + 2 * page, page, 0, -EBUSY);
	expect_text_says("tracked already");
}
END_TEST

/* The middle is not mapped: what is there is tracked, or nothing is. */
START_TEST(test_a_range_with_a_hole_is_refused_or_tracked)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	uint8_t *other = nowhere();
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	must(mmap(other, page, PROT_READ | PROT_WRITE, flags, -1, 0) == other);
	must(mmap(other + 2 * page, 2 * page, PROT_READ | PROT_WRITE, flags, -1, 0) == other + 2 * page);
	int error = uffdwp_track_add(tracked.track, other, 4 * page, UFFDWP_TRACK_ADD_CLEAN);
	ck_assert(error == 0 || error == -ENOENT);
	if (error == 0) {
		touch(other, 0);
		touch(other, 3);
		collect.start = other;
		collect.length = 4 * page;
		ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
		ck_assert_uint_eq(collect.bytes, 2 * page);
		ck_assert_int_eq(uffdwp_track_remove(tracked.track, other, 4 * page), 0);
	}
	must(munmap(other, 4 * page) == 0);
}
END_TEST

/* Also where something else is mapped near by. */
START_TEST(test_add_refuses_what_is_not_mapped_beside_what_is_tracked)
{
	uint8_t *other = nowhere();
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	must(mmap(other, page, PROT_READ | PROT_WRITE, flags, -1, 0) == other);
	must(mmap(other + 6 * page, 2 * page, PROT_READ | PROT_WRITE, flags, -1, 0) == other + 6 * page);
	must(mmap(other + 10 * page, page, PROT_READ | PROT_WRITE, flags, -1, 0) == other + 10 * page);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other + 10 * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	expect_add_refused(other + 3 * page, page, 0, -ENOENT);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other, page), 0);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other + 10 * page, page), 0);
	must(munmap(other, 11 * page) == 0);
}
END_TEST

START_TEST(test_add_refuses_what_another_userfaultfd_has)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint8_t *other = anon_new(4, 1);
	struct uffdio_register request = {{(uintptr_t)other, 4 * page}, UFFDIO_REGISTER_MODE_WP, 0};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0 && ioctl(uffd, UFFDIO_REGISTER, &request) == 0) {
		expect_add_refused(other, 4 * page, 0, -EBUSY);
		expect_text_says("another userfaultfd");
	}
	close(uffd);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other, 4 * page, 0), 0);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other, 4 * page), 0);
	anon_free(other, 4);
}
END_TEST

START_TEST(test_add_refuses_what_is_partly_in_a_region)
{
	struct uffdwp_region *region = NULL;
	uint8_t *other = anon_new(8, 1);
	ck_assert_int_eq(uffdwp_region_attach(tracked.runtime, other + 2 * page, 4 * page, NULL, &region), 0);
	expect_add_refused(other, 4 * page, 0, -ERANGE);
	expect_add_refused(other + 4 * page, 4 * page, 0, -ERANGE);
	expect_text_says("region");
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other + 3 * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	ck_assert_int_eq(uffdwp_region_close(region), -EBUSY);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other + 3 * page, page), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	anon_free(other, 8);
}
END_TEST

/* Neither end of the range lies in the region: it is inside. */
START_TEST(test_add_refuses_what_has_a_region_in_the_middle)
{
	struct uffdwp_region *region = NULL;
	uint8_t *other = anon_new(8, 1);
	ck_assert_int_eq(uffdwp_region_attach(tracked.runtime, other + 2 * page, 4 * page, NULL, &region), 0);
	int error = uffdwp_track_add(tracked.track, other, 8 * page, 0);
	ck_assert_msg(error == -ERANGE || error == -EBUSY, "answered %d", error);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	anon_free(other, 8);
}
END_TEST

START_TEST(test_remove_refuses_what_is_not_tracked)
{
	uint8_t *other = anon_new(4, 1);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other, 4 * page), -ENOENT);
	expect_text_says("tracked");
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base + 1, page), -EINVAL);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base, 0), -EINVAL);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base, page + 1), -EINVAL);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base, ~(page - 1)), -EOVERFLOW);
	anon_free(other, 4);
}
END_TEST

/* --- collect ------------------------------------------------------------------------------------------------------ */

static void expect_collect_refused(struct uffdwp_collect *collect, int error, const char *says)
{
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, collect), error);
	expect_text_says(says);
}

static void ignore(void *user, const struct uffdwp_written *range)
{
	(void)user;
	(void)range;
}

START_TEST(test_collect_refuses_what_it_does_not_know)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.flags = 2;
	expect_collect_refused(&collect, -EINVAL, "flag");
	collect.flags = 0;
	collect.reserved = 1;
	expect_collect_refused(&collect, -EINVAL, "reserved");
	collect.reserved = 0;
	collect.sz = 15;
	expect_collect_refused(&collect, -EINVAL, "sz");
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, NULL), -EINVAL);
	expect_text_says("NULL");
}
END_TEST

START_TEST(test_collect_refuses_ranges_that_are_none)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.start = base + 1;
	expect_collect_refused(&collect, -EINVAL, "page size");
	collect.start = base;
	collect.length = page + 1;
	expect_collect_refused(&collect, -EINVAL, "page size");
	collect.length = ~(page - 1);
	ck_assert_int_lt(uffdwp_track_collect(tracked.track, &collect), 0);
	collect.start = base + PAGES * page;
	collect.length = page;
	expect_collect_refused(&collect, -ENOENT, "tracked");
}
END_TEST

START_TEST(test_collect_refuses_two_places_for_one_answer)
{
	struct uffdwp_written range;
	uint64_t bits = 0;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.start = base;
	collect.length = PAGES * page;
	collect.ranges = &range;
	collect.capacity = 1;
	collect.bitmap = &bits;
	collect.bitmap_bytes = 8;
	expect_collect_refused(&collect, -EINVAL, "one");
	collect.bitmap = NULL;
	collect.callback = ignore;
	expect_collect_refused(&collect, -EINVAL, "one");
	collect.callback = NULL;
	collect.capacity = 0;
	expect_collect_refused(&collect, -ENOSPC, "capacity");
	ck_assert_uint_eq(bits, 0);
}
END_TEST

/* What is refused for want of room has armed nothing: see the end of every test here. */
START_TEST(test_collect_refuses_a_bitmap_that_is_too_small)
{
	uint64_t bits[4] = {0};
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	uint8_t *other = anon_new(128, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other, 128 * page, UFFDWP_TRACK_ADD_CLEAN), 0);
	touch(other, 100);
	collect.bitmap = bits;
	collect.bitmap_bytes = sizeof(bits);
	expect_collect_refused(&collect, -EINVAL, "start and length");
	collect.start = other;
	expect_collect_refused(&collect, -EINVAL, "start and length");
	collect.length = 128 * page;
	collect.bitmap_bytes = 8;
	expect_collect_refused(&collect, -ENOSPC, "8 bytes");
	ck_assert_uint_eq(bits[0] | bits[1], 0);
	collect.bitmap_bytes = 16;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	ck_assert_uint_eq(bits[0], 0);
	ck_assert_uint_eq(bits[1], (uint64_t)1 << 36);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, other, 128 * page), 0);
	anon_free(other, 128);
}
END_TEST

/* "a multiple of 8" */
START_TEST(test_collect_takes_no_odd_bitmap)
{
	uint64_t bits[2] = {0};
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.start = base;
	collect.length = PAGES * page;
	collect.bitmap = bits;
	collect.bitmap_bytes = 7;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), -ENOSPC);
	ck_assert_uint_eq(bits[0], 0);
}
END_TEST

/* All is looked at before anything changes: the good range beside each bad one keeps its protection (teardown()). */
START_TEST(test_prepare_refuses_ranges_that_are_none)
{
	uint64_t at = (uintptr_t)base;
	const struct uffdwp_written bad[] = {
	        {at + 1, at + page, 0}, {at, at + page - 1, 0}, {at + page, at + page, 0}, {at + page, at, 0}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct uffdwp_written ranges[] = {{at + 8 * page, at + 9 * page, 0}, bad[i]};
		ck_assert_int_eq(uffdwp_track_prepare(tracked.track, ranges, 2), -EINVAL);
		expect_text_says("range 1, ");
	}
	ck_assert_int_eq(uffdwp_track_prepare(tracked.track, NULL, 1), -EINVAL);
	expect_text_says("ranges is NULL");
	ck_assert_int_eq(uffdwp_track_prepare(tracked.track, NULL, 0), 0);
}
END_TEST

/* Memory of others is passed over, and what is tracked beside it is not. */
START_TEST(test_prepare_passes_over_what_is_not_tracked)
{
	uint8_t *other = anon_new(4, 1);
	const struct uffdwp_written ranges[] = {
	        {(uintptr_t)other, (uintptr_t)other + 4 * page, 0},
	        {(uintptr_t)base + 3 * page, (uintptr_t)base + 4 * page, 0}, /* the page that was written */
	        {page, 2 * page, 0}};
	ck_assert_int_eq(uffdwp_track_prepare(tracked.track, ranges, 3), 0);
	anon_free(other, 4);
}
END_TEST

START_TEST(test_info_and_audit_refuse_what_has_no_room)
{
	struct uffdwp_track_info info = {.sz = 15};
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &info), -EINVAL);
	ck_assert_int_eq(uffdwp_track_audit(tracked.track, NULL), -EINVAL);
	info.sz = sizeof(info);
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &info), 0);
	ck_assert_uint_eq(info.bytes, PAGES * page);
	ck_assert_uint_eq(info.ranges, 1);
}
END_TEST

START_TEST(test_an_empty_track_answers)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_track *track = NULL;
	uint64_t vanished = 1;
	ck_assert_int_eq(uffdwp_track_start(tracked.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, 0);
	ck_assert_int_eq(uffdwp_track_audit(track, &vanished), 0);
	ck_assert_uint_eq(vanished, 0);
	collect.start = base;
	collect.length = page;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), -ENOENT);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
}
END_TEST

/* The answer says what was asked for, and nothing of the question changes. */
START_TEST(test_collect_leaves_the_question_as_it_was)
{
	struct uffdwp_written ranges[4];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.flags = UFFDWP_TRACK_COLLECT_PEEK;
	collect.start = base;
	collect.length = PAGES * page;
	collect.ranges = ranges;
	collect.capacity = 4;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	ck_assert_uint_eq(collect.sz, sizeof(collect));
	ck_assert_uint_eq(collect.flags, UFFDWP_TRACK_COLLECT_PEEK);
	ck_assert_ptr_eq(collect.start, base);
	ck_assert_uint_eq(collect.length, PAGES * page);
	ck_assert_ptr_eq(collect.ranges, ranges);
	ck_assert_uint_eq(collect.capacity, 4);
	ck_assert_uint_eq(collect.count, 1);
	ck_assert_uint_eq(ranges[0].start, (uint64_t)(uintptr_t)(base + 3 * page));
	ck_assert_uint_eq(ranges[0].end, ranges[0].start + page);
	ck_assert_uint_eq(ranges[0].flags, UFFDWP_TRACK_WRITTEN);
}
END_TEST

/* --- children ----------------------------------------------------------------------------------------------------- */

static void use_in_child(void *ignored)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_track *track = NULL;
	uint64_t vanished = 0;
	(void)ignored;
	must(uffdwp_track_start(tracked.runtime, NULL, &track) == -ECHILD);
	must(uffdwp_track_add(tracked.track, base, page, 0) == -ECHILD);
	must(uffdwp_track_remove(tracked.track, base, page) == -ECHILD);
	must(uffdwp_track_collect(tracked.track, &collect) == -ECHILD);
	must(uffdwp_track_audit(tracked.track, &vanished) == -ECHILD);
	must(uffdwp_track_prepare(tracked.track, NULL, 0) == -ECHILD);
	must(uffdwp_track_stop(tracked.track) == -ECHILD);
}

START_TEST(test_a_child_is_refused)
{
	ck_assert_int_eq(child_run(use_in_child, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_track_bad", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("track_bad");
	TCase *tests = tcase_create("bad");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_start_refuses_what_it_does_not_know);
	tcase_add_test(tests, test_soft_dirty_wants_to_be_allowed_to_clear);
	tcase_add_test(tests, test_a_longer_structure_is_taken_if_its_tail_is_zero);
	tcase_add_test(tests, test_a_named_mechanism_is_taken_or_refused_with_the_reason);
	tcase_add_test(tests, test_a_runtime_with_a_track_is_not_closed);
	tcase_add_test(tests, test_add_refuses_ranges_that_are_none);
	tcase_add_test(tests, test_add_refuses_what_is_tracked);
	tcase_add_test(tests, test_a_range_with_a_hole_is_refused_or_tracked);
	tcase_add_test(tests, test_add_refuses_what_is_not_mapped_beside_what_is_tracked);
	tcase_add_test(tests, test_add_refuses_what_another_userfaultfd_has);
	tcase_add_test(tests, test_add_refuses_what_is_partly_in_a_region);
	tcase_add_test(tests, test_add_refuses_what_has_a_region_in_the_middle);
	tcase_add_test(tests, test_remove_refuses_what_is_not_tracked);
	tcase_add_test(tests, test_collect_refuses_what_it_does_not_know);
	tcase_add_test(tests, test_collect_refuses_ranges_that_are_none);
	tcase_add_test(tests, test_collect_refuses_two_places_for_one_answer);
	tcase_add_test(tests, test_collect_refuses_a_bitmap_that_is_too_small);
	tcase_add_test(tests, test_collect_takes_no_odd_bitmap);
	tcase_add_test(tests, test_prepare_refuses_ranges_that_are_none);
	tcase_add_test(tests, test_prepare_passes_over_what_is_not_tracked);
	tcase_add_test(tests, test_info_and_audit_refuse_what_has_no_room);
	tcase_add_test(tests, test_an_empty_track_answers);
	tcase_add_test(tests, test_collect_leaves_the_question_as_it_was);
	tcase_add_test(tests, test_a_child_is_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
