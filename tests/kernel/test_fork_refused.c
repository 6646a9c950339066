/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp-fork.so where something is refused: by limits and filters that the program sets itself, and by those that
 * it is started with. Whatever is not possible, the program runs on as without it.
 */
#include <locale.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "pace.h"
#include "test_fork_preload.h"
#include "test_fork_run.h"

/* ------------------------------------------------------------------------------------------------------- roles -- */

static void refuse_call(int call)
{
	must(filter_call(call, filter_errno(EPERM)) == 0);
}

struct limit {
	int what;
	rlim_t value;
};

/* By number: C libraries differ in the type of setrlimit(2)'s first parameter. */
static long limit_change(int what, const struct rlimit *to, struct rlimit *before)
{
	return syscall(SYS_prlimit64, 0, what, to, before);
}

static void fork_under(const struct limit *limit, unsigned char *heap, const _Atomic uint64_t *count)
{
	struct rlimit before;
	struct rlimit low;
	pid_t child;

	must(limit_change(limit->what, NULL, &before) == 0);
	low = (struct rlimit){limit->value, before.rlim_max};
	must(limit_change(limit->what, &low, NULL) == 0);
	fork_and_change(heap);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		must(*count == shadow_count[0] || *count == shadow_count[0] + 1);
		_exit(0);
	}
	await_right(child);
	must(limit_change(limit->what, &before, NULL) == 0);
}

/* No descriptor is left, and less address space than the region has; with another thread that writes to the heap. */
static void role_limits(void)
{
	static const struct limit limits[] = {{RLIMIT_NOFILE, 0}, {RLIMIT_NOFILE, 3}, {RLIMIT_AS, (rlim_t)1 << 30}};
	_Atomic uint64_t *count = calloc(1, 1 * MIB);
	pthread_t thread = thread_start(count_for_ever, count);
	unsigned char *heap = fill_heap();

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		fork_under(&limits[i], heap, count);
	atomic_store(&writers_end, 1);
	thread_join(thread);
	free(heap);
}

static void role_no_mmap(void)
{
	unsigned char *heap = fill_heap();

	refuse_call(SYS_mmap);
	fork_and_change(heap);
	free(heap);
}

/* What no fork can do has the error of fork(2). The allocator's locks are held while the library says why: in this
 * locale glibc's strerror(3) allocates memory. */
static void role_no_clone(void)
{
	unsigned char *heap = fill_heap();

	must(setenv("LANGUAGE", "de", 1) == 0);
	(void)setlocale(LC_ALL, "C.UTF-8");
	refuse_call(SYS_clone);
	must(fork() == -1 && errno == EPERM);
	free(heap);
}

/* Once for a child, whatever it forks itself. */
static void role_nice(void)
{
	unsigned char *heap = fill_heap();
	int before = getpriority(PRIO_PROCESS, 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(getpriority(PRIO_PROCESS, 0) == before + 3);
		pid_t next = fork();

		must(next >= 0);
		if (next == 0)
			_exit(getpriority(PRIO_PROCESS, 0) != before + 3);
		await_right(next);
		_exit(0);
	}
	await_right(child);
	must(getpriority(PRIO_PROCESS, 0) == before);
	free(heap);
}

static int next_descriptor(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && close(fd) == 0);
	return fd;
}

/* Low numbers of descriptors are the program's, in a child and in that of it, and in a parent that has a child. */
static void role_descriptors(void)
{
	unsigned char *heap = fill_heap();
	int first = next_descriptor();
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(next_descriptor() == first);
		pid_t next = fork();

		must(next >= 0);
		if (next == 0)
			_exit(next_descriptor() != first);
		await_right(next);
		usleep(20000);
		_exit(0);
	}
	memset(heap, 1, 8 * MIB);
	must(next_descriptor() == first);
	await_right(child);
	free(heap);
}

static void role_few(void)
{
	struct rlimit limit;

	must(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 100);
	role_descriptors();
}

static const struct role refused_roles[] = {
        {"descriptors", role_descriptors}, {"few", role_few},           {"limits", role_limits},
        {"no_mmap", role_no_mmap},         {"no_clone", role_no_clone}, {"nice", role_nice},
};

/* ------------------------------------------------------------------------------------------------------- tests -- */

static void has_copied(void)
{
	is_right();
	ck_assert_msg(strstr(outcome.text, "forks by copying its memory"), "%s", outcome.text);
}

START_TEST(test_a_program_forks_under_limits_of_its_own)
{
	RUN("--", self, "--role", "limits");
	has_copied();
}
END_TEST

START_TEST(test_a_program_forks_that_may_not_map)
{
	RUN("--", self, "--role", "no_mmap");
	has_copied();
}
END_TEST

START_TEST(test_what_fork_refuses_is_refused)
{
	RUN("--", self, "--role", "no_clone");
	is_right();
}
END_TEST

static void kill_for_userfaultfd(void)
{
	must(filter_call(SYS_userfaultfd, SECCOMP_RET_KILL_PROCESS) == 0);
}

static void trap_for_memfd(void)
{
	must(filter_call(SYS_memfd_create, SECCOMP_RET_TRAP) == 0);
}

static void is_plain(const char *reason)
{
	ck_assert_msg(outcome.status == 0, "wait status %#x: %s", (unsigned)outcome.status, outcome.text);
	ck_assert_msg(strstr(outcome.text, "runs without it") && strstr(outcome.text, reason), "%s", outcome.text);
}

START_TEST(test_a_filter_that_kills_ends_no_program)
{
	run_before = kill_for_userfaultfd;
	RUN("--", self, "--role", "handlers");
	is_plain("a seccomp filter here ends a process that calls userfaultfd");
	run_before = trap_for_memfd;
	RUN("--", self, "--role", "handlers");
	is_plain("a seccomp filter here ends a process that calls memfd_create");
	RUN("--check", "--", self);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 1);
	ck_assert_msg(strstr(outcome.text, "calls memfd_create"), "%s", outcome.text);
}
END_TEST

static void lose_memfd(void)
{
	must(filter_call(SYS_memfd_create, filter_errno(ENOSYS)) == 0);
}

static void lose_mremap(void)
{
	refuse_call(SYS_mremap);
}

static void lose_proc(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    umount2("/proc", MNT_DETACH) != 0)
		_exit(RUN_MISSING);
}

static void lose_rights(void)
{
	must(chdir("/") == 0 && setgid(65534) == 0 && setuid(65534) == 0);
	if (access(program, X_OK) != 0 || access(self, X_OK) != 0)
		_exit(RUN_MISSING);
}

/* 1, which is said: run_before found that it is not possible. */
static int was_missing(const char *test, const char *reason)
{
	int is = WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == RUN_MISSING;

	if (is)
		support_note(test, reason);
	return is;
}

START_TEST(test_a_refusal_is_named)
{
	run_before = lose_memfd;
	RUN("--", self, "--role", "handlers");
	is_plain("memfd_create(2) is refused");
	run_before = lose_mremap;
	RUN("--", self, "--role", "handlers");
	is_plain("mremap(2)");
	if (geteuid() != 0)
		return;
	run_before = lose_proc;
	RUN("--", self, "--role", "handlers");
	if (!was_missing(__func__, "/proc cannot be taken away from a program here"))
		is_plain("/proc/self/task is not there");
}
END_TEST

START_TEST(test_inline_needs_no_right_and_check_says_what_happens)
{
	int checked;

	if (!support_may_change_user())
		return;
	run_before = lose_rights;
	RUN("--verbose", "--delivery=inline", "--", self, "--role", "handlers");
	if (was_missing(__func__, "another user, which may not run what was built here"))
		return;
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
	RUN("--check", "--", self);
	checked = WEXITSTATUS(outcome.status);
	RUN("--", self, "--role", "handlers");
	ck_assert_msg(checked == !!strstr(outcome.text, "runs without it"), "%d: %s", checked, outcome.text);
}
END_TEST

START_TEST(test_a_heap_that_is_not_covered_is_named)
{
	RUN("--check", "--malloc=none", "--", self);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 1);
	ck_assert_msg(strstr(outcome.text, "nothing that malloc() gives is covered"), "%s", outcome.text);
	RUN("--verbose", "--malloc=none", "--", self, "--role", "handlers");
	is_right();
	ck_assert_msg(strstr(outcome.text, "covers no memory of malloc"), "%s", outcome.text);
}
END_TEST

static void lower_limit(void)
{
	must(setrlimit(RLIMIT_NOFILE, &(struct rlimit){100, 100}) == 0);
}

START_TEST(test_low_descriptors_are_the_programs)
{
	RUN("--", self, "--role", "descriptors");
	is_right();
	run_before = lower_limit;
	RUN("--verbose", "--", self, "--role", "few");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
}
END_TEST

START_TEST(test_children_are_as_nice_as_asked)
{
	RUN("--verbose", "--nice=3", "--", self, "--role", "nice");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
	RUN("--nice=20", "--", self, "--role", "nice");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	ck_assert_msg(strstr(outcome.text, "--nice takes a number from 0 to 19, not '20'"), "%s", outcome.text);
}
END_TEST

static Suite *fork_refused_suite(void)
{
	Suite *suite = suite_create("fork_refused");
	TCase *tcase = tcase_create("refused");

	tcase_set_timeout(tcase, pace_seconds(60));
	tcase_add_test(tcase, test_a_program_forks_under_limits_of_its_own);
	tcase_add_test(tcase, test_a_program_forks_that_may_not_map);
	tcase_add_test(tcase, test_what_fork_refuses_is_refused);
	tcase_add_test(tcase, test_children_are_as_nice_as_asked);
	tcase_add_test(tcase, test_a_filter_that_kills_ends_no_program);
	tcase_add_test(tcase, test_a_refusal_is_named);
	tcase_add_test(tcase, test_inline_needs_no_right_and_check_says_what_happens);
	tcase_add_test(tcase, test_a_heap_that_is_not_covered_is_named);
	tcase_add_test(tcase, test_low_descriptors_are_the_programs);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--role") == 0)
		return play_role(argv[2]) &&
		       play_role_of(refused_roles, sizeof(refused_roles) / sizeof(refused_roles[0]), argv[2]);
	support_begin(TEST_NAME, &(struct support_needs){.swap = 0});
	const char *lacks = run_init();

	return lacks ? support_skip(lacks) : support_run(fork_refused_suite());
}
