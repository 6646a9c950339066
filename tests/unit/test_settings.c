/* SPDX-License-Identifier: MIT */
/*
 * The lock of the tests: programs that share it run side by side, and a program that waits for it alone is not
 * overtaken by those that come later. It is a lock of this test, not the machine's. Second witness: /proc/locks, which
 * lists the processes that wait.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "settings.h"
#include "support.h"

#define WAIT_SECONDS 60

static char folder[SCRATCH_PATH];
static char lock_path[SCRATCH_PATH];
static int said[2]; /* from the children: a letter for each step */

static void say(char step)
{
	must(write(said[1], &step, 1) == 1);
}

static char hear(void)
{
	char step = 0;
	must(read(said[0], &step, 1) == 1);
	return step;
}

/* Shares the lock until it is killed. */
static void share(void)
{
	settings_begin();
	say('s');
	for (;;) {
		pause();
	}
}

/* Shares the lock, then wants it alone: for a setting that stays as it is. */
static void take_alone(void)
{
	settings_begin();
	say('b');
	(void)settings_mappings(UINT_MAX);
	say('a');
}

static void come_later(void)
{
	settings_begin();
	say('l');
}

static pid_t start(void (*function)(void))
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		must(unsetenv("UFFDWP_SETTINGS_HELD") == 0);
		function();
		fflush(NULL);
		_exit(0);
	}
	must(pid > 0);
	return pid;
}

/* 1: the process waits for the lock or, if `of_turn`, in the queue for it. */
static int settings_waits(pid_t pid, int of_turn)
{
	char line[256];
	char waiting[32];
	char file[32];
	struct stat lock;
	int found = 0;
	must(stat(lock_path, &lock) == 0);
	(void)snprintf(waiting, sizeof(waiting), " %d ", (int)pid);
	(void)snprintf(file, sizeof(file), ":%llu ", (unsigned long long)lock.st_ino);
	FILE *locks = fopen("/proc/locks", "re");
	must(locks != NULL);
	while (fgets(line, sizeof(line), locks) != NULL) {
		found |= strstr(line, "-> FLOCK") != NULL && strstr(line, waiting) != NULL &&
		         (strstr(line, file) == NULL) == of_turn;
	}
	must(fclose(locks) == 0);
	return found;
}

static int waits_for_lock(void *argument)
{
	return settings_waits(*(const pid_t *)argument, 0);
}

/* It waits in the queue or, where it must not have, has got the lock. */
static int settled(void *argument)
{
	struct pollfd heard = {.fd = said[0], .events = POLLIN};
	return settings_waits(*(const pid_t *)argument, 1) || poll(&heard, 1, 0) == 1;
}

static void expect_end(pid_t pid, int status)
{
	int ended = -1;
	ck_assert_int_eq(waitpid(pid, &ended, 0), pid);
	ck_assert_int_eq(ended, status);
}

static void setup(void)
{
	scratch_folder(folder);
	scratch_join(lock_path, folder, "uffdwp-settings.lock");
	must(setenv("UFFDWP_SETTINGS_FOLDER", folder, 1) == 0);
	must(pipe2(said, O_CLOEXEC) == 0);
}

START_TEST(test_program_that_wants_the_lock_alone_is_not_overtaken)
{
	pid_t sharer = start(share);
	ck_assert_int_eq(hear(), 's');
	pid_t alone = start(take_alone);
	ck_assert_int_eq(hear(), 'b');
	ck_assert_int_eq(wait_until(waits_for_lock, &alone, WAIT_SECONDS), 1);
	pid_t later = start(come_later);
	ck_assert_int_eq(wait_until(settled, &later, WAIT_SECONDS), 1);
	ck_assert_int_eq(kill(sharer, SIGKILL), 0);
	expect_end(sharer, SIGKILL);
	ck_assert_int_eq(hear(), 'a');
	ck_assert_int_eq(hear(), 'l');
	expect_end(alone, 0);
	expect_end(later, 0);
}
END_TEST

START_TEST(test_programs_share_the_lock)
{
	pid_t sharers[2] = {start(share), start(share)};
	ck_assert_int_eq(hear(), 's');
	ck_assert_int_eq(hear(), 's');
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(kill(sharers[i], SIGKILL), 0);
		expect_end(sharers[i], SIGKILL);
	}
}
END_TEST

int main(void)
{
	support_begin("test_settings", &(struct support_needs){0, 0});
	if (access("/proc/locks", R_OK) != 0) {
		return support_skip("no /proc/locks");
	}
	Suite *suite = suite_create("settings");
	TCase *tests = tcase_create("settings");
	tcase_set_timeout(tests, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, test_program_that_wants_the_lock_alone_is_not_overtaken);
	tcase_add_test(tests, test_programs_share_the_lock);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
