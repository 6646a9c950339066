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

const char *say_bytes(char *buffer, double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned unit = 0;

	while (bytes >= 1023.5 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	(void)snprintf(buffer, SAY_BYTES, unit && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return buffer;
}

const char *say_seconds(char *buffer, double seconds)
{
	if (seconds < 0.9995)
		(void)snprintf(buffer, SAY_BYTES, "%.3g ms", seconds * 1000);
	else if (seconds < 60)
		(void)snprintf(buffer, SAY_BYTES, "%.3g s", seconds);
	else if (seconds < 3600)
		(void)snprintf(buffer, SAY_BYTES, "%.3g min", seconds / 60);
	else
		(void)snprintf(buffer, SAY_BYTES, "%.3g h", seconds / 3600);
	return buffer;
}
