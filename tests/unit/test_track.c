/* SPDX-License-Identifier: MIT */
/*
 * The inside of tracks: the set of ranges against a shadow of bits, and tracks of regions on the fake kernel, where a
 * write can be made at any moment of a collect (INV-TRACK).
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "chance.h"
#include "fake.h"
#include "kernel/kernel.h"
#include "kernel/own.h"
#include "stage.h"
#include "support.h"
#include "track/ranges.h"
#include "track/track.h"

/* --- ranges ------------------------------------------------------------------------------------------------------- */

#define UNITS 300
#define UNIT 4096u

static struct ranges ranges;
static uint8_t shadow[UNITS + 1];

static void set_shadow(size_t first, size_t end, uint8_t value)
{
	memset(shadow + first, value, end - first);
}

static size_t count_shadow(size_t first, size_t end)
{
	size_t count = 0;
	for (size_t i = first; i < end; i++) {
		count += shadow[i];
	}
	return count;
}

/* Sorted, disjoint, none touches the next, and just what the shadow has. Assertions of Check are too dear here. */
static void expect_shadow(void)
{
	size_t total = 0;
	for (size_t i = 0; i < ranges.count; i++) {
		const struct range *range = &ranges.at[i];
		must(range->start < range->end && (i == 0 || ranges.at[i - 1].end < range->start));
		size_t first = range->start / UNIT - 1;
		size_t end = range->end / UNIT - 1;
		must(count_shadow(first, end) == end - first);
		total += end - first;
	}
	must(total == count_shadow(0, UNITS) && ranges.bytes == total * UNIT);
}

static uint64_t address_of(size_t unit)
{
	return (uint64_t)(unit + 1) * UNIT;
}

static void expect_found(size_t first, size_t end)
{
	size_t found = ranges_find(&ranges, address_of(first));
	must(found == ranges.count || ranges.at[found].end > address_of(first));
	must(found == 0 || ranges.at[found - 1].end <= address_of(first));
	must(ranges_touch(&ranges, address_of(first), address_of(end)) == (count_shadow(first, end) > 0));
}

START_TEST(test_ranges_are_what_a_shadow_says)
{
	struct chance chance = chance_new(1);
	set_shadow(0, UNITS, 0);
	ck_assert_int_eq(ranges_open(&ranges, &kernel_real), 0);
	for (unsigned step = 0; step < 20000; step++) {
		size_t first = chance_below(&chance, UNITS);
		size_t end = first + 1 + chance_below(&chance, UNITS - first < 12 ? UNITS - first : 12);
		must(ranges_have_room(&ranges, 1));
		expect_found(first, end);
		if (chance_below(&chance, 2) == 0) {
			ranges_add(&ranges, address_of(first), address_of(end));
			set_shadow(first, end, 1);
		} else {
			uint64_t removed = ranges_remove(&ranges, address_of(first), address_of(end));
			must(removed == count_shadow(first, end) * UNIT);
			set_shadow(first, end, 0);
		}
		expect_shadow();
	}
	ranges_close(&ranges, &kernel_real);
}
END_TEST

/* --- on the fake kernel ------------------------------------------------------------------------------------------- */

#define PAGES 40

static struct stage stage;
static struct uffdwp_track *track;
static uint8_t seen[PAGES];

static void open_tracked(int which)
{
	fake_be(NULL);
	stage_open(&stage, which, PAGES);
	ck_assert_int_eq(uffdwp_track_start(stage.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, stage.base, stage.length_bytes, UFFDWP_TRACK_ADD_CLEAN), 0);
}

static void close_tracked(void)
{
	fake_hook(NULL);
	fake_refuse_arming(0);
	fake_again_every(0);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	stage_close(&stage);
}

static void take(void *user, const struct uffdwp_written *range)
{
	(void)user;
	for (uint64_t at = range->start; at < range->end; at += STAGE_PAGE) {
		seen[(at - (uint64_t)(uintptr_t)stage.base) / STAGE_PAGE] = 1;
	}
}

static size_t ask(uint32_t flags)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	memset(seen, 0, sizeof(seen));
	collect.flags = flags;
	collect.callback = take;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_ptr_null(collect.next);
	return (size_t)(collect.bytes / STAGE_PAGE);
}

START_TEST(test_written_page_is_collected_once)
{
	open_tracked(_i);
	ck_assert_uint_eq(ask(0), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), PAGES);
	stage_write(&stage, 5, 1);
	stage_write(&stage, 6, 1);
	stage_write(&stage, 30, 1);
	ck_assert_uint_eq(ask(UFFDWP_TRACK_COLLECT_PEEK), 3);
	ck_assert_uint_eq(ask(0), 3);
	ck_assert(seen[5] && seen[6] && seen[30]);
	ck_assert_uint_eq(ask(0), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), PAGES);
	close_tracked();
}
END_TEST

/* A writer comes when the wp bits are set and the collect has not ended: its write is in the next answer. */
struct late_writer {
	pthread_t thread;
	int started;
};

static struct late_writer late;

static void *write_late(void *ignored)
{
	(void)ignored;
	stage_write(&stage, 7, 9);
	return NULL;
}

static void start_late_writer(void *ignored)
{
	(void)ignored;
	if (!late.started) {
		late.started = 1;
		late.thread = thread_start(write_late, NULL);
	}
}

START_TEST(test_a_write_in_the_middle_of_a_collect_is_not_lost)
{
	static const struct fake_hooks hooks = {.armed = start_late_writer};
	open_tracked(_i);
	stage_write(&stage, 7, 1);
	late.started = 0;
	fake_hook(&hooks);
	ck_assert_uint_eq(ask(0), 1);
	ck_assert_int_eq(late.started, 1);
	fake_hook(NULL);
	thread_join(late.thread);
	(void)ask(0);
	ck_assert_int_eq(seen[7], 1);
	ck_assert_int_eq(stage_holds(&stage, 7, 9), 1);
	close_tracked();
}
END_TEST

/* What could not be armed again is reported, and once more. */
START_TEST(test_arming_that_is_refused_in_the_middle_loses_nothing)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	open_tracked(_i);
	for (size_t page = 0; page < PAGES; page += 2) {
		stage_write(&stage, page, 1);
	}
	fake_refuse_arming(-ENOMEM);
	memset(seen, 0, sizeof(seen));
	collect.callback = take;
	int result = uffdwp_track_collect(track, &collect);
	ck_assert(result == 0 || result == -ENOMEM);
	fake_refuse_arming(0);
	for (size_t page = 0; page < PAGES; page += 2) {
		stage_write(&stage, page, 2);
	}
	(void)ask(0);
	for (size_t page = 0; page < PAGES; page += 2) {
		ck_assert_int_eq(seen[page], 1);
	}
	stage_write(&stage, 3, 3);
	ck_assert_uint_eq(ask(0), 1);
	close_tracked();
}
END_TEST

/* The kernel wants to be asked again while it changes mappings. */
START_TEST(test_a_kernel_that_is_busy_is_asked_again)
{
	open_tracked(_i);
	fake_again_every(2);
	for (unsigned round = 0; round < 10; round++) {
		stage_write(&stage, round, 1);
		stage_write(&stage, PAGES - 1, (uint8_t)round);
		ck_assert_uint_eq(ask(0), 2);
		ck_assert(seen[round] && seen[PAGES - 1]);
	}
	close_tracked();
}
END_TEST

/* Writers and a collector, with no order but the library's. */
static _Atomic int finished;

static void *write_many(void *argument)
{
	size_t page = *(const size_t *)argument;
	for (uint8_t value = 1; value < 100; value++) {
		stage_write(&stage, page, value);
		stage_write(&stage, page + 10, value);
	}
	atomic_fetch_add(&finished, 1);
	return NULL;
}

START_TEST(test_the_last_write_of_each_thread_is_reported)
{
	static const size_t pages[3] = {0, 1, 2};
	uint8_t copy[PAGES][STAGE_PAGE];
	pthread_t threads[3];
	open_tracked(_i);
	for (size_t page = 0; page < PAGES; page++) {
		memcpy(copy[page], stage.base + page * STAGE_PAGE, STAGE_PAGE);
	}
	atomic_store(&finished, 0);
	for (size_t i = 0; i < 3; i++) {
		threads[i] = thread_start(write_many, (void *)(uintptr_t)&pages[i]);
	}
	for (int last = 0; !last;) {
		last = atomic_load(&finished) == 3;
		(void)ask(0);
		for (size_t page = 0; page < PAGES; page++) {
			if (seen[page]) {
				fake_read(stage.base + page * STAGE_PAGE, copy[page], STAGE_PAGE);
			}
		}
	}
	for (size_t i = 0; i < 3; i++) {
		thread_join(threads[i]);
	}
	for (size_t page = 0; page < PAGES; page++) {
		ck_assert_mem_eq(copy[page], stage.base + page * STAGE_PAGE, STAGE_PAGE);
	}
	close_tracked();
}
END_TEST

/* --- what a scan has armed and not reported --------------------------------------------------------------------- */

static int busy_answer;

static int answer_busily(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	(void)uffd;
	(void)start;
	(void)length;
	(void)mode;
	return busy_answer;
}

static int accept_range(int uffd, uint64_t start, uint64_t length)
{
	(void)uffd;
	(void)start;
	(void)length;
	return 0;
}

/* INV-TRACK: one collect could not clear its wp bits again, because an event waits to be read; another, of another
 * range, could. What the event says of the first must still be doubted. */
START_TEST(test_doubt_of_one_collect_outlives_another)
{
	struct kernel_ops ops = kernel_real;
	struct uffdwp_track one = {.k = &ops, .uffd = -1, .pagemap = -1};

	ops.uffd_writeprotect = answer_busily;
	ops.uffd_register = answer_busily;
	ops.uffd_unregister = accept_range;
	busy_answer = -EAGAIN;
	async_forget(&one, 0x10000, 0x20000);
	ck_assert_uint_eq(atomic_load(&one.doubtful), 1);
	busy_answer = 0;
	async_forget(&one, 0x30000, 0x40000);
	ck_assert_uint_eq(atomic_load(&one.doubtful), 1);
}
END_TEST

/* --- the thread that follows mappings ----------------------------------------------------------------------------- */

static _Atomic int slept;

/* An eventfd that takes nothing before a thread sleeps: the thread that empties it has no CPU meanwhile. */
static ssize_t write_after_a_sleep(int fd, const void *buffer, size_t length)
{
	return atomic_load(&slept) != 0 ? kernel_real.write(fd, buffer, length) : -EAGAIN;
}

static int sleep_at_last(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	(void)word;
	(void)expected;
	(void)timeout_ns;
	atomic_fetch_add(&slept, 1);
	return -ETIMEDOUT;
}

static void *do_nothing(void *argument)
{
	return argument;
}

START_TEST(test_follower_is_asked_to_end_again_until_it_can_be)
{
	static struct uffdwp_track followed;
	struct kernel_ops k = kernel_real;
	k.write = write_after_a_sleep;
	k.futex_wait = sleep_at_last;
	followed.k = &k;
	followed.follower.kick = k.eventfd();
	followed.follower.tag = own_new();
	ck_assert_int_eq(own_take(&k, followed.follower.kick, followed.follower.tag), 0);
	followed.follower.thread = thread_start(do_nothing, NULL);
	followed.follower.running = 1;
	follow_stop(&followed);
	ck_assert_int_eq(atomic_load(&slept), 1);
}
END_TEST

int main(void)
{
	support_begin("test_track", &(struct support_needs){.huge_pages = 0, .swap = 0});
	Suite *suite = suite_create("track");
	TCase *tests = tcase_create("ranges");
	tcase_add_test(tests, test_ranges_are_what_a_shadow_says);
	tcase_add_test(tests, test_doubt_of_one_collect_outlives_another);
	tcase_add_test(tests, test_follower_is_asked_to_end_again_until_it_can_be);
	suite_add_tcase(suite, tests);
	tests = tcase_create("fake");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_written_page_is_collected_once, 0, STAGE_CASES);
	tcase_add_loop_test(tests, test_a_write_in_the_middle_of_a_collect_is_not_lost, 0, STAGE_CASES);
	tcase_add_loop_test(tests, test_arming_that_is_refused_in_the_middle_loses_nothing, 0, STAGE_CASES);
	tcase_add_loop_test(tests, test_a_kernel_that_is_busy_is_asked_again, 0, STAGE_CASES);
	tcase_add_loop_test(tests, test_the_last_write_of_each_thread_is_reported, 0, STAGE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
