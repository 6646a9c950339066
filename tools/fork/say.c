/* SPDX-License-Identifier: MIT */
/* See say.h. */
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "settings.h"

#define SAY_BYTES 700

static struct stat say_to; /* at the start */

void say_init(void)
{
	if (fstat(STDERR_FILENO, &say_to) != 0)
		say_to.st_ino = 0;
}

/* A daemon may have its data under that number. */
static int say_may(void)
{
	struct stat now;

	return fstat(STDERR_FILENO, &now) == 0 && now.st_dev == say_to.st_dev && now.st_ino == say_to.st_ino;
}

__attribute__((format(printf, 1, 0))) static void say_line(const char *format, va_list arguments)
{
	char line[SAY_BYTES];
	int error = errno;
	int length = snprintf(line, sizeof(line), "uffdwp-fork: %s ", program_invocation_short_name);
	size_t used = length > 0 && length < SAY_BYTES / 2 ? (size_t)length : 0;

	length = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
	if (length > 0)
		used += (size_t)length < sizeof(line) - used - 1 ? (size_t)length : sizeof(line) - used - 2;
	line[used++] = '\n';
	if (say_may() && write(STDERR_FILENO, line, used) < 0)
		(void)0; /* the program's standard error is closed: there is no place to say it */
	errno = error;
}

void say_once(_Atomic(int) *said, const char *format, ...)
{
	va_list arguments;

	if (settings.quiet || atomic_exchange(said, 1))
		return;
	va_start(arguments, format);
	say_line(format, arguments);
	va_end(arguments);
}

void say_verbose(const char *format, ...)
{
	va_list arguments;

	if (!settings.verbose)
		return;
	va_start(arguments, format);
	say_line(format, arguments);
	va_end(arguments);
}
