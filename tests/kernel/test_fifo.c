/* SPDX-License-Identifier: MIT */
/*
 * A caller of real-time priority (SCHED_FIFO) that shares its only CPU with handlers and writers of normal priority:
 * they run only while it sleeps, so whatever it calls must sleep when it waits for one of them, and ends. The kernel
 * stops real-time threads for a twentieth of each second (sched_rt_runtime_us), so that a call that spins is slow here
 * rather than endless; unit/test_backoff.c distinguishes the two.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 2048
#define WRITERS 3
#define ROUNDS 8
#define PRIORITY 10

static struct place place;
static char folder[SCRATCH_PATH];
static _Atomic int stop;

static void take_one_cpu(void)
{
	cpu_set_t cpus;
	cpu_set_t one;
	size_t cpu = 0;
	ck_assert_int_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	while (!CPU_ISSET(cpu, &cpus)) {
		cpu++;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
}

static int set_policy(int policy, int priority)
{
	const struct sched_param param = {.sched_priority = priority};
	return sched_setscheduler(0, policy, &param) != 0 ? -errno : 0;
}

/* NULL: this process may have real-time threads, and the kernel stops them now and then. */
static const char *why_not(void)
{
	char text[32] = "";
	FILE *file = fopen("/proc/sys/kernel/sched_rt_runtime_us", "re");
	size_t got = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
	if (file != NULL) {
		(void)fclose(file);
	}
	if (got == 0 || text[0] == '-') {
		return "the kernel does not stop real-time threads (sched_rt_runtime_us)";
	}
	if (set_policy(SCHED_FIFO, PRIORITY) != 0) {
		return "SCHED_FIFO is not permitted";
	}
	(void)set_policy(SCHED_OTHER, 0);
	return NULL;
}

static void *write_on(void *argument)
{
	const size_t index = (size_t)(uintptr_t)argument;
	size_t page = index;
	while (!atomic_load(&stop)) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + index] += 1;
		page = (page + 7) % place.pages;
	}
	return NULL;
}

/* Writers and handlers of normal priority, and the caller above them. */
static void begin(struct place_case which, pthread_t writers[WRITERS])
{
	take_one_cpu();
	place_open(&place, which, PAGES);
	place_touch(&place);
	atomic_store(&stop, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i] = thread_start(write_on, (void *)(uintptr_t)i);
	}
	ck_assert_int_eq(set_policy(SCHED_FIFO, PRIORITY), 0);
}

static void stop_writers(const pthread_t writers[WRITERS])
{
	atomic_store(&stop, 1);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(writers[i]);
	}
}

static void take(const char *path)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.path = path;
	options.pool_bytes = 64 * place.page_bytes; /* writers starve */
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}

static void look_at_a_view(void)
{
	struct uffdwp_view *view = NULL;
	int error = uffdwp_view_open(place.region, NULL, &view);
	ck_assert(error == 0 || error == -EOPNOTSUPP);
	if (error == 0) {
		ck_assert_int_eq(uffdwp_view_close(view), 0);
	}
}

static void collect(struct uffdwp_track *track)
{
	struct uffdwp_collect request = UFFDWP_COLLECT_INIT;
	struct uffdwp_written found[64];
	request.ranges = found;
	request.capacity = 64;
	ck_assert_int_eq(uffdwp_track_collect(track, &request), 0);
}

static void restore(const char *path)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), 0);
}

START_TEST(test_caller_of_real_time_priority_ends_what_it_began)
{
	struct place_case which = place_auto_case(_i);
	struct uffdwp_track *track = NULL;
	pthread_t writers[WRITERS];
	char path[SCRATCH_PATH];
	if (!place_possible(which) || which.memory == UFFDWP_MEMORY_HUGETLB) {
		return;
	}
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	begin(which, writers);
	for (unsigned round = 0; round < support_rounds(ROUNDS, 10 * ROUNDS); round++) {
		take(path);
		look_at_a_view();
		ck_assert_int_eq(uffdwp_region_punch(place.region, round * place.page_bytes, place.page_bytes), 0);
		ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
		ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
		collect(track);
		collect(track);
		ck_assert_int_eq(uffdwp_track_stop(track), 0);
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
	}
	stop_writers(writers);
	restore(path);
	place_close(&place);
	ck_assert_int_eq(set_policy(SCHED_OTHER, 0), 0);
}
END_TEST

int main(void)
{
	support_begin("test_fifo", &(struct support_needs){0, 0});
	const char *reason = why_not();
	if (reason != NULL) {
		return support_skip(reason);
	}
	place_begin();
	Suite *suite = suite_create("fifo");
	TCase *tests = tcase_create("fifo");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_caller_of_real_time_priority_ends_what_it_began, 0, PLACE_AUTO_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
