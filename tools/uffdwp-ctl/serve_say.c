/* SPDX-License-Identifier: MIT */
/* What `uffdwp-ctl serve` says: lines on stderr, whole, so that those of several processes do not mix; see serve.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/escape.h"
#include "reword.h"
#include "serve.h"

void serve_say(const char *format, ...)
{
	char line[1024];
	char escaped[2048];
	char whole[2304];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	(void)escape_text(escaped, sizeof(escaped), line, 0);
	int length = snprintf(whole, sizeof(whole), "uffdwp-ctl serve: %s\n", escaped);

	if (length > 0 && write(STDERR_FILENO, whole, (size_t)length) < 0)
		return; /* there is no other place to say it */
}

int serve_fail(char text[SERVE_TEXT], int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, SERVE_TEXT, format, arguments);
	va_end(arguments);
	return error;
}

int serve_fail_library(char text[SERVE_TEXT], int error)
{
	char said[SERVE_TEXT];

	if (uffdwp_error_text(said, sizeof(said)) == 0)
		(void)snprintf(said, sizeof(said), "%s", strerror(-error));
	(void)reword(REWORD_SERVE, said, text, SERVE_TEXT);
	return error;
}

uint64_t serve_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
