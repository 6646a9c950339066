/* SPDX-License-Identifier: MIT */
/* See support.h. */
#include "support.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "chance.h"
#include "scratch.h"
#include "settings.h"

static int huge_pages_here;
static int swap_here;

void support_begin(const char *program, const struct support_needs *needs)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s: UFFDWP_SEED=%llu\n", program, (unsigned long long)chance_seed());
	if (scratch_begin() != 0) {
		printf("%s: no scratch folder: %s\n", program, strerror(errno));
		exit(1);
	}
	if (needs->huge_pages != 0) {
		huge_pages_here = settings_huge_pages(needs->huge_pages) == 0;
		if (!huge_pages_here) {
			support_note(program, "no huge pages");
		}
	}
	if (needs->swap) {
		swap_here = settings_swap() == 0;
	}
}

int support_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int support_has_huge_pages(void)
{
	return huge_pages_here;
}

int support_has_swap(void)
{
	return swap_here;
}

int support_skip(const char *reason)
{
	printf("skipped: %s\n", reason);
	return 77;
}

void support_note(const char *test, const char *reason)
{
	printf("not tested here: %s: %s\n", test, reason);
}

void must_hold(int holds, const char *file, int line, const char *text)
{
	if (!holds) {
		fprintf(stderr, "%s:%d: must hold: %s\n", file, line, text);
		abort();
	}
}

pthread_t thread_start(void *(*function)(void *), void *argument)
{
	pthread_t thread;
	must(pthread_create(&thread, NULL, function, argument) == 0);
	return thread;
}

void thread_join(pthread_t thread)
{
	must(pthread_join(thread, NULL) == 0);
}

int child_run(void (*function)(void *), void *argument)
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		function(argument);
		fflush(NULL);
		_exit(0);
	}
	must(child > 0);
	int status = -1;
	while (waitpid(child, &status, 0) < 0) {
		must(errno == EINTR);
	}
	return status;
}

void sleep_us(unsigned long microseconds)
{
	struct timespec pause = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};
	while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
	}
}

int wait_until(int (*ready)(void *), void *argument, unsigned seconds)
{
	for (unsigned long waited_us = 0; waited_us < seconds * 1000000ul; waited_us += 500) {
		if (ready(argument)) {
			return 1;
		}
		sleep_us(500);
	}
	return ready(argument) != 0;
}
