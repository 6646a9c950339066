/* SPDX-License-Identifier: MIT */
/*
 * Programs run under limits of every kind, set before the library is opened, before a region, before a snapshot, or
 * while one runs. What does not fit is refused with an error and a text; no signal ends the program, writers go on,
 * images are right, and when the soft limit is raised again everything works.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "habit.h"
#include "scratch.h"

#define LIMIT_PAGES 320u
#define LIMIT_USER 61234u /* that no other process has */

/* A limit: `slack` above what the process uses now, where there is such a thing. */
static const struct {
	const char *name;
	int resource;
	rlim_t value;
	int above_use;
} limits[] = {
        {"RLIMIT_AS + 0", RLIMIT_AS, 0, 1},
        {"RLIMIT_AS + 256 KiB", RLIMIT_AS, 256u << 10, 1},
        {"RLIMIT_AS + 16 MiB", RLIMIT_AS, 16u << 20, 1},
        {"RLIMIT_AS + 100 MiB", RLIMIT_AS, 100u << 20, 1},
        {"RLIMIT_DATA 64 KiB", RLIMIT_DATA, 64u << 10, 0},
        {"RLIMIT_NOFILE + 0", RLIMIT_NOFILE, 0, 1},
        {"RLIMIT_NOFILE + 1", RLIMIT_NOFILE, 1, 1},
        {"RLIMIT_NOFILE + 2", RLIMIT_NOFILE, 2, 1},
        {"RLIMIT_NOFILE + 3", RLIMIT_NOFILE, 3, 1},
        {"RLIMIT_NOFILE + 5", RLIMIT_NOFILE, 5, 1},
        {"RLIMIT_NOFILE + 8", RLIMIT_NOFILE, 8, 1},
        {"RLIMIT_FSIZE 0", RLIMIT_FSIZE, 0, 0},
        {"RLIMIT_FSIZE 64 KiB", RLIMIT_FSIZE, 64u << 10, 0},
        {"RLIMIT_MEMLOCK 0", RLIMIT_MEMLOCK, 0, 0},
        {"RLIMIT_STACK 64 KiB", RLIMIT_STACK, 64u << 10, 0},
        {"RLIMIT_CORE 0", RLIMIT_CORE, 0, 0},
        {"RLIMIT_CPU 1000 s", RLIMIT_CPU, 1000, 0},
        {"RLIMIT_SIGPENDING 0", RLIMIT_SIGPENDING, 0, 0},
        {"RLIMIT_NPROC 1", RLIMIT_NPROC, 1, 0},
        {"RLIMIT_RTPRIO 0", RLIMIT_RTPRIO, 0, 0},
        {"RLIMIT_NICE 0", RLIMIT_NICE, 0, 0},
};
#define LIMITS ((int)(sizeof(limits) / sizeof(limits[0])))

enum moment { BEFORE_OPEN, BEFORE_SNAPSHOT, DURING_SNAPSHOT, MOMENTS };

static int limit_index;
static enum moment limit_moment;
static struct habit_case limit_case;
static struct rlimit limit_before;
static char limit_path[SCRATCH_PATH];

static rlim_t limit_use(int resource)
{
	uint64_t mapped;
	if (resource == RLIMIT_NOFILE) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		must(fd >= 0 && close(fd) == 0);
		return (rlim_t)fd;
	}
	support_memory(&mapped, NULL);
	return (rlim_t)mapped;
}

static void limit_set(void)
{
	int resource = limits[limit_index].resource;
	if (resource == RLIMIT_NPROC && support_may_change_user()) {
		must(setgid(LIMIT_USER) == 0 && setuid(LIMIT_USER) == 0); /* root has no such limit */
		must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	}
	must(getrlimit((__rlimit_resource_t)resource, &limit_before) == 0);
	struct rlimit limit = limit_before;
	limit.rlim_cur = limits[limit_index].value + (limits[limit_index].above_use ? limit_use(resource) : 0);
	if (limit.rlim_cur > limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
	}
	must(setrlimit((__rlimit_resource_t)resource, &limit) == 0);
}

static void limit_raise(void)
{
	must(setrlimit((__rlimit_resource_t)limits[limit_index].resource, &limit_before) == 0);
}

/* To a file. */
static void limit_image(struct habit *habit, int must_work)
{
	struct uffdwp_snapshot *snapshot;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = limit_path;
	memcpy(habit->copy, habit->base, habit->length_bytes);
	int rc = uffdwp_snapshot_begin(habit->region, &options, &snapshot);
	if (rc != 0) {
		must(!must_work);
		habit_says_why();
		return;
	}
	for (size_t i = 0; i < habit->pages; i++) {
		habit_write(habit, i, 5, (uint8_t)i);
	}
	rc = uffdwp_snapshot_wait(snapshot, -1, NULL);
	must_be(habit->runtime, uffdwp_snapshot_free(snapshot), 0);
	must(rc == 0 || !must_work);
	if (rc == 0) {
		int fd = open(limit_path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			must(pread(fd, habit->image, habit->length_bytes, 0) == (ssize_t)habit->length_bytes);
			must(close(fd) == 0 && memcmp(habit->image, habit->copy, habit->length_bytes) == 0);
		}
	}
}

static void limit_before_open(struct habit *habit)
{
	limit_set();
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.delivery = limit_case.delivery;
	int rc = uffdwp_open(NULL, &runtime);
	if (rc != 0) {
		habit_says_why();
	} else {
		rc = uffdwp_region_create(runtime, 16 * (size_t)sysconf(_SC_PAGESIZE), &options, &region);
		if (rc != 0) {
			habit_says_why();
		} else {
			must_be(runtime, uffdwp_region_close(region), 0);
		}
		must_be(runtime, uffdwp_close(runtime), 0);
	}
	limit_raise();
	habit_open(habit, limit_case, LIMIT_PAGES);
	habit_fill(habit, 1);
}

static void limit_run(void *unused)
{
	struct habit habit;
	struct stat output;
	(void)unused;
	if (limits[limit_index].resource == RLIMIT_FSIZE && fstat(STDERR_FILENO, &output) == 0 &&
	    S_ISREG(output.st_mode)) {
		must(dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO) >=
		     0); /* what this writes is a file, too */
	}
	if (limit_moment == BEFORE_OPEN) {
		limit_before_open(&habit);
	} else {
		habit_open(&habit, limit_case, LIMIT_PAGES);
		habit_fill(&habit, 1);
		if (limit_moment == DURING_SNAPSHOT) {
			habit_cut(&habit);
		}
		limit_set();
		if (limit_moment == DURING_SNAPSHOT) {
			for (size_t i = 0; i < habit.pages; i++) {
				habit_write(&habit, i, 0, 7);
			}
			(void)habit_try_end(&habit);
		}
		(void)habit_try_round(&habit, 1);
		limit_image(&habit, 0);
		limit_raise();
	}
	habit_round(&habit, 2);
	limit_image(&habit, 1);
	habit_close(&habit);
}

/* The kernel makes no private memory writable beyond RLIMIT_DATA, so that what is armed stays so, as the header says:
 * the writer gets its signal. */
static int limit_is_fatal(void)
{
	return limits[limit_index].resource == RLIMIT_DATA && limit_moment == DURING_SNAPSHOT &&
	       limit_case.mechanism == UFFDWP_MECHANISM_MPROTECT && limit_case.memory == UFFDWP_MEMORY_ANON;
}

START_TEST(test_a_program_under_a_limit)
{
	char folder[SCRATCH_PATH];
	limit_index = _i;
	scratch_folder(folder);
	scratch_join(limit_path, folder, "image");
	for (int i = 0; i < HABIT_SMALL_CASES; i++) {
		limit_case = habit_case(i);
		if (!habit_possible(limit_case) || (habit_factor() == 1 && (i + _i) % 4 != 0)) {
			continue;
		}
		for (limit_moment = BEFORE_OPEN; limit_moment < MOMENTS; limit_moment++) {
			fprintf(stderr, "%s, %s, moment %d\n", habit_name(limit_case), limits[_i].name,
			        (int)limit_moment);
			must(habit_child(limit_run, NULL) == (limit_is_fatal() ? SIGSEGV : 0));
		}
	}
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("limits");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_a_program_under_a_limit, 0, LIMITS);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
