/* SPDX-License-Identifier: MIT */
/*
 * Children whose owner wants windows: a write breaks its neighbours off, too, where writers fault without a pause and
 * have written to a sixteenth of 512 pages. Whether they do is set in the region here, so that no verdict depends on
 * how fast this machine is. The second witness is the child, which compares all of its memory with what it was, and the
 * kernel's account of it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "place.h"
#include "region/region.h"
#include "support.h"

#define PAGES 1024
#define AREA 512
#define DENSE 32
#define WINDOW 16
#define RIGHT 7
#define WRONG 9

static struct place place;

static uint8_t stamp(size_t page)
{
	return (uint8_t)(1 + page % 251);
}

static void fill(void)
{
	for (size_t page = 0; page < PAGES; page++) {
		memset(place.base + page * place.page_bytes, stamp(page), place.page_bytes);
	}
}

/* The child waits until its parent has written, and has all bytes as they were. */
static void child_looks(int go)
{
	char byte;
	int right = read(go, &byte, 1) == 1;
	for (size_t at = 0; at < PAGES * place.page_bytes; at++) {
		right = right && place.base[at] == stamp(at / place.page_bytes);
	}
	_exit(right ? RIGHT : WRONG);
}

struct born {
	pid_t pid;
	int go;
	struct uffdwp_child *child;
};

static struct born bear(const struct uffdwp_fork_options *options)
{
	struct born born = {0};
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	born.pid = uffdwp_fork(place.runtime, options, &born.child);
	if (born.pid == 0) {
		child_looks(ends[0]);
	}
	ck_assert_int_gt(born.pid, 0);
	(void)close(ends[0]);
	born.go = ends[1];
	return born;
}

static uint64_t own_pages(const struct born *born)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_child_info(born->child, &info), 0);
	return info.private_bytes / place.page_bytes;
}

static void bury(struct born *born)
{
	int status = 0;
	ck_assert_int_eq((int)write(born->go, "", 1), 1);
	ck_assert_int_eq(waitpid(born->pid, &status, 0), born->pid);
	ck_assert_int_eq(status, RIGHT << 8);
	ck_assert_int_eq(uffdwp_child_free(born->child), 0);
	(void)close(born->go);
}

/* As if 64 faults had come without a pause; it is looked at again after 63 more. */
static void say_busy(void)
{
	atomic_store(&place.region->area_is_busy, 1);
	atomic_store(&place.region->area_faults, 1);
}

/* One page of each `step`, from `first` on. */
static void write_some(size_t first, size_t count, size_t step)
{
	for (size_t i = 0; i < count; i++) {
		place.base[(first + i * step) * place.page_bytes] ^= 0xff;
	}
}

static int open_place(int which)
{
	struct place_case chosen = place_case(which);
	if (!place_possible(chosen) || chosen.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(chosen)) {
		return 0;
	}
	place_open(&place, chosen, PAGES);
	fill();
	return 1;
}

static int has_area(void *born)
{
	return own_pages(born) >= AREA;
}

START_TEST(test_a_dense_writer_takes_neighbours_along)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	if (!open_place(_i)) {
		return;
	}
	options.window_max = WINDOW;
	struct born born = bear(&options);
	say_busy();
	write_some(0, DENSE - 1, 16);
	ck_assert_uint_eq(own_pages(&born), DENSE - 1); /* not dense yet */
	write_some(8, 2, 16);
	ck_assert_uint_ge(own_pages(&born), DENSE - 1 + WINDOW - 1);
	ck_assert_msg(wait_until(has_area, &born, 20), "the child's thread has not broken off the rest of the area");
	ck_assert_uint_eq(own_pages(&born), AREA); /* and nothing of the other */
	write_some(1, AREA / 2, 2);
	ck_assert_uint_eq(own_pages(&born), AREA);
	bury(&born);
	place_close(&place);
}
END_TEST

START_TEST(test_without_a_window_only_what_is_written_is_the_childs)
{
	if (!open_place(_i)) {
		return;
	}
	struct born born = bear(NULL);
	say_busy();
	write_some(0, AREA / 4, 4);
	ck_assert_uint_eq(own_pages(&born), AREA / 4);
	bury(&born);
	place_close(&place);
}
END_TEST

START_TEST(test_an_idle_writer_takes_none_along)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	if (!open_place(_i)) {
		return;
	}
	options.window_max = WINDOW;
	struct born born = bear(&options);
	for (size_t page = 0; page < 2 * DENSE; page++) {
		atomic_store(&place.region->area_faults, 1); /* never looked at */
		write_some(4 * page, 1, 1);
	}
	ck_assert_uint_eq(own_pages(&born), 2 * DENSE);
	bury(&born);
	place_close(&place);
}
END_TEST

/* A hole would take memory twice, in the region and in the child. */
START_TEST(test_holes_are_not_taken_along)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	uint64_t there = 0;
	if (!open_place(_i)) {
		return;
	}
	options.window_max = WINDOW;
	ck_assert_int_eq(uffdwp_region_punch(place.region, AREA * place.page_bytes, AREA * place.page_bytes), 0);
	write_some(AREA, AREA / 4, 4);
	for (size_t i = 0; i < AREA / 4; i++) { /* as the child will expect */
		place.base[(AREA + 4 * i) * place.page_bytes] = 0;
	}
	struct uffdwp_child *child = NULL;
	pid_t pid = uffdwp_fork(place.runtime, &options, &child);
	if (pid == 0) {
		for (;;) {
			pause();
		}
	}
	ck_assert_int_gt(pid, 0);
	say_busy();
	write_some(AREA, DENSE + 8, 4);
	struct born born = {.pid = pid, .child = child};
	sleep_us(60000); /* the child's thread may come along meanwhile */
	there = own_pages(&born);
	ck_assert_msg(there <= AREA / 4, "%llu pages are the child's, of %d that are no holes",
	              (unsigned long long)there, AREA / 4);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	place_close(&place);
}
END_TEST

/* To a track pages are reported that were written, and no other. */
START_TEST(test_a_tracked_region_has_no_windows)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_track *track = NULL;
	if (!open_place(_i)) {
		return;
	}
	must(uffdwp_track_start(place.runtime, NULL, &track) == 0);
	if (uffdwp_track_add(track, place.base, PAGES * place.page_bytes, 0) != 0) {
		must(uffdwp_track_stop(track) == 0);
		place_close(&place);
		return;
	}
	options.window_max = WINDOW;
	struct born born = bear(&options);
	say_busy();
	write_some(0, AREA / 4, 4);
	ck_assert_uint_eq(own_pages(&born), AREA / 4);
	bury(&born);
	must(uffdwp_track_stop(track) == 0);
	place_close(&place);
}
END_TEST

/* A bound on the child's memory is for what is written: windows end where half of it is taken. */
START_TEST(test_a_bound_ends_windows)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	if (!open_place(_i)) {
		return;
	}
	options.window_max = WINDOW;
	options.private_bytes = 2 * DENSE * place.page_bytes;
	struct born born = bear(&options);
	say_busy();
	write_some(0, 2 * DENSE, 8);
	ck_assert_uint_eq(own_pages(&born), 2 * DENSE);
	bury(&born);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_child_window", &(struct support_needs){0, 0});
	place_begin();
	if (!place_has_children()) {
		return support_skip(PLACE_NO_CHILDREN);
	}
	Suite *suite = suite_create("child_window");
	TCase *tests = tcase_create("child_window");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_a_dense_writer_takes_neighbours_along, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_without_a_window_only_what_is_written_is_the_childs, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_an_idle_writer_takes_none_along, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_holes_are_not_taken_along, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_tracked_region_has_no_windows, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_bound_ends_windows, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
