/* SPDX-License-Identifier: MIT */
/* See say.h. */
#include "say.h"
#include "base/escape.h"

#include <stdarg.h>
#include <stdio.h>

static const char *say_called = "uffdwp-dirty";

void say_as(const char *name)
{
	say_called = name;
}

const char *say_name(void)
{
	return say_called;
}

void say(const char *format, ...)
{
	char line[1024];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	char escaped[2048];

	(void)escape_text(escaped, sizeof(escaped), line, 0);
	(void)fprintf(stderr, "%s: %s\n", say_called, escaped);
}
