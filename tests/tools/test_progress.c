/* SPDX-License-Identifier: MIT */
/*
 * How uffdwp-ctl shows how far it is (tools/uffdwp-ctl/progress.c), on a terminal that this program is the other side
 * of: what arrives there is the witness. A worker shows its progress until it is asked to end; it runs as a job of a
 * small shell, so that it can be stopped. Nothing here waits for a time: only for what the terminal gets.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "pace.h"
#include "progress.h"
#include "support.h"

#define MIB (1ull << 20)
#define SEEN_BYTES 65536
#define ERASE "\r\033[K"

/* ---- the worker, and its shell ---- */

struct setting {
	enum progress_mode mode;
	const char *term;
	int heeds;    /* the answer of progress_at() */
	int is_quick; /* ends at once */
	int ignored;  /* a signal; 0: none */
};

static int go[2];     /* ends when the worker is to end */
static int status[2]; /* what waitpid(2) says of the worker, each time */

static int worker_is_to_end(void)
{
	struct pollfd ready = {.fd = go[0], .events = POLLIN};
	return poll(&ready, 1, 2) != 0;
}

static void work(const struct setting *setting)
{
	struct progress progress;
	setenv("TERM", setting->term, 1);
	if (setting->ignored) {
		(void)signal(setting->ignored, SIG_IGN);
	}
	progress_begin(&progress, "verify", 100 * MIB, setting->mode);
	double begun_s = progress.begun_s;
	while (!setting->is_quick && !worker_is_to_end()) {
		if (progress_at(&progress, 42 * MIB) != 0 && setting->heeds) {
			break;
		}
	}
	(void)progress_at(&progress, progress_is_ended(&progress) ? 42 * MIB : 100 * MIB);
	progress_end(&progress);
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	_exit((double)now.tv_sec + (double)now.tv_nsec / 1e9 - begun_s < 1 ? 7 : 8);
}

/* The leader of the terminal's session: starts the worker in the foreground and continues it when it was stopped. */
static void run_shell(const char *terminal, const struct setting *setting)
{
	int word = 0;
	must(setsid() >= 0);
	int fd = open(terminal, O_RDWR);
	must(fd >= 0 && ioctl(fd, TIOCSCTTY, 0) == 0);
	(void)signal(SIGTTOU, SIG_IGN);
	(void)signal(SIGINT, SIG_DFL); /* Check has handlers for these */
	(void)signal(SIGTERM, SIG_DFL);
	pid_t pid = fork();
	must(pid >= 0);
	(void)setpgid(pid, pid); /* by both: whichever runs first */
	if (pid == 0) {
		(void)setpgid(0, 0);
		must(tcsetpgrp(fd, getpid()) == 0);
		(void)signal(SIGTTOU, SIG_DFL);
		must(dup2(fd, 0) == 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
		close(go[1]);
		work(setting);
	}
	close(go[0]);
	close(go[1]);
	must(write(status[1], &pid, sizeof(pid)) == sizeof(pid));
	do {
		must(waitpid(pid, &word, WUNTRACED) == pid);
		must(write(status[1], &word, sizeof(word)) == sizeof(word));
	} while (WIFSTOPPED(word));
	_exit(0);
}

/* ---- the other side ---- */

struct screen {
	int fd;
	pid_t shell;
	pid_t worker;
	char seen[SEEN_BYTES];
	size_t used;
	size_t from; /* what was waited for lies before */
};

static struct screen screen;

static void resize(unsigned columns)
{
	struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
	must(ioctl(screen.fd, TIOCSWINSZ, &size) == 0);
}

static void begin(const struct setting *setting)
{
	char name[64];
	memset(&screen, 0, sizeof(screen));
	screen.fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	must(screen.fd >= 0 && grantpt(screen.fd) == 0 && unlockpt(screen.fd) == 0);
	must(ptsname_r(screen.fd, name, sizeof(name)) == 0);
	resize(100);
	must(pipe(go) == 0 && pipe(status) == 0);
	screen.shell = fork();
	must(screen.shell >= 0);
	if (screen.shell == 0) {
		run_shell(name, setting);
	}
	close(go[0]);
	close(status[1]);
	must(read(status[0], &screen.worker, sizeof(screen.worker)) == sizeof(screen.worker));
}

/* 0: there is no more, the terminal was closed. */
static int look(void)
{
	struct pollfd ready = {.fd = screen.fd, .events = POLLIN};
	ck_assert_msg(poll(&ready, 1, (int)pace_seconds(10) * 1000) == 1, "nothing came after: %s", screen.seen);
	must(screen.used + 1 < sizeof(screen.seen));
	ssize_t got = read(screen.fd, screen.seen + screen.used, sizeof(screen.seen) - 1 - screen.used);
	screen.used += got > 0 ? (size_t)got : 0;
	screen.seen[screen.used] = '\0';
	return got > 0;
}

/* Returns what follows it. */
static const char *await(const char *text)
{
	const char *at;
	while (!(at = strstr(screen.seen + screen.from, text))) {
		ck_assert_msg(look(), "ended without \"%s\": %s", text, screen.seen);
	}
	at += strlen(text);
	screen.from = (size_t)(at - screen.seen);
	return at;
}

static int await_status(void)
{
	int word;
	must(read(status[0], &word, sizeof(word)) == sizeof(word));
	return word;
}

/* The worker is asked to end, or ends of itself; all that it wrote is in screen.seen. */
static int end(void)
{
	close(go[1]);
	int word = await_status();
	while (look()) {
	}
	must(waitpid(screen.shell, NULL, 0) == screen.shell);
	close(screen.fd);
	close(status[0]);
	return word;
}

static void expect_end(const char *text)
{
	size_t length = strlen(text);
	ck_assert_msg(screen.used >= length && strcmp(screen.seen + screen.used - length, text) == 0, "ends with %s",
	              screen.seen);
}

static const struct setting bar = {PROGRESS_BAR, "xterm", 1, 0, 0};

/* ---- lines ---- */

START_TEST(test_line_of_a_bar_fits_any_width)
{
	struct progress progress = {.what = "verify", .rate = 512.0 * MIB};
	char line[256];
	for (unsigned columns = 0; columns <= 220; columns++) {
		for (uint64_t done = 0; done <= 3000 * MIB; done += 500 * MIB) {
			progress.total = columns % 2 ? 2500 * MIB : 0;
			progress.done = done;
			size_t length = progress_format(line, sizeof(line), columns, &progress);
			ck_assert_uint_eq(length, strlen(line));
			ck_assert_uint_le(length, columns);
			ck_assert(columns < 20 || length > 5);
		}
	}
	progress.total = 2000 * MIB;
	progress.done = 500 * MIB;
	(void)progress_format(line, sizeof(line), 79, &progress);
	ck_assert_str_eq(line, "verify:  25 % [#####.................] 500 MiB of 2.0 GiB, 512 MiB/s, 0:03 left");
	(void)progress_format(line, sizeof(line), 30, &progress);
	ck_assert_str_eq(line, "verify:  25 %");
	(void)progress_format(line, sizeof(line), 6, &progress);
	ck_assert_str_eq(line, " 25 %");
	progress.rate = 1;
	(void)progress_format(line, sizeof(line), 45, &progress);
	ck_assert_msg(strstr(line, "1 B/s") && !strstr(line, "left"), "%s", line);
}
END_TEST

START_TEST(test_words_of_the_option_are_known)
{
	enum progress_mode mode;
	ck_assert_int_eq(progress_parse("auto", &mode), 0);
	ck_assert_int_eq(mode, PROGRESS_AUTO);
	ck_assert_int_eq(progress_parse("bar", &mode), 0);
	ck_assert_int_eq(mode, PROGRESS_BAR);
	ck_assert_int_eq(progress_parse("bars", &mode), -1);
	ck_assert_int_eq(progress_parse("", &mode), -1);
}
END_TEST

/* ---- the terminal ---- */

START_TEST(test_bar_is_one_line_and_is_taken_away_at_the_end)
{
	begin(&bar);
	(void)await("42 % [#");
	(void)await(" 42.0 MiB of 100 MiB");
	int word = end();
	ck_assert(WIFEXITED(word));
	expect_end(ERASE);
	ck_assert_ptr_null(strchr(screen.seen, '\n'));
	ck_assert_ptr_null(strstr(screen.seen, "\033[3")); /* a colour */
}
END_TEST

START_TEST(test_bar_appears_of_itself_on_a_terminal)
{
	static const struct setting setting = {PROGRESS_AUTO, "xterm", 1, 0, 0};
	begin(&setting);
	(void)await("42 % [#");
	ck_assert_int_eq(WEXITSTATUS(end()), 8); /* a second later, not before */
	expect_end(ERASE);
}
END_TEST

START_TEST(test_quick_work_shows_nothing)
{
	static const struct setting setting = {PROGRESS_AUTO, "xterm", 1, 1, 0};
	begin(&setting);
	int word = end();
	ck_assert(WIFEXITED(word));
	if (WEXITSTATUS(word) != 7) {
		printf("not tested here: quick work: this machine took more than a second for it\n");
		return;
	}
	ck_assert_str_eq(screen.seen, "");
}
END_TEST

START_TEST(test_never_shows_nothing)
{
	static const struct setting setting = {PROGRESS_NEVER, "xterm", 1, 0, 0};
	begin(&setting);
	must(kill(screen.worker, SIGTERM) == 0);
	ck_assert_int_eq(WTERMSIG(end()), SIGTERM);
	ck_assert_str_eq(screen.seen, "");
}
END_TEST

START_TEST(test_bar_follows_the_width_of_the_terminal)
{
	begin(&bar);
	(void)await("42.0 MiB of 100 MiB");
	resize(24);
	(void)await("A\033[J"); /* the broken line goes, all rows of it */
	(void)await("verify:  42 %\r");
	resize(7);
	(void)await(" 42 %\r");
	resize(3); /* no room for anything */
	(void)await("\r\033[1A\033[J");
	resize(100);
	(void)await("42.0 MiB of 100 MiB");
	(void)end();
	expect_end(ERASE);
}
END_TEST

START_TEST(test_terminal_without_cursor_gets_lines)
{
	static const struct setting setting = {PROGRESS_AUTO, "dumb", 1, 0, 0};
	begin(&setting);
	(void)await("verify: 42 % 42.0 MiB of 100 MiB\r\n");
	(void)end();
	expect_end("verify: 100 % 100 MiB of 100 MiB\r\n");
	ck_assert_ptr_null(strchr(screen.seen, '\033'));
}
END_TEST

START_TEST(test_bar_on_such_a_terminal_is_wiped_by_blanks)
{
	static const struct setting setting = {PROGRESS_BAR, "dumb", 1, 0, 0};
	begin(&setting);
	(void)await("42 % [#");
	(void)end();
	expect_end("          \r");
	ck_assert_ptr_null(strchr(screen.seen, '\033'));
}
END_TEST

/* ---- signals ---- */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

START_TEST(test_signal_takes_the_bar_away_and_then_ends_the_process)
{
	begin(&bar);
	(void)await("42 % [#");
	must(kill(screen.worker, ending[_i]) == 0);
	int word = end();
	ck_assert(WIFSIGNALED(word));
	ck_assert_int_eq(WTERMSIG(word), ending[_i]);
	expect_end(ERASE);
}
END_TEST

START_TEST(test_second_signal_ends_work_that_goes_on)
{
	static const struct setting setting = {PROGRESS_BAR, "xterm", 0, 0, 0};
	begin(&setting);
	(void)await("42 % [#");
	must(kill(screen.worker, SIGINT) == 0);
	while (strcmp(screen.seen + screen.used - strlen(ERASE), ERASE) != 0) {
		must(look());
	}
	must(kill(screen.worker, SIGTERM) == 0);
	int word = await_status();
	ck_assert_int_eq(WTERMSIG(word), SIGTERM);
	close(go[1]);
}
END_TEST

START_TEST(test_stopped_job_leaves_the_terminal_clean_and_goes_on)
{
	begin(&bar);
	(void)await("42 % [#");
	must(write(screen.fd, "\x1a", 1) == 1); /* ^Z */
	int word = await_status();
	ck_assert(WIFSTOPPED(word));
	ck_assert_int_eq(WSTOPSIG(word), SIGTSTP);
	(void)await("^Z");
	(void)await(ERASE);
	must(kill(screen.worker, SIGCONT) == 0);
	(void)await("42 % [#");
	ck_assert(WIFEXITED(end()));
	expect_end(ERASE);
}
END_TEST

START_TEST(test_ignored_signal_stays_ignored)
{
	static const struct setting setting = {PROGRESS_BAR, "xterm", 1, 0, SIGHUP};
	begin(&setting);
	(void)await("42 % [#");
	must(kill(screen.worker, SIGHUP) == 0);
	(void)await("42 % [#");
	ck_assert(WIFEXITED(end()));
}
END_TEST

static int has_terminal(void)
{
	char name[64];
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	int has = fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 && ptsname_r(fd, name, sizeof(name)) == 0 &&
	          access(name, R_OK | W_OK) == 0;
	if (fd >= 0) {
		close(fd);
	}
	return has;
}

int main(void)
{
	support_begin("test_progress", &(struct support_needs){0, 0});
	if (!has_terminal()) {
		return support_skip("there are no terminals (/dev/pts)");
	}
	Suite *suite = suite_create("progress");
	TCase *tests = tcase_create("progress");
	tcase_set_timeout(tests, 100);
	tcase_add_test(tests, test_line_of_a_bar_fits_any_width);
	tcase_add_test(tests, test_words_of_the_option_are_known);
	tcase_add_test(tests, test_bar_is_one_line_and_is_taken_away_at_the_end);
	tcase_add_test(tests, test_bar_appears_of_itself_on_a_terminal);
	tcase_add_test(tests, test_quick_work_shows_nothing);
	tcase_add_test(tests, test_never_shows_nothing);
	tcase_add_test(tests, test_bar_follows_the_width_of_the_terminal);
	tcase_add_test(tests, test_terminal_without_cursor_gets_lines);
	tcase_add_test(tests, test_bar_on_such_a_terminal_is_wiped_by_blanks);
	tcase_add_loop_test(tests, test_signal_takes_the_bar_away_and_then_ends_the_process, 0, 4);
	tcase_add_test(tests, test_second_signal_ends_work_that_goes_on);
	tcase_add_test(tests, test_stopped_job_leaves_the_terminal_clean_and_goes_on);
	tcase_add_test(tests, test_ignored_signal_stays_ignored);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
