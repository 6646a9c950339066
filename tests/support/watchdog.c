/* SPDX-License-Identifier: MIT */
/* See watchdog.h. */
#include "watchdog.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "refusing.h"
#include "support.h"

uint64_t watchdog_nth;

static void bark(int signal_number)
{
	char line[160];
	/* Not async-signal-safe, in a process that ends here and now. */
	int length =
	        snprintf(line, sizeof(line), "call %llu (%s) refused: %s\n", (unsigned long long)watchdog_nth,
	                 refusing_last(), signal_number == SIGALRM ? "the process hangs" : strsignal(signal_number));
	(void)!write(STDERR_FILENO, line, (size_t)length);
	_exit(3);
}

/* A thread that can take the alarm when the main thread sleeps uninterruptibly in the kernel: an event that is not read
 * makes madvise(2) do that. */
static void *wait_for_the_alarm(void *argument)
{
	for (;;) {
		pause();
	}
	return argument;
}

void watchdog_listen(void)
{
	(void)thread_start(wait_for_the_alarm, NULL);
}

void watchdog_install(void)
{
	(void)signal(SIGALRM, bark);
	(void)signal(SIGBUS, bark);
	(void)signal(SIGSEGV, bark);
	watchdog_listen();
}

void watchdog_expect(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "call %llu (%s) refused: %s\n", (unsigned long long)watchdog_nth, refusing_last(),
		        what);
	}
	ck_assert(holds);
}
