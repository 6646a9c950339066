/* SPDX-License-Identifier: MIT */
/*
 * A program that closes all descriptors that it does not know, as daemons do, closes the library's; what it opens then
 * takes their numbers. Whatever is called afterwards ends, with an error where it cannot work; no writer waits for
 * ever, no snapshot commits what is wrong, and nothing is written to what the program opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pace.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 64
#define SLOW_LENGTH ((size_t)4 << 20) /* more than one piece of what a snapshot writes at once */
#define TAKEN 24

static struct place_case which;
static uint32_t open_flags;
static int during;    /* the descriptors go while a snapshot runs */
static int has_child; /* of fork(), with copies of all descriptors */
static char folder[SCRATCH_PATH];

/* All that the program does not know. */
static void close_all(void)
{
	must(syscall(SYS_close_range, 3u, ~0u, 0u) == 0);
}

/* Regular files: what is written to them is seen. */
static void close_all_and_take(void)
{
	char path[SCRATCH_PATH];

	scratch_join(path, folder, "taken");
	close_all();
	for (int i = 0; i < TAKEN; i++)
		must(open(path, O_RDWR | O_CREAT | O_APPEND, 0600) >= 0);
}

static void expect_untouched(void)
{
	char path[SCRATCH_PATH];
	struct stat st;

	scratch_join(path, folder, "taken");
	must(stat(path, &st) == 0);
	if (st.st_size)
		printf("%lld bytes were written to a file of the program\n", (long long)st.st_size);
	must(st.st_size == 0);
}

/* It lives as long as this process and keeps what it has: what the parent closes is open there. Returns when it has run
 * what the library does in children. */
static void fork_a_child(void)
{
	int ends[2];
	char byte;

	must(pipe(ends) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (!child) {
		must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
		must(write(ends[1], "x", 1) == 1);
		for (;;)
			pause();
	}
	must(read(ends[0], &byte, 1) == 1);
	close(ends[0]);
	close(ends[1]);
}

static void live_on(void *ignored)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp_snapshot_options taking = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_region_options making = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	struct uffdwp_region *region = NULL;
	struct uffdwp *runtime = NULL;
	const size_t length = SLOW_LENGTH;
	char path[SCRATCH_PATH];

	(void)ignored;
	pace_alarm(4);
	options.flags = open_flags;
	making.delivery = (uint32_t)which.delivery;
	scratch_join(path, folder, "image");
	taking.path = path;
	taking.rate_bytes = 1; /* after its first piece it does not go on: it is not committed before all was closed */
	must(uffdwp_open(&options, &runtime) == 0);
	must(uffdwp_region_create(runtime, length, &making, &region) == 0);
	volatile uint8_t *base = uffdwp_region_base(region);

	memset(uffdwp_region_base(region), 1, length);
	if (during)
		must(uffdwp_snapshot_begin(region, &taking, &snapshot) == 0);
	if (has_child)
		fork_a_child();
	close_all_and_take();
	int error = during ? 0 : uffdwp_snapshot_begin(region, &taking, &snapshot);

	for (size_t at = 0; at < length; at += (size_t)getpagesize())
		base[at] = 2;
	if (!error) {
		error = uffdwp_snapshot_wait(snapshot, -1, NULL);
		uffdwp_snapshot_free(snapshot);
	}
	printf("%s, %s: %s\n", place_case_name(which), during ? "during a snapshot" : "before a snapshot",
	       error ? strerror(-error) : "committed");
	must(error < 0); /* it is chance which of them is missed first */
	must(access(path, F_OK) != 0);
	(void)uffdwp_region_close(region);
	(void)uffdwp_close(runtime);
	expect_untouched();
}

/* Another runtime gets the numbers of the first, and works while that one is closed. */
static void live_twice(void *ignored)
{
	struct uffdwp_region *regions[2] = {NULL, NULL};
	struct uffdwp *runtimes[2] = {NULL, NULL};
	const size_t length = PAGES * (size_t)getpagesize();
	struct uffdwp_snapshot_options taking = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	char path[SCRATCH_PATH];

	(void)ignored;
	pace_alarm(4);
	scratch_join(path, folder, "image");
	taking.path = path;
	for (int i = 0; i < 2; i++) {
		must(uffdwp_open(NULL, &runtimes[i]) == 0);
		must(uffdwp_region_create(runtimes[i], length, NULL, &regions[i]) == 0);
		memset(uffdwp_region_base(regions[i]), 1, length);
		if (i == 0)
			close_all();
	}
	must(uffdwp_snapshot_begin(regions[0], &taking, &snapshot) == -ESTALE);
	must(uffdwp_region_close(regions[0]) == 0);
	must(uffdwp_close(runtimes[0]) == 0);
	must(uffdwp_snapshot_begin(regions[1], &taking, &snapshot) == 0);
	memset(uffdwp_region_base(regions[1]), 2, length);
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
	uffdwp_snapshot_free(snapshot);
	must(uffdwp_region_close(regions[1]) == 0);
	must(uffdwp_close(runtimes[1]) == 0);
}

/* Nothing can be loaded by name when the threads have to end. */
static void live_in_an_empty_root(void *ignored)
{
	struct uffdwp_track_options tracking = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;
	struct uffdwp_track *track = NULL;
	struct uffdwp *runtime = NULL;

	(void)ignored;
	pace_alarm(4);
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, PAGES * (size_t)getpagesize(), NULL, &region) == 0);
	must(uffdwp_track_start(runtime, &tracking, &track) == 0);
	must(uffdwp_track_add(track, uffdwp_region_base(region), PAGES * (size_t)getpagesize(), 0) == 0);
	must(chroot(folder) == 0 && chdir("/") == 0);
	close_all();
	must(uffdwp_track_stop(track) == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_threads_end_in_an_empty_root)
{
	if (geteuid() != 0) {
		printf("not tested here: an empty root: chroot(2) needs root\n");
		return;
	}
	scratch_folder(folder);
	ck_assert_int_eq(child_run(live_in_an_empty_root, NULL), 0);
}
END_TEST

START_TEST(test_numbers_of_another_runtime_are_left_alone)
{
	scratch_folder(folder);
	ck_assert_int_eq(child_run(live_twice, NULL), 0);
}
END_TEST

/* Calls on memory of each kind after all was closed; `which` is of the memory. */
static void call_all(void *ignored)
{
	struct uffdwp_track_options tracking = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_region_options making = UFFDWP_REGION_OPTIONS_INIT;
	const size_t length = PAGES * (size_t)getpagesize();
	struct uffdwp_written found[PAGES];
	struct uffdwp_region *region = NULL;
	struct uffdwp_region *other = NULL;
	struct uffdwp_track *track = NULL;
	struct uffdwp_view *view = NULL;
	struct uffdwp *runtime = NULL;
	char text[512];

	(void)ignored;
	pace_alarm(4);
	making.delivery = (uint32_t)which.delivery;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, length, &making, &region) == 0);
	must(uffdwp_track_start(runtime, &tracking, &track) == 0);
	must(uffdwp_track_add(track, uffdwp_region_base(region), length, 0) == 0);
	collect.start = uffdwp_region_base(region);
	collect.length = length;
	collect.ranges = found;
	collect.capacity = PAGES;
	must(uffdwp_track_collect(track, &collect) == 0); /* all is armed now */
	close_all_and_take();
	memset(uffdwp_region_base(region), 2, length);
	int error = uffdwp_track_collect(track, &collect);

	must(error == -EBADF || error == -ESTALE);
	must(uffdwp_error_text(text, sizeof(text)) > 0 && strstr(text, "closed descriptors"));
	error = uffdwp_view_open(region, NULL, &view);
	must(error == -EBADF || error == -ESTALE);
	error = uffdwp_region_create(runtime, length, NULL, &other);
	must(error == -EBADF || error == -ESTALE);
	must(uffdwp_region_punch(region, 0, length) < 0);
	uffdwp_track_stop(track);
	(void)uffdwp_region_close(region);
	must(uffdwp_close(runtime) == 0);
	expect_untouched();
}

START_TEST(test_slow_calls_say_that_descriptors_are_closed)
{
	which = place_any(UFFDWP_MEMORY_SHMEM);
	which.delivery = _i ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
	if (!place_possible(which) || place_mechanism(which) == UFFDWP_MECHANISM_MPROTECT)
		return;
	scratch_folder(folder);
	ck_assert_int_eq(child_run(call_all, NULL), 0);
}
END_TEST

START_TEST(test_closed_descriptors_end_in_errors)
{
	which = place_any(UFFDWP_MEMORY_SHMEM);
	which.delivery = _i & 1 ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
	during = _i >> 1 & 1;
	open_flags = _i >> 2 & 1 ? UFFDWP_OPEN_NO_URING : 0;
	has_child = _i >> 3;
	if (!place_possible(which) || place_mechanism(which) == UFFDWP_MECHANISM_MPROTECT)
		return;
	scratch_folder(folder);
	ck_assert_int_eq(child_run(live_on, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_closed", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("closed");
	TCase *tests = tcase_create("closed");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_closed_descriptors_end_in_errors, 0, 16);
	tcase_add_test(tests, test_threads_end_in_an_empty_root);
	tcase_add_test(tests, test_numbers_of_another_runtime_are_left_alone);
	tcase_add_loop_test(tests, test_slow_calls_say_that_descriptors_are_closed, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
