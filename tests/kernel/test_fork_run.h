/* SPDX-License-Identifier: MIT */
/* How the tests of libuffdwp-fork.so run `uffdwp-ctl fork`, and what they see of it. */
#ifndef TEST_FORK_RUN_H
#define TEST_FORK_RUN_H

#include "scratch.h"
#include "test_fork_preload.h"

#define OUTPUT_BYTES 16384
#define ARGUMENTS 16

static const char *program; /* uffdwp-ctl */
static char self[SCRATCH_PATH];

static struct {
	int status;
	char text[OUTPUT_BYTES]; /* stdout and stderr */
} outcome;

static void gather(int fd)
{
	size_t length = 0;
	char rest[256];
	ssize_t got;

	while ((got = read(fd, outcome.text + length, sizeof(outcome.text) - 1 - length)) > 0)
		length += (size_t)got;
	outcome.text[length] = '\0';
	while (read(fd, rest, sizeof(rest)) > 0)
		continue;
}

/* What the process does before it becomes uffdwp-ctl; it ends with RUN_MISSING where that is not possible here. */
static void (*run_before)(void);

#define RUN_MISSING 99

/* uffdwp-ctl fork with these arguments. */
static void run(const char *const *arguments)
{
	const char *all[ARGUMENTS] = {program, "fork", "--small=0"};
	size_t count = 3;
	int ends[2];
	pid_t child;

	while (*arguments)
		all[count++] = *arguments++;
	ck_assert_int_eq(pipe(ends), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		must(dup2(ends[1], STDOUT_FILENO) >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
		close(ends[0]);
		close(ends[1]);
		if (run_before)
			run_before();
		execv(program, (char **)(uintptr_t)all);
		_exit(126);
	}
	close(ends[1]);
	gather(ends[0]);
	close(ends[0]);
	ck_assert_int_eq(waitpid(child, &outcome.status, 0), child);
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static void is_right(void)
{
	ck_assert_msg(outcome.status == 0, "wait status %#x: %s", (unsigned)outcome.status, outcome.text);
	ck_assert_msg(!strstr(outcome.text, "runs without it"), "%s", outcome.text);
}

/* 1: what `uffdwp-ctl fork --check` says of this kernel and this user. */
static int forks_are_possible(void)
{
	pid_t child = fork();
	int status = 1;

	must(child >= 0);
	if (child == 0) {
		must(dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO) >= 0);
		execl(program, program, "fork", "--check", "--malloc=none", "--from=all", "--", "/bin/true", NULL);
		_exit(1);
	}
	return waitpid(child, &status, 0) == child && status == 0;
}

/* NULL; or what these tests lack here. */
static const char *run_init(void)
{
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *sanitizers = getenv("UFFDWP_SANITIZE");

	program = getenv("UFFDWP_CTL");
	must(length > 0);
	if (!program || access(program, X_OK) != 0)
		return "UFFDWP_CTL names no program (built with UFFDWP_TOOLS?)";
	if (sanitizers && sanitizers[0])
		return "a sanitizer has memory calls of its own";
	return forks_are_possible() ? NULL
	                            : "uffdwp-ctl fork --check says that no fork of the library is possible here";
}

#endif
