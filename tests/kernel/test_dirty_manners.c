/* SPDX-License-Identifier: MIT */
/*
 * The manners of uffdwp-ctl dirty: the program that it runs finds nothing changed, gets its signals, ends as it ends,
 * and is refused before it runs where it cannot be tracked.
 */
#include <dirent.h>
#include <elf.h>
#include <signal.h>

#include "filter.h"
#include "test_dirty.h"

/* ----------------------------------------------------------------------------------------------------- the roles -- */

/* All that a program can find out about itself that must not differ. */
static void role_describes(void)
{
	static const char *const wanted[] = {"Threads", "SigPnd", "SigBlk",     "SigIgn",  "SigCgt", "Shd",
	                                     "Cap",     "NSpid",  "NoNewPrivs", "Seccomp", "Groups"};
	FILE *status = fopen("/proc/self/status", "re");
	struct dirent *entry;
	char line[512];
	DIR *fds;

	for (char **variable = environ; *variable; variable++) {
		puts(*variable);
	}
	must(status != NULL);
	while (fgets(line, sizeof(line), status)) {
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0 && strncmp(line, "NSpid", 5) != 0) {
				fputs(line, stdout);
			}
		}
	}
	fclose(status);
	fds = opendir("/proc/self/fd");
	while ((entry = readdir(fds))) {
		puts(entry->d_name);
	}
	closedir(fds);
	printf("group %d\n", getpgrp() == getpgid(getppid()));
	printf("children %d\n", waitpid(-1, NULL, WNOHANG | __WALL));
	for (int signal = 1; signal < 32; signal++) {
		struct sigaction action;

		if (sigaction(signal, NULL, &action) == 0) {
			printf("signal %d %d\n", signal, action.sa_handler == SIG_DFL);
		}
	}
}

static void role_echoes(void)
{
	char buffer[4096];
	ssize_t length;

	while ((length = read(STDIN_FILENO, buffer, sizeof(buffer))) > 0) {
		must(write(STDOUT_FILENO, buffer, (size_t)length) == length);
		must(write(STDERR_FILENO, buffer, (size_t)length) == length);
	}
	exit(42);
}

/* Prints which signals came, until SIGTERM. */
static void role_listens(void)
{
	sigset_t set;
	siginfo_t info;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	puts("ready");
	fflush(stdout);
	do {
		must(sigwaitinfo(&set, &info) > 0);
		printf("%d %d\n", info.si_signo, info.si_code == SI_QUEUE ? info.si_value.sival_int : 0);
		fflush(stdout);
	} while (info.si_signo != SIGTERM);
	exit(7);
}

/* Writes until its stdin is written to. */
static void role_lasts(void)
{
	char *memory = new_memory("school", MAP_SHARED);
	char byte;

	write_round(memory);
	await_look(memory);
	puts("ready");
	fflush(stdout);
	must(read(STDIN_FILENO, &byte, 1) == 1);
	write_round(memory);
	printf("%d\n", memory[0]);
	fflush(stdout);
	exit(0);
}

static const struct role roles[] = {
        {"describes", role_describes},
        {"echoes", role_echoes},
        {"listens", role_listens},
        {"lasts", role_lasts},
};

/* ------------------------------------------------------------------------------------------------ what it leaves -- */

static void ignore_hangup(void)
{
	sigset_t set;

	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	setenv("LD_PRELOAD", "libm.so.6", 1);
}

START_TEST(test_program_finds_nothing_of_us)
{
	const char *bare[] = {self, "--role", "describes", NULL};
	const char *observed[] = {program, "dirty", "-q", "--", self, "--role", "describes", NULL};
	static char expected[OUTPUT_BYTES];

	run(bare, "", ignore_hangup);
	memcpy(expected, outcome.out, sizeof(expected));
	run(observed, "", ignore_hangup);
	ck_assert_str_eq(outcome.out, expected);
	ck_assert_ptr_nonnull(strstr(outcome.out, "\nThreads:\t1\n"));
	ck_assert_ptr_nonnull(strstr(outcome.out, "LD_PRELOAD=libm.so.6\n"));
}
END_TEST

START_TEST(test_input_output_and_exit_status_pass_through)
{
	const char *observed[] = {program, "dirty", "-q", "--", self, "--role", "echoes", NULL};

	run(observed, "one\ntwo\n", NULL);
	ck_assert_str_eq(outcome.out, "one\ntwo\n");
	ck_assert_str_eq(outcome.err, "one\ntwo\n");
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 42);
}
END_TEST

START_TEST(test_summary_comes_after_what_the_program_says)
{
	const char *observed[] = {program, "dirty", "--", self, "--role", "echoes", NULL};

	run(observed, "one\n", NULL);
	ck_assert_str_eq(outcome.out, "one\n");
	ck_assert_int_eq(strncmp(outcome.err, "one\npages written by: ", 22), 0);
	ck_assert_ptr_nonnull(strstr(outcome.err, "\nIncrements:"));
	for (const char *line = outcome.err; *line; line += strcspn(line, "\n") + 1) {
		ck_assert_msg(strcspn(line, "\n") <= 80, "a line of %zu: %s", strcspn(line, "\n"), line);
	}
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- signals -- */

/* A program under observation that talks by pipes. */
struct talk {
	pid_t tool;
	int to;
	FILE *from;
};

static struct talk begin_talk(const char *role)
{
	const char *arguments[] = {program,      "dirty", "-q", "-i",     "20ms", "--json",
	                           outcome.json, "--",    self, "--role", role,   NULL};
	struct talk talk;
	int to[2];
	int from[2];

	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
	talk.tool = fork();
	ck_assert_int_ge(talk.tool, 0);
	if (talk.tool == 0) {
		must(dup2(to[0], STDIN_FILENO) == STDIN_FILENO && dup2(from[1], STDOUT_FILENO) == STDOUT_FILENO);
		execv(program, (char **)(uintptr_t)arguments);
		_exit(126);
	}
	close(to[0]);
	close(from[1]);
	talk.to = to[1];
	talk.from = fdopen(from[0], "r");
	return talk;
}

static void expect_line(const struct talk *talk, const char *expected)
{
	char line[128] = "";

	ck_assert_msg(fgets(line, sizeof(line), talk->from) != NULL, "no line where '%s' was expected", expected);
	line[strcspn(line, "\n")] = '\0';
	ck_assert_str_eq(line, expected);
}

START_TEST(test_signals_that_come_to_us_reach_the_program)
{
	static const int sent[] = {SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGWINCH, SIGALRM};
	union sigval value = {.sival_int = 1234};
	struct talk talk;
	char line[32];
	int status;

	new_folder();
	talk = begin_talk("listens");
	expect_line(&talk, "ready");
	for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
		ck_assert_int_eq(kill(talk.tool, sent[i]), 0);
		(void)snprintf(line, sizeof(line), "%d 0", sent[i]);
		expect_line(&talk, line);
	}
	ck_assert_int_eq(sigqueue(talk.tool, SIGRTMIN + 1, value), 0);
	(void)snprintf(line, sizeof(line), "%d 1234", SIGRTMIN + 1);
	expect_line(&talk, line);
	ck_assert_int_eq(kill(talk.tool, SIGTERM), 0);
	(void)snprintf(line, sizeof(line), "%d 0", SIGTERM);
	expect_line(&talk, line);
	ck_assert_int_eq(waitpid(talk.tool, &status, 0), talk.tool);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
}
END_TEST

START_TEST(test_stop_and_continue_reach_the_program_and_a_shell)
{
	struct talk talk;
	int status;

	new_folder();
	talk = begin_talk("lasts");
	expect_line(&talk, "ready");
	ck_assert_int_eq(kill(talk.tool, SIGTSTP), 0);
	ck_assert_int_eq(waitpid(talk.tool, &status, WUNTRACED), talk.tool);
	ck_assert(WIFSTOPPED(status));
	ck_assert_int_eq(kill(talk.tool, SIGCONT), 0);
	ck_assert_int_eq(write(talk.to, "x", 1), 1);
	expect_line(&talk, "2");
	ck_assert_int_eq(waitpid(talk.tool, &status, 0), talk.tool);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(test_program_lives_on_when_we_are_killed)
{
	struct talk talk;
	int status;

	new_folder();
	talk = begin_talk("lasts");
	expect_line(&talk, "ready");
	ck_assert_int_eq(kill(talk.tool, SIGKILL), 0);
	ck_assert_int_eq(waitpid(talk.tool, &status, 0), talk.tool);
	ck_assert_int_eq(write(talk.to, "x", 1), 1);
	expect_line(&talk, "2");
	/* The end of the pipe: program and holder are gone. */
	ck_assert_int_eq(fgetc(talk.from), EOF);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ refusals -- */

static void expect_refusal(const char *file, int code, const char *reported)
{
	const char *arguments[] = {program, "dirty", "--", file, NULL};

	run(arguments, "", NULL);
	ck_assert_msg(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == code, "%s: status %x, %s", file,
	              (unsigned)outcome.status, outcome.err);
	ck_assert_str_eq(outcome.out, "");
	ck_assert_msg(strstr(outcome.err, reported) != NULL, "'%s' is not in: %s", reported, outcome.err);
}

/* A copy of this program, with its header changed. */
static void copy_self(char path[SCRATCH_PATH], const char *name, void (*change)(Elf64_Ehdr *elf))
{
	int from = open(self, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *bytes;

	scratch_join(path, outcome.folder, name);
	ck_assert(from >= 0 && fstat(from, &st) == 0);
	bytes = malloc((size_t)st.st_size);
	ck_assert(bytes && read(from, bytes, (size_t)st.st_size) == st.st_size);
	close(from);
	if (change) {
		change((Elf64_Ehdr *)(void *)bytes);
	}
	scratch_write(path, bytes, (size_t)st.st_size);
	free(bytes);
	ck_assert_int_eq(chmod(path, 0755), 0);
}

static void make_static(Elf64_Ehdr *elf)
{
	Elf64_Phdr *segments = (Elf64_Phdr *)(void *)((char *)elf + elf->e_phoff);

	for (unsigned i = 0; i < elf->e_phnum; i++) {
		if (segments[i].p_type == PT_INTERP) {
			segments[i].p_type = PT_NULL;
		}
	}
}

static void make_foreign(Elf64_Ehdr *elf)
{
	elf->e_machine = elf->e_machine == EM_S390 ? EM_X86_64 : EM_S390;
}

static void make_small(Elf64_Ehdr *elf)
{
	elf->e_ident[EI_CLASS] = ELFCLASS32;
}

START_TEST(test_program_that_cannot_be_tracked_is_refused_before_it_runs)
{
	char path[SCRATCH_PATH];
	char script[SCRATCH_PATH];
	char text[SCRATCH_PATH + 8];

	copy_self(path, "static", make_static);
	expect_refusal(path, 125, "statically");
	scratch_join(script, outcome.folder, "script");
	(void)snprintf(text, sizeof(text), "#! %s\n", path);
	scratch_write(script, text, strlen(text));
	ck_assert_int_eq(chmod(script, 0755), 0);
	expect_refusal(script, 125, "statically");
	copy_self(path, "foreign", make_foreign);
	expect_refusal(path, 125, "another machine");
	copy_self(path, "small", make_small);
	expect_refusal(path, 125, "another machine");
	expect_refusal("/no/such/program", 127, "no such program");
	expect_refusal("no-such-program-anywhere", 127, "no such program");
	expect_refusal(outcome.folder, 126, "not an executable");
}
END_TEST

START_TEST(test_program_that_gets_other_rights_is_refused)
{
	char path[SCRATCH_PATH];

	if (!support_may_change_user()) {
		support_note(__func__, "only root can make a file of another user");
		return;
	}
	copy_self(path, "rights", NULL);
	ck_assert_int_eq(chown(path, 65534, 65534), 0);
	ck_assert_int_eq(chmod(path, 04755), 0);
	expect_refusal(path, 125, "other rights");
}
END_TEST

static void refuse_uffd(void)
{
	must(filter_userfaultfd(EPERM) == 0);
}

START_TEST(test_userfaultfd_that_is_refused_is_reported_and_nothing_runs)
{
	const char *arguments[] = {program, "dirty", "--json", outcome.json, "--", "/bin/echo", "here", NULL};

	run(arguments, "", refuse_uffd);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	ck_assert_str_eq(outcome.out, "");
	ck_assert_ptr_nonnull(strstr(outcome.err, "uffdwp-ctl doctor"));
	ck_assert_int_eq(access(outcome.json, F_OK), -1);
}
END_TEST

START_TEST(test_report_that_cannot_be_written_is_an_error)
{
	const char *early[] = {program, "dirty", "--svg", "/no/such/folder/x", "--", "/bin/echo", "here", NULL};
	const char *late[] = {program, "dirty", "-q", "--svg", "/dev/full", "--", "/bin/echo", "here", NULL};
	const char *failing[] = {program, "dirty", "-q", "--svg", "/dev/full", "--", "/bin/sh", "-c", "exit 3", NULL};

	run(early, "", NULL);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	ck_assert_str_eq(outcome.out, "");
	run(late, "", NULL);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	ck_assert_str_eq(outcome.out, "here\n");
	ck_assert_ptr_nonnull(strstr(outcome.err, "/dev/full"));
	run(failing, "", NULL);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 3);
}
END_TEST

START_TEST(test_command_line_that_is_not_understood_ends_with_125)
{
	static const char *const cases[][5] = {{"--interval=1ms", "--", "true"},
	                                       {"--interval=fast", "--", "true"},
	                                       {"--live=maybe", "--", "true"},
	                                       {"--heat", "--", "true"},
	                                       {"--"}};
	const char *arguments[ARGUMENTS] = {program, "dirty"};

	for (size_t i = 0; i < 5; i++) {
		arguments[2 + i] = cases[_i][i];
	}
	run(arguments, "", NULL);
	ck_assert_int_eq(WEXITSTATUS(outcome.status), 125);
	ck_assert_str_eq(outcome.out, "");
	ck_assert_ptr_nonnull(strstr(outcome.err, "--help"));
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------- main -- */

static void add_tests(TCase *tests)
{
	tcase_add_test(tests, test_program_finds_nothing_of_us);
	tcase_add_test(tests, test_input_output_and_exit_status_pass_through);
	tcase_add_test(tests, test_summary_comes_after_what_the_program_says);
	tcase_add_test(tests, test_signals_that_come_to_us_reach_the_program);
	tcase_add_test(tests, test_stop_and_continue_reach_the_program_and_a_shell);
	tcase_add_test(tests, test_program_lives_on_when_we_are_killed);
	tcase_add_test(tests, test_program_that_cannot_be_tracked_is_refused_before_it_runs);
	tcase_add_test(tests, test_program_that_gets_other_rights_is_refused);
	tcase_add_test(tests, test_userfaultfd_that_is_refused_is_reported_and_nothing_runs);
	tcase_add_test(tests, test_report_that_cannot_be_written_is_an_error);
	tcase_add_loop_test(tests, test_command_line_that_is_not_understood_ends_with_125, 0, 5);
}

int main(int argc, char **argv)
{
	int code;

	find_self();
	if (argc == 3 && strcmp(argv[1], "--role") == 0) {
		return play(roles, sizeof(roles) / sizeof(roles[0]), argv[2]);
	}
	code = dirty_begin("test_dirty_manners");
	if (code) {
		return code;
	}
	Suite *suite = suite_create("dirty_manners");
	TCase *tests = tcase_create("dirty_manners");

	tcase_set_timeout(tests, TIME_LIMIT_S * 2);
	tcase_add_checked_fixture(tests, new_folder, NULL);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
