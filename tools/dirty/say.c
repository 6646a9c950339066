/* SPDX-License-Identifier: MIT */
/* See say.h. */
#include "say.h"
#include "base/escape.h"

#include <stdarg.h>
#include <stdio.h>

void say(const char *format, ...)
{
	char line[1024];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	char escaped[2048];

	(void)escape_text(escaped, sizeof(escaped), line, 0);
	(void)fprintf(stderr, "uffdwp-ctl dirty: %s\n", escaped);
}
