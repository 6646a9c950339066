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

_Atomic int trace_wanted = -1;

int trace_ask(void)
{
	const char *value = getenv("UFFDWP_DEBUG");
	int wanted = value && *value && strcmp(value, "0") != 0;

	atomic_store(&trace_wanted, wanted);
	return wanted;
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
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0) {
		/* nobody to tell */
	}
	errno = saved;
}
