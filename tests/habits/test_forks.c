/* SPDX-License-Identifier: MIT */
/*
 * Programs fork, vfork and clone at bad moments: while a snapshot begins, is swept, ends, while a track collects and a
 * restore reads, and lines of the log are passed on. The children exec, exit, return from main, call the library, which
 * answers -ECHILD, or open a runtime and a log of their own; none of them hangs, and the parent's images stay right.
 * Other programs leave by exit(3) or by a signal while the library is busy.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"
#include "pace.h"

#define FORK_PAGES 320u
#define FORK_STACK_BYTES (256u << 10)

static struct habit habit;
static _Atomic int running;
static _Atomic int lines; /* of the parent's story */

static void *fork_writer(void *argument)
{
	struct chance chance = chance_new((uintptr_t)argument);
	while (atomic_load(&running)) {
		size_t at = chance_below(&chance, habit.page_bytes);
		habit_write(&habit, chance_below(&chance, habit.pages), at, (uint8_t)chance_next(&chance));
	}
	return NULL;
}

/* --- children --------------------------------------------------------------------------------------------------- */

static int fork_wait(pid_t child)
{
	int status = -1;
	while (waitpid(child, &status, 0) < 0) {
		must(errno == EINTR);
	}
	return status;
}

/* The child has none of the library's threads, and gets an error that says so. */
static int fork_calls_the_library(void)
{
	struct uffdwp_region *region = NULL;
	struct uffdwp_snapshot *snapshot = NULL;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = 1;
	return uffdwp_region_create(habit.runtime, habit.page_bytes, NULL, &region) == -ECHILD &&
	       uffdwp_snapshot_begin(habit.region, &options, &snapshot) == -ECHILD &&
	       uffdwp_region_close(habit.region) == -ECHILD && uffdwp_close(habit.runtime) == -ECHILD;
}

/* The story of a run, which other threads of the parent may be in the middle of at a fork. */
static void fork_log(void *count, const char *line)
{
	(void)line;
	atomic_fetch_add((_Atomic int *)count, 1);
}

/* It opens a runtime of its own, and reads the story of that alone. */
static int fork_opens_its_own(void)
{
	static _Atomic int own_lines;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	if (uffdwp_log_to(fork_log, &own_lines) != 0) {
		return 0;
	}
	if (uffdwp_open(NULL, &runtime) != 0 ||
	    uffdwp_region_create(runtime, habit.page_bytes * 16, NULL, &region) != 0) {
		return 0;
	}
	int works = uffdwp_region_arm(region, 0, habit.page_bytes * 16) == 0 && atomic_load(&own_lines) > 0;
	memset(uffdwp_region_base(region), 1, habit.page_bytes * 16);
	return works && uffdwp_region_close(region) == 0 && uffdwp_close(runtime) == 0;
}

static int fork_thread(void *unused)
{
	(void)unused;
	return 7;
}

static void fork_one(size_t kind)
{
	pid_t child = -1;
	int expected = 7;
	static uint8_t stack[FORK_STACK_BYTES] __attribute__((aligned(64)));
	if (kind == 3) {
		child = clone(fork_thread, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	} else if (kind == 4) {
		child = vfork();
		if (child == 0) {
			(void)execl("/bin/true", "true", (char *)NULL);
			_exit(7);
		}
		expected = 0;
	} else {
		child = fork();
	}
	if (child == 0) {
		pace_alarm(2);
		if (kind == 0) {
			_exit(7);
		}
		if (kind == 1) {
			(void)execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
		}
		_exit((kind == 5 ? fork_opens_its_own() : fork_calls_the_library()) ? 7 : 8);
	}
	must(child > 0);
	int status = fork_wait(child);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != expected) {
		fprintf(stderr, "%s: child %zu: status %#x\n", habit_name(habit.which), kind, (unsigned)status);
	}
	must(WIFEXITED(status) && WEXITSTATUS(status) == expected);
}

static void *fork_all_the_time(void *unused)
{
	struct chance chance = chance_new(99);
	(void)unused;
	while (atomic_load(&running)) {
		fork_one(chance_below(&chance, 6));
	}
	return NULL;
}

static void fork_track(void)
{
	struct uffdwp_track *track;
	struct uffdwp_written ranges[64];
	must_be(habit.runtime, uffdwp_track_start(habit.runtime, NULL, &track), 0);
	must_be(habit.runtime, uffdwp_track_add(track, habit.base, habit.length_bytes, 0), 0);
	for (int i = 0; i < 8; i++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		collect.ranges = ranges;
		collect.capacity = 64;
		must_be(habit.runtime, uffdwp_track_collect(track, &collect), 0);
	}
	must_be(habit.runtime, uffdwp_track_stop(track), 0);
}

START_TEST(test_children_come_while_the_library_is_busy)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, FORK_PAGES);
	habit_fill(&habit, 1);
	must_be(habit.runtime, uffdwp_log_to(fork_log, &lines), 0);
	atomic_store(&running, 1);
	pthread_t writer = thread_start(fork_writer, NULL);
	pthread_t forker = thread_start(fork_all_the_time, NULL);
	for (int round = 0; round < 3 * habit_factor(); round++) {
		habit_round(&habit, (uint64_t)round);
		fork_track();
	}
	atomic_store(&running, 0);
	thread_join(writer);
	thread_join(forker);
	must(atomic_load(&lines) > 0);
	must_be(habit.runtime, uffdwp_log_to(NULL, NULL), 0);
	habit_close(&habit);
}
END_TEST

/* One of each kind at the moment when the sweep waits. */
START_TEST(test_children_come_in_the_middle_of_a_snapshot)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, FORK_PAGES);
	habit_fill(&habit, 1);
	for (size_t kind = 0; kind < 6; kind++) {
		habit_cut(&habit);
		fork_one(kind);
		habit_write(&habit, FORK_PAGES - 1 - kind, 0, 1);
		habit_end(&habit);
	}
	habit_close(&habit);
}
END_TEST

/* --- leaving in the middle -------------------------------------------------------------------------------------- */

static int leave_by;

static void *leave_thread(void *unused)
{
	(void)unused;
	for (uint64_t round = 0;; round++) {
		habit_round(&habit, round);
	}
	return NULL;
}

/* exit(3) runs while threads write, one calls the library, and handlers of exit are called. */
static void leave(void *which)
{
	struct chance chance = chance_new((uint64_t)leave_by);
	(void)signal(SIGTERM, SIG_DFL);
	habit_open(&habit, *(const struct habit_case *)which, FORK_PAGES);
	habit_fill(&habit, 1);
	atomic_store(&running, 1);
	(void)thread_start(fork_writer, NULL);
	(void)thread_start(leave_thread, NULL);
	sleep_us(chance_below(&chance, 5000));
	if (leave_by % 2) {
		(void)kill(getpid(), SIGTERM);
		sleep_us(20000000);
	}
	exit(0);
}

START_TEST(test_the_program_leaves_while_the_library_is_busy)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	for (leave_by = 0; leave_by < 6 * habit_factor(); leave_by++) {
		int status = habit_child(leave, &which);
		must(leave_by % 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM : status == 0);
	}
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("forks");
	tcase_set_timeout(tcase, 60 * habit_factor());
	tcase_add_loop_test(tcase, test_children_come_while_the_library_is_busy, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_children_come_in_the_middle_of_a_snapshot, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_the_program_leaves_while_the_library_is_busy, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
