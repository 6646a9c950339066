/* SPDX-License-Identifier: MIT */
/*
 * A profiler interrupts the program 20,000 times a second, every thread of it, with and without SA_RESTART; its handler
 * asks the library in which region an address lies, as a profiler of memory does. Snapshots to files, tracks and
 * restores run meanwhile: no call may fail with EINTR, and images, answers and memory must be right.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"
#include "scratch.h"

#define PROFILE_NS 50000
#define PROFILE_PAGES 256u

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static struct habit habit;
static _Atomic uint64_t ticks;
static _Atomic int running;

static void profile(int number)
{
	int error = errno;
	(void)number;
	atomic_fetch_add(&ticks, 1);
	(void)uffdwp_region_locate(habit.base);
	errno = error;
}

/* One timer for the process, whose signal any thread may get, and one for the thread that calls the library. */
static void profile_start(int flags, timer_t timers[2])
{
	struct sigaction action = {.sa_handler = profile, .sa_flags = flags};
	must(sigemptyset(&action.sa_mask) == 0 && sigaction(SIGPROF, &action, NULL) == 0);
	struct sigevent any = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
	struct sigevent mine = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
	mine.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	must(timer_create(CLOCK_MONOTONIC, &any, &timers[0]) == 0);
	must(timer_create(CLOCK_MONOTONIC, &mine, &timers[1]) == 0);
	struct itimerspec interval = {{0, PROFILE_NS}, {0, PROFILE_NS}};
	must(timer_settime(timers[0], 0, &interval, NULL) == 0 && timer_settime(timers[1], 0, &interval, NULL) == 0);
	struct itimerval used = {{0, 1000}, {0, 1000}};
	must(setitimer(ITIMER_PROF, &used, NULL) == 0);
}

static void profile_stop(const timer_t timers[2])
{
	struct itimerval none = {{0, 0}, {0, 0}};
	must(setitimer(ITIMER_PROF, &none, NULL) == 0);
	must(timer_delete(timers[0]) == 0 && timer_delete(timers[1]) == 0);
	must(atomic_load(&ticks) != 0);
}

static void *profile_writer(void *argument)
{
	struct chance chance = chance_new((uintptr_t)argument);
	while (atomic_load(&running)) {
		size_t at = chance_below(&chance, habit.page_bytes);
		habit_write(&habit, chance_below(&chance, habit.pages), at, (uint8_t)chance_next(&chance));
	}
	return NULL;
}

/* To a file, by O_DIRECT and io_uring where they are. */
static void profile_snapshot(const char *path)
{
	struct uffdwp_snapshot *snapshot;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	memcpy(habit.copy, habit.base, habit.length_bytes);
	must_be(habit.runtime, uffdwp_snapshot_begin(habit.region, &options, &snapshot), 0);
	for (size_t i = 0; i < habit.pages; i += 3) {
		habit_write(&habit, i, 0, 0x77);
	}
	int rc = uffdwp_snapshot_wait(snapshot, -1, NULL);
	must(rc == 0);
	must_be(habit.runtime, uffdwp_snapshot_free(snapshot), 0);
	must(scratch_read(path, habit.image, habit.length_bytes));
	must(memcmp(habit.image, habit.copy, habit.length_bytes) == 0);
}

static void profile_restore(const char *path)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	must(memset(habit.base, 0, habit.length_bytes) == habit.base);
	must_be(habit.runtime, uffdwp_restore(habit.region, &options, NULL), 0);
	must(memcmp(habit.base, habit.image, habit.length_bytes) == 0);
	if (habit.which.mechanism != UFFDWP_MECHANISM_REARM || habit.which.delivery != UFFDWP_DELIVERY_INLINE) {
		return;
	}
	struct uffdwp_restore *restore;
	must_be(habit.runtime, uffdwp_restore_begin(habit.region, &options, &restore), 0);
	must(memcmp(habit.base, habit.image, habit.length_bytes) == 0);
	must_be(habit.runtime, uffdwp_restore_wait(restore, -1, NULL), 0);
	must_be(habit.runtime, uffdwp_restore_free(restore), 0);
}

static void profile_track(void)
{
	static uint64_t bitmap[PROFILE_PAGES / 64];
	struct uffdwp_track *track;
	must_be(habit.runtime, uffdwp_track_start(habit.runtime, NULL, &track), 0);
	must_be(habit.runtime, uffdwp_track_add(track, habit.base, habit.length_bytes, 0), 0);
	for (size_t round = 0; round < 8; round++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		memset(bitmap, 0, sizeof(bitmap));
		for (size_t i = round; i < PROFILE_PAGES; i += 5) {
			habit_write(&habit, i, 1, (uint8_t)round);
		}
		collect.start = habit.base;
		collect.length = habit.length_bytes;
		collect.bitmap = bitmap;
		collect.bitmap_bytes = sizeof(bitmap);
		must_be(habit.runtime, uffdwp_track_collect(track, &collect), 0);
		for (size_t i = round; i < PROFILE_PAGES; i += 5) {
			must((bitmap[i / 64] >> i % 64 & 1) == 1);
		}
	}
	must_be(habit.runtime, uffdwp_track_stop(track), 0);
}

static void profile_test(struct habit_case which, int flags)
{
	timer_t timers[2];
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	if (!habit_possible(which)) {
		return;
	}
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	profile_start(flags, timers);
	habit_open(&habit, which, PROFILE_PAGES);
	habit_fill(&habit, 1);
	for (int round = 0; round < habit_factor(); round++) {
		profile_snapshot(path);
		profile_restore(path);
		profile_track();
		atomic_store(&running, 1);
		pthread_t writer = thread_start(profile_writer, NULL);
		for (uint64_t i = 0; i < 3; i++) {
			habit_round(&habit, i);
		}
		atomic_store(&running, 0);
		thread_join(writer);
	}
	habit_close(&habit);
	profile_stop(timers);
}

START_TEST(test_a_profiler_that_interrupts_system_calls)
{
	profile_test(habit_case(_i), 0);
}
END_TEST

START_TEST(test_a_profiler_that_restarts_system_calls)
{
	profile_test(habit_case(_i), SA_RESTART);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("sigprof");
	tcase_set_timeout(tcase, 60 * habit_factor());
	tcase_add_loop_test(tcase, test_a_profiler_that_interrupts_system_calls, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_a_profiler_that_restarts_system_calls, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
