/* SPDX-License-Identifier: MIT */
/*
 * Many ranges, small gaps between them, several tracks side by side, and what a track leaves when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "chance.h"
#include "kernel/abi.h"
#include "place.h"
#include "scratch.h"
#include "support.h"
#include "track_check.h"
#include "witness.h"

#define MANY 10000
#define PAGES 256

static struct tracked tracked;
static struct pages answer;
static struct pages wanted;
static size_t page;

static struct uffdwp_track_info info_of(struct uffdwp_track *track)
{
	struct uffdwp_track_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_track_info(track, &info), 0);
	return info;
}

static size_t ranges_written;

static void count_range(void *user, const struct uffdwp_written *range)
{
	const uint8_t *base = user;
	size_t n = (size_t)(range->start - (uint64_t)(uintptr_t)base) / page;
	ck_assert_uint_eq(range->end - range->start, page);
	ck_assert_uint_eq(n % 14, 0); /* every second page, of which every seventh was written */
	ranges_written++;
}

/* Every second page is a range. */
START_TEST(test_ten_thousand_ranges)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	page = small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, _i ? UFFDWP_TRACK_START_NO_EVENTS : 0)) {
		return;
	}
	uint8_t *base = anon_new(2 * MANY, 1);
	for (size_t i = 0; i < MANY; i++) {
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 2 * i * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	}
	ck_assert_uint_eq(info_of(tracked.track).ranges, MANY);
	ck_assert_uint_eq(info_of(tracked.track).bytes, MANY * page);
	for (size_t i = 0; i < 2 * MANY; i++) {
		if (i % 2 == 1 || i % 14 == 0) {
			touch(base, i);
		}
	}
	collect.callback = count_range;
	collect.user = base;
	ranges_written = 0;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	ck_assert_uint_eq(ranges_written, (2 * MANY + 13) / 14);
	ck_assert_uint_eq(collect_all(tracked.track), 0);
	for (size_t i = 0; i < MANY; i += 2) {
		ck_assert_int_eq(uffdwp_track_remove(tracked.track, base + 2 * i * page, page), 0);
	}
	ck_assert_uint_eq(info_of(tracked.track).ranges, MANY / 2);
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base, 2 * MANY * page), 0);
	ck_assert_uint_eq(info_of(tracked.track).ranges, 0);
	tracked_close(&tracked);
	ck_assert_uint_eq(witness_armed(base, 2 * MANY * page, page), 0);
	anon_free(base, 2 * MANY);
}
END_TEST

START_TEST(test_ranges_that_touch_are_one)
{
	page = small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
		return;
	}
	uint8_t *base = anon_new(PAGES, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, 4 * page, 0), 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 8 * page, 4 * page, 0), 0);
	ck_assert_uint_eq(info_of(tracked.track).ranges, 2);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 4 * page, 4 * page, 0), 0);
	ck_assert_uint_eq(info_of(tracked.track).ranges, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 11 * page, 4 * page, 0), -EBUSY);
	expect_text_says("tracked already");
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * page, 0), -EBUSY);
	ck_assert_uint_eq(info_of(tracked.track).bytes, 12 * page);
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* Gaps of a page are registered along, and armed by each collect; not so where the flag says so. */
START_TEST(test_gaps_are_left_alone_where_that_is_asked_for)
{
	page = small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, _i ? UFFDWP_TRACK_START_NO_GAPS : 0)) {
		return;
	}
	uint8_t *base = anon_new(PAGES, 1);
	pages_clear(&wanted);
	for (size_t i = 0; i < 16; i += 2) {
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base + i * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	}
	for (size_t i = 0; i < 16; i++) {
		touch(base, i);
	}
	for (size_t i = 0; i < 16; i += 2) {
		pages_put(&wanted, i, i + 1);
	}
	pages_collect(&answer, tracked.track, base, PAGES, 0);
	pages_expect(&answer, &wanted, PAGES, "every other page");
	ck_assert_uint_eq(witness_armed(base, PAGES * page, page), _i ? 8 : 15);
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* Memory of a memfd or of a file on the disk, every page written. */
static uint8_t *file_new(int is_memfd)
{
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "ranges");
	int fd = is_memfd ? memfd_create("ranges", MFD_CLOEXEC) : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && ftruncate(fd, (off_t)(PAGES * page)) == 0);
	uint8_t *base = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(base != MAP_FAILED);
	close(fd);
	for (size_t i = 0; i < PAGES; i++) {
		touch(base, i);
	}
	return base;
}

/* By the shadow: which pages are tracked, and which were written since they were reported last. Small gaps come and go,
 * and what is written in them counts when they are added. */
static uint8_t is_tracked[PAGES];
static uint8_t is_written[PAGES];

static size_t count_tracked(size_t first, size_t end)
{
	size_t count = 0;
	for (size_t i = first; i < end; i++) {
		count += is_tracked[i];
	}
	return count;
}

static void add_random(uint8_t *base, size_t first, size_t end, int is_clean)
{
	size_t some = count_tracked(first, end);
	int result = uffdwp_track_add(tracked.track, base + first * page, (end - first) * page,
	                              is_clean ? UFFDWP_TRACK_ADD_CLEAN : 0);
	ck_assert_int_eq(result, some ? -EBUSY : 0);
	for (size_t i = first; i < end && !some; i++) {
		is_tracked[i] = 1;
		is_written[i] = !is_clean;
	}
}

static void remove_random(uint8_t *base, size_t first, size_t end)
{
	size_t some = count_tracked(first, end);
	int result = uffdwp_track_remove(tracked.track, base + first * page, (end - first) * page);
	ck_assert_int_eq(result, some ? 0 : -ENOENT);
	memset(is_tracked + first, 0, end - first);
}

/* Announced pages count as written as far as they are tracked. */
static void prepare_random(uint8_t *base, size_t first, size_t end)
{
	uint64_t at = (uintptr_t)base;
	struct uffdwp_written range = {at + first * page, at + end * page, 0};
	ck_assert_int_eq(uffdwp_track_prepare(tracked.track, &range, 1), 0);
	for (size_t i = first; i < end; i++) {
		is_written[i] |= is_tracked[i];
	}
}

static void collect_random(uint8_t *base, unsigned step)
{
	char what[40];
	pages_clear(&wanted);
	for (size_t i = 0; i < PAGES; i++) {
		if (is_tracked[i] && is_written[i]) {
			pages_put(&wanted, i, i + 1);
			is_written[i] = 0;
		}
	}
	if (count_tracked(0, PAGES) != 0) {
		(void)snprintf(what, sizeof(what), "random ranges, step %u", step);
		pages_collect(&answer, tracked.track, base, PAGES, 0);
		pages_expect(&answer, &wanted, PAGES, what);
	}
}

START_TEST(test_random_ranges_with_small_gaps)
{
	struct chance chance = chance_new(31);
	page = small_page();
	uint32_t flags = (_i % 2 ? UFFDWP_TRACK_START_NO_EVENTS : 0) | (_i % 3 ? UFFDWP_TRACK_START_NO_GAPS : 0);
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, flags)) {
		return;
	}
	uint8_t *base = _i < 2 ? anon_new(PAGES, 1) : file_new(_i < 4);
	for (unsigned step = 0; step < support_rounds(6000, 20000); step++) {
		size_t first = chance_below(&chance, PAGES);
		size_t end = first + 1 + chance_below(&chance, PAGES - first < 24 ? PAGES - first : 24);
		size_t what = chance_below(&chance, 9);
		if (what == 8) {
			prepare_random(base, first, end);
		} else if (what < 2) {
			add_random(base, first, end, what == 1);
		} else if (what < 4) {
			remove_random(base, first, end);
		} else if (what < 7) {
			touch(base, first);
			is_written[first] = 1;
		} else {
			collect_random(base, step);
		}
	}
	tracked_close(&tracked);
	ck_assert_uint_eq(witness_armed(base, PAGES * page, page), 0);
	anon_free(base, PAGES);
}
END_TEST

/* --- side by side ------------------------------------------------------------------------------------------------- */

/* Every other page is the other one's. */
START_TEST(test_tracks_side_by_side_take_nothing_from_each_other)
{
	struct tracked other;
	page = small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
		return;
	}
	ck_assert_int_eq(tracked_open(&other, UFFDWP_MECHANISM_ASYNC, 0), 1);
	uint8_t *base = anon_new(PAGES, 1);
	for (size_t i = 0; i < PAGES; i++) {
		struct uffdwp_track *track = i % 2 ? other.track : tracked.track;
		ck_assert_int_eq(uffdwp_track_add(track, base + i * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	}
	for (unsigned round = 0; round < 4; round++) {
		pages_clear(&wanted);
		for (size_t i = 0; i < PAGES; i += 3) {
			touch(base, i);
		}
		ck_assert_uint_eq(collect_all(tracked.track), (PAGES / 3 + 1) / 2 * page);
		for (size_t i = 3; i < PAGES; i += 6) {
			pages_put(&wanted, i, i + 1);
		}
		pages_collect(&answer, other.track, base, PAGES, round % 2 ? UFFDWP_TRACK_COLLECT_PEEK : 0);
		pages_expect(&answer, &wanted, PAGES, "the other track");
		(void)collect_all(other.track);
	}
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base + page, page, 0), -EBUSY);
	tracked_close(&tracked);
	touch(base, 1);
	ck_assert_uint_eq(collect_all(other.track), page);
	tracked_close(&other);
	anon_free(base, PAGES);
}
END_TEST

START_TEST(test_tracks_of_several_mechanisms_live_together)
{
	static const uint32_t mechanisms[] = {UFFDWP_MECHANISM_ASYNC, UFFDWP_MECHANISM_MARKER, UFFDWP_MECHANISM_REARM,
	                                      UFFDWP_MECHANISM_MPROTECT};
	struct tracked tracks[4];
	uint8_t *bases[4] = {NULL};
	page = small_page();
	for (size_t i = 0; i < 4; i++) {
		if (tracked_open(&tracks[i], mechanisms[i], 0)) {
			bases[i] = anon_new(PAGES, 1);
			if (uffdwp_track_add(tracks[i].track, bases[i], PAGES * page, UFFDWP_TRACK_ADD_CLEAN) != 0) {
				tracked_close(&tracks[i]);
				anon_free(bases[i], PAGES);
				bases[i] = NULL;
			}
		}
	}
	for (size_t round = 1; round < 5; round++) {
		for (size_t i = 0; i < 4; i++) {
			for (size_t n = 0; bases[i] != NULL && n < round; n++) {
				touch(bases[i], n * 7);
			}
		}
		for (size_t i = 0; i < 4; i++) {
			ck_assert(bases[i] == NULL || collect_all(tracks[i].track) == round * page);
		}
	}
	for (size_t i = 0; i < 4; i++) {
		if (bases[i] != NULL) {
			tracked_close(&tracks[i]);
			anon_free(bases[i], PAGES);
		}
	}
}
END_TEST

/* --- the end ------------------------------------------------------------------------------------------------------ */

static int other_can_register(uint8_t *base, size_t length)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register request = {{(uintptr_t)base, length}, UFFDIO_REGISTER_MODE_WP, 0};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	uffd = uffd < 0 ? (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY) : uffd;
	if (uffd < 0) { /* a filter refuses the system call: no call can ask through it */
		return 1;
	}
	must(ioctl(uffd, UFFDIO_API, &api) == 0);
	int result = ioctl(uffd, UFFDIO_REGISTER, &request);
	close(uffd);
	return result == 0;
}

/* For each method, for the memory that is private: the registration and the wp bits are gone, and nothing is open. */
START_TEST(test_nothing_is_left)
{
	struct field field;
	size_t files = scratch_open_files();
	if (!cell_open(&field, _i)) {
		return;
	}
	uint8_t *base = field_address(&field, 0);
	size_t length = field.block_bytes;
	cell_write(&field, 0);
	ck_assert_int_eq(uffdwp_track_stop(field.track), 0);
	field.track = NULL;
	if (field.region == NULL) {
		ck_assert_uint_eq(witness_armed(base, length, field.page_bytes), 0);
		ck_assert_uint_eq(witness_count(base, length, field.page_bytes, WITNESS_READ_ONLY), 0);
		ck_assert(field.memory == FIELD_FILE || place_report()->access_chosen < 0 ||
		          other_can_register(base, length));
	}
	cell_write(&field, 0);
	field_close(&field);
	ck_assert_uint_eq(scratch_open_files(), files);
}
END_TEST

int main(void)
{
	support_begin("test_track_ranges", &(struct support_needs){.huge_pages = 8, .swap = 0});
	place_begin();
	cells_print();
	Suite *suite = suite_create("track_ranges");
	TCase *tests = tcase_create("ranges");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, test_ten_thousand_ranges, 0, 2);
	tcase_add_test(tests, test_ranges_that_touch_are_one);
	tcase_add_loop_test(tests, test_random_ranges_with_small_gaps, 0, 6);
	tcase_add_loop_test(tests, test_gaps_are_left_alone_where_that_is_asked_for, 0, 2);
	tcase_add_test(tests, test_tracks_side_by_side_take_nothing_from_each_other);
	tcase_add_test(tests, test_tracks_of_several_mechanisms_live_together);
	tcase_add_loop_test(tests, test_nothing_is_left, 0, CELLS);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
