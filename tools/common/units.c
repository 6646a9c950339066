/* SPDX-License-Identifier: MIT */
/* See units.h. */
#include "units.h"

#include <stdio.h>

const char *units_bytes(char *buffer, double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned unit = 0;

	while (bytes >= 1023.5 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	(void)snprintf(buffer, UNITS_TEXT, unit && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return buffer;
}

const char *units_seconds(char *buffer, double seconds)
{
	if (seconds < 0.9995)
		(void)snprintf(buffer, UNITS_TEXT, "%.3g ms", seconds * 1000);
	else if (seconds < 60)
		(void)snprintf(buffer, UNITS_TEXT, "%.3g s", seconds);
	else if (seconds < 3600)
		(void)snprintf(buffer, UNITS_TEXT, "%.3g min", seconds / 60);
	else
		(void)snprintf(buffer, UNITS_TEXT, "%.3g h", seconds / 3600);
	return buffer;
}
