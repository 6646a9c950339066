/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp-fork.so in programs that were not changed: children have one instant of the heap and of all else, memory
 * calls mean what they mean to the kernel, and what cannot be done is done as without it.
 */
#include <linux/capability.h>
#include <sys/prctl.h>

#include "test_fork_preload.h"

#include "pace.h"
#include "test_fork_run.h"

START_TEST(test_a_child_has_one_instant_while_threads_allocate)
{
	ck_assert_int_eq(setenv("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0,narenas:2", 1), 0);
	RUN("--", self, "--role", "shadow");
	is_right();
}
END_TEST

START_TEST(test_so_it_has_when_the_allocator_unmaps)
{
	ck_assert_int_eq(setenv("MALLOC_CONF", "dirty_decay_ms:0,retain:false,tcache:false", 1), 0);
	RUN("--", self, "--role", "shadow");
	is_right();
}
END_TEST

START_TEST(test_so_it_has_with_other_allocators)
{
	static const char *const options[] = {"--malloc=mimalloc", "--malloc=tcmalloc"};

	for (size_t i = 0; i < 2; i++) {
		RUN(options[i], "--", self, "--role", "shadow");
		if (strstr(outcome.text, "finds no library"))
			support_note(options[i], "it is not installed");
		else
			is_right();
	}
}
END_TEST

START_TEST(test_memory_calls_mean_what_they_mean_to_the_kernel)
{
	RUN("--from=all", "--", self, "--role", "calls");
	is_right();
	RUN("--malloc=none", "--", self, "--role", "calls");
	is_right();
}
END_TEST

START_TEST(test_handlers_run_in_their_order)
{
	RUN("--", self, "--role", "handlers");
	is_right();
	RUN("--malloc=none", "--", self, "--role", "handlers");
	is_right();
}
END_TEST

START_TEST(test_a_child_uses_a_stream_that_another_thread_had_locked)
{
	RUN("--", self, "--role", "streams");
	is_right();
}
END_TEST

/* With another allocator, and with its own. */
START_TEST(test_the_c_library_does_in_a_child_what_it_does)
{
	static const char *const roles_of_this[] = {"setxid", "mainexit", "timer", "faults"};

	for (size_t i = 0; i < 4; i++) {
		RUN("--", self, "--role", roles_of_this[i]);
		is_right();
		RUN("--malloc=none", "--", self, "--role", roles_of_this[i]);
		is_right();
	}
}
END_TEST

START_TEST(test_other_processes_begin_as_ever)
{
	RUN("--", self, "--role", "others");
	is_right();
}
END_TEST

START_TEST(test_system_calls_write_into_the_heap_while_a_child_lives)
{
	RUN("--", self, "--role", "reads");
	is_right();
}
END_TEST

START_TEST(test_more_children_than_a_region_may_have_are_right)
{
	RUN("--", self, "--role", "many");
	is_right();
	ck_assert_msg(strstr(outcome.text, "forks by copying its memory"), "%s", outcome.text);
}
END_TEST

START_TEST(test_a_program_that_gave_up_rights_has_right_children)
{
	static const char *const roles_of_this[] = {"user", "chroot", "closes"};

	for (size_t i = 0; i < 3; i++) {
		RUN("--", self, "--role", roles_of_this[i]);
		is_right();
	}
}
END_TEST

/* None of its children is killed. */
START_TEST(test_a_program_in_a_sandbox_of_its_own_forks_by_copies)
{
	static const char *const roles_of_this[] = {"landlock", "ownfiles", "noopen", "noremap", "nowrite"};

	for (size_t i = 0; i < 5; i++) {
		RUN("--", self, "--role", roles_of_this[i]);
		is_right();
		ck_assert_msg(strstr(outcome.text, "forks by copying its memory") || strstr(outcome.text, BOX_MISSING),
		              "%s: %s", roles_of_this[i], outcome.text);
	}
}
END_TEST

/* Where the program cannot trace what is not dumpable: it never has CAP_SYS_PTRACE. */
START_TEST(test_a_child_that_has_to_be_killed_is_announced)
{
	must(prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0) == 0 || errno == EPERM);
	RUN("--", self, "--role", "undump");
	is_right();
	ck_assert_msg(strstr(outcome.text, "by SIGKILL: its parent may not write to its memory"), "%s", outcome.text);
}
END_TEST

START_TEST(test_a_signal_handler_may_fork)
{
	RUN("--malloc=none", "--", self, "--role", "signal");
	is_right();
}
END_TEST

START_TEST(test_several_threads_fork_at_once)
{
	RUN("--", self, "--role", "crowd");
	is_right();
	RUN("--malloc=none", "--", self, "--role", "crowd");
	is_right();
}
END_TEST

START_TEST(test_a_daemon_begins_anew)
{
	RUN("--verbose", "--", self, "--role", "daemon");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
}
END_TEST

START_TEST(test_a_shell_with_many_forks_is_right)
{
	RUN("--from=all", "--", "/bin/sh", "-c",
	    "i=0; while [ $i -lt 300 ]; do (exit 3) & wait $! || i=$((i + 1)); done; exit 0");
	is_right();
	RUN("--follow", "--", "/bin/sh", "-c", "x=$(/bin/sh -c 'echo right | cat'); [ \"$x\" = right ]");
	is_right();
}
END_TEST

START_TEST(test_a_shell_is_left_alone)
{
	RUN("--", "/bin/sh", "-c", "grep -c uffdwp /proc/$$/maps; exit 7");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 7);
	ck_assert_msg(strstr(outcome.text, "is a shell") && strstr(outcome.text, "\n0\n"), "%s", outcome.text);
}
END_TEST

START_TEST(test_a_launcher_is_passed_through)
{
	RUN("--verbose", "--", "/usr/bin/env", "A=1", self, "--role", "handlers");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
}
END_TEST

START_TEST(test_python_forks)
{
	static const char script[] = "import os\n"
	                             "x = [bytes([i % 251]) * 4096 for i in range(20000)]\n"
	                             "for k in range(5):\n"
	                             "    pid = os.fork()\n"
	                             "    if pid == 0:\n"
	                             "        ok = all(x[i][7] == (i + k) % 251 for i in range(20000))\n"
	                             "        os._exit(0 if ok else 1)\n"
	                             "    for i in range(20000): x[i] = bytes([(i + k + 1) % 251]) * 4096\n"
	                             "    assert os.waitpid(pid, 0)[1] == 0\n";

	RUN("--", "/usr/bin/python3", "-c", script);
	if (strstr(outcome.text, "there is no such program"))
		support_note("python3", "it is not installed");
	else
		is_right();
}
END_TEST

/* Python's own tests of multiprocessing by fork: workers by the hundred, queues, managers, shared memory, threads. A
 * minute and a half. */
START_TEST(test_python_passes_its_own_tests_of_multiprocessing)
{
	RUN("--", "/usr/bin/python3", "-c", "import test.test_multiprocessing_fork");
	if (outcome.status) {
		support_note("python3's own tests", "their package (libpython3.11-testsuite) is not installed");
		return;
	}
	if (support_rounds(0, 1)) {
		RUN("--", "/usr/bin/python3", "-m", "test", "test_multiprocessing_fork", "test_fork1");
	} else {
		RUN("--", "/usr/bin/python3", "-m", "test", "test_multiprocessing_fork", "-m", "test_many_processes");
	}
	is_right();
}
END_TEST

START_TEST(test_what_cannot_be_run_so_is_refused)
{
	RUN("--", "/no/such/program");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 127);
	RUN("--malloc=/no/such/library.so", "--", "/bin/true");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	RUN("--capacity=many", "--", "/bin/true");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	RUN("--check", "--", "/bin/true");
	is_right();
	RUN("--capacity=1", "--", "/bin/sh", "-c", "exit 7");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 7);
}
END_TEST

static Suite *fork_preload_suite(void)
{
	Suite *suite = suite_create("fork_preload");
	TCase *tcase = tcase_create("preload");

	tcase_set_timeout(tcase, pace_seconds(60));
	tcase_add_test(tcase, test_a_child_has_one_instant_while_threads_allocate);
	tcase_add_test(tcase, test_so_it_has_when_the_allocator_unmaps);
	tcase_add_test(tcase, test_so_it_has_with_other_allocators);
	tcase_add_test(tcase, test_memory_calls_mean_what_they_mean_to_the_kernel);
	tcase_add_test(tcase, test_handlers_run_in_their_order);
	tcase_add_test(tcase, test_a_child_uses_a_stream_that_another_thread_had_locked);
	tcase_add_test(tcase, test_the_c_library_does_in_a_child_what_it_does);
	tcase_add_test(tcase, test_other_processes_begin_as_ever);
	tcase_add_test(tcase, test_system_calls_write_into_the_heap_while_a_child_lives);
	tcase_add_test(tcase, test_more_children_than_a_region_may_have_are_right);
	tcase_add_test(tcase, test_a_program_that_gave_up_rights_has_right_children);
	tcase_add_test(tcase, test_a_program_in_a_sandbox_of_its_own_forks_by_copies);
	tcase_add_test(tcase, test_a_child_that_has_to_be_killed_is_announced);
	tcase_add_test(tcase, test_a_signal_handler_may_fork);
	tcase_add_test(tcase, test_several_threads_fork_at_once);
	tcase_add_test(tcase, test_a_daemon_begins_anew);
	tcase_add_test(tcase, test_a_shell_with_many_forks_is_right);
	tcase_add_test(tcase, test_a_shell_is_left_alone);
	tcase_add_test(tcase, test_a_launcher_is_passed_through);
	tcase_add_test(tcase, test_python_forks);
	tcase_add_test(tcase, test_what_cannot_be_run_so_is_refused);
	suite_add_tcase(suite, tcase);
	tcase = tcase_create("long");
	tcase_set_timeout(tcase, pace_seconds(600));
	tcase_add_test(tcase, test_python_passes_its_own_tests_of_multiprocessing);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--role") == 0)
		return play_role(argv[2]);
	support_begin(TEST_NAME, &(struct support_needs){.swap = 0});
	const char *lacks = run_init();

	return lacks ? support_skip(lacks) : support_run(fork_preload_suite());
}
