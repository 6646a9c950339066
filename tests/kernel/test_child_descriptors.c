/* SPDX-License-Identifier: MIT */
/*
 * Children of uffdwp_fork() where the parent lacks descriptors just when it opens what it breaks pages off by: by a
 * kernel that says so some times, and with another thread that takes each number as soon as it is free, as an accept(2)
 * at the limit does. No child is ended for what is over a moment later.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/kernel.h"
#include "pace.h"
#include "place.h"
#include "support.h"
#include "watchdog.h"

#define PAGES 16
#define HANG_SECONDS 10
#define THIEF_HELD 64

/* Exit codes of children that are right and wrong. */
#define RIGHT 7
#define WRONG 9

static struct place place;
static _Atomic int *go; /* shared with the child: its parent has written */

static void open_place(const struct kernel_ops *k)
{
	ck_assert_int_eq(place_try(&place, k, 0, place_any(UFFDWP_MEMORY_SHMEM), PAGES), 0);
	go = mmap(NULL, sizeof(*go), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne((void *)go, MAP_FAILED);
	watchdog_listen();
	pace_alarm(HANG_SECONDS);
}

static void end_place(void)
{
	pace_alarm(0);
	place_close(&place);
}

static void child_looks(void)
{
	while (!atomic_load(go)) {
		sleep_us(200);
	}
	for (size_t at = 0; at < place.length_bytes; at++) {
		if (place.base[at] != 1) {
			_exit(WRONG);
		}
	}
	_exit(RIGHT);
}

/* The child's wait status; or -EMFILE: there is none. */
static int fork_and_write(const struct uffdwp_fork_options *options, struct uffdwp_child **child)
{
	char text[512] = "";
	int status = 0;
	memset(place.base, 1, place.length_bytes);
	atomic_store(go, 0);
	pid_t pid = uffdwp_fork(place.runtime, options, child);
	if (pid == 0) {
		child_looks();
	}
	if (pid == -EMFILE) {
		return pid;
	}
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, text);
	memset(place.base, 2, place.length_bytes);
	atomic_store(go, 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/* --- a kernel that says so ---------------------------------------------------------------------------------------- */

static struct kernel_ops few;
static _Atomic int refusals; /* that are left */

static int openat_few(int folder, const char *path, int flags, unsigned mode)
{
	const char *name = strrchr(path, '/');
	if (name != NULL && path[0] >= '1' && path[0] <= '9' &&
	    (strcmp(name, "/pagemap") == 0 || strcmp(name, "/maps") == 0) && atomic_fetch_sub(&refusals, 1) > 0) {
		return -EMFILE;
	}
	return kernel_real.openat(folder, path, flags, mode);
}

START_TEST(test_a_parent_tries_again_for_a_descriptor)
{
	static const int times[] = {1, 2, 9, 40};
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_child *child = NULL;
	options.flags = _i ? UFFDWP_FORK_BARE : 0;
	few = kernel_real;
	few.openat = openat_few;
	open_place(&few);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		atomic_store(&refusals, times[i]);
		ck_assert_int_eq(fork_and_write(&options, &child), RIGHT << 8);
		ck_assert_int_le(atomic_load(&refusals), 0);
		ck_assert_int_eq(uffdwp_child_free(child), 0);
	}
	end_place();
}
END_TEST

/* Within a bound: then the child is ended, and writers go on. */
START_TEST(test_a_parent_without_descriptors_ends_its_child)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	struct uffdwp_child *child = NULL;
	options.flags = _i ? UFFDWP_FORK_BARE : 0;
	few = kernel_real;
	few.openat = openat_few;
	open_place(&few);
	atomic_store(&refusals, 1000000);
	ck_assert_int_eq(fork_and_write(&options, &child), SIGKILL);
	ck_assert_int_eq(uffdwp_child_info(child, &info), 0);
	ck_assert_int_eq(info.error, -EMFILE);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	end_place();
}
END_TEST

/* --- a thread that takes what is free ----------------------------------------------------------------------------- */

static _Atomic int thief_runs;
static _Atomic int thief_is_full;
static _Atomic int thief_ends;
static _Atomic unsigned stolen;

/* Takes all that is free, keeps that, and what it gets later for a moment. */
static void steal(void)
{
	int held[THIEF_HELD];
	size_t count = 0;
	while (atomic_load(&thief_runs)) {
		int fd = dup(STDIN_FILENO);
		if (fd < 0) {
			atomic_store(&thief_is_full, 1);
		} else if (!atomic_load(&thief_is_full)) {
			must(count < THIEF_HELD);
			held[count++] = fd;
		} else {
			atomic_fetch_add(&stolen, 1);
			sleep_us(1000);
			must(close(fd) == 0);
		}
	}
	while (count > 0) {
		must(close(held[--count]) == 0);
	}
	atomic_store(&thief_is_full, 0);
}

static void *steal_again(void *unused)
{
	while (!atomic_load(&thief_ends)) {
		steal();
		sleep_us(100);
	}
	return unused;
}

/* What the call itself needs it has by now. */
static int let_thief_run(void *unused)
{
	(void)unused;
	atomic_store(&thief_runs, 1);
	while (!atomic_load(&thief_is_full)) {
		sleep_us(50);
	}
	return 0;
}

static void leave_nothing(void *unused)
{
	(void)unused;
}

static void lower_limit(void)
{
	struct rlimit limit;
	int fd = dup(STDIN_FILENO);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(close(fd), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)fd + THIEF_HELD / 2;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

START_TEST(test_no_child_is_ended_at_the_limit)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_child *child = NULL;
	unsigned forks = support_rounds(50, 1000);
	unsigned killed = 0;
	options.flags = _i ? UFFDWP_FORK_BARE : 0;
	open_place(NULL);
	ck_assert_int_eq(fork_and_write(&options, &child), RIGHT << 8); /* what is tried once is tried */
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	lower_limit();
	options.cut_enter = let_thief_run;
	options.cut_leave = leave_nothing;
	pthread_t thief = thread_start(steal_again, NULL);
	for (unsigned i = 0; i < forks; i++) {
		int status = fork_and_write(&options, &child);
		atomic_store(&thief_runs, 0);
		while (atomic_load(&thief_is_full)) {
			sleep_us(50);
		}
		ck_assert_msg(status == RIGHT << 8 || status == SIGKILL, "status %#x", (unsigned)status);
		killed += status == SIGKILL;
		ck_assert_int_eq(uffdwp_child_free(child), 0);
		pace_alarm(HANG_SECONDS);
	}
	atomic_store(&thief_ends, 1);
	thread_join(thief);
	printf("%u numbers were taken from %u forks\n", atomic_load(&stolen), forks);
	ck_assert_msg(killed == 0, "%u children of %u were ended by SIGKILL", killed, forks);
	end_place();
}
END_TEST

int main(void)
{
	support_begin("test_child_descriptors", &(struct support_needs){0, 0});
	place_begin();
	if (!place_has_children()) {
		return support_skip(PLACE_NO_CHILDREN);
	}
	Suite *suite = suite_create("child_descriptors");
	TCase *tests = tcase_create("child_descriptors");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, test_a_parent_tries_again_for_a_descriptor, 0, 2);
	tcase_add_loop_test(tests, test_a_parent_without_descriptors_ends_its_child, 0, 2);
	tcase_add_loop_test(tests, test_no_child_is_ended_at_the_limit, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
