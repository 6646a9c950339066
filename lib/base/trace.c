/* SPDX-License-Identifier: MIT */
/* See trace.h. One write(2) a line, so that lines of several threads do not mix. */
#include "base/trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/escape.h"
#include "base/forks.h"
#include "base/lock.h"

_Atomic int trace_wanted = -1;

/* Read-locked while a line is passed on, so that a function that was replaced is not called any more. */
#define TRACE_LOCK_INIT                                                                                                \
	{                                                                                                              \
		PTHREAD_RWLOCK_INITIALIZER                                                                             \
	}
static struct shared_lock trace_lock = TRACE_LOCK_INIT;
static void (*trace_log)(void *user, const char *line);
static void *trace_user;

/* The thread that passed a line on, or waited to replace the function, is not in the child. */
static void trace_renew_in_child(void)
{
	static const struct shared_lock fresh = TRACE_LOCK_INIT;

	lock_shared_renew(&trace_lock, &fresh);
}

/* A program may have a log without a runtime. Best effort, errors ignored: without memory a child may wait. */
static void trace_watch_forks(void)
{
	forks_add(trace_renew_in_child);
	(void)forks_watch();
}

void trace_to(void (*log)(void *user, const char *line), void *user)
{
	sigset_t before;

	trace_watch_forks();
	lock_shared_write(&trace_lock, &before);
	trace_log = log;
	trace_user = user;
	atomic_store(&trace_wanted, log ? 1 : -1);
	lock_shared_give(&trace_lock, &before);
}

int trace_ask(void)
{
	const char *value = getenv("UFFDWP_DEBUG");
	int wanted = value && *value && strcmp(value, "0") != 0;

	int unasked = -1;

	atomic_compare_exchange_strong(&trace_wanted, &unasked, wanted);
	return atomic_load(&trace_wanted);
}

/* line[used] is its end, and has room for a newline. */
static void trace_put(char *line, size_t used)
{
	sigset_t before;

	trace_watch_forks();
	lock_shared_read(&trace_lock, &before);
	if (trace_log) {
		trace_log(trace_user, line);
	} else {
		struct signals_held held;

		line[used] = '\n';
		signals_hold_io(&held); /* the reader of the pipe may be gone */
		signals_release_io(&held, write(STDERR_FILENO, line, used + 1) < 0 ? -errno : 0);
	}
	lock_shared_give(&trace_lock, &before);
}

void trace_line(const char *format, ...)
{
	int saved = errno;
	struct timespec now;
	char line[512];
	va_list arguments;

	clock_gettime(CLOCK_MONOTONIC, &now);
	size_t used =
	        (size_t)snprintf(line, sizeof(line), "uffdwp %lld.%06ld ", (long long)now.tv_sec, now.tv_nsec / 1000);
	va_start(arguments, format);
	int more = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);

	va_end(arguments);
	used += more > 0 ? (size_t)more : 0;
	if (used > sizeof(line) - 2)
		used = sizeof(line) - 2;
	line[used] = '\0';
	char escaped[sizeof(line)];

	escape_text(escaped, sizeof(escaped) - 1, line, 0);
	trace_put(escaped, strlen(escaped));
	errno = saved;
}
