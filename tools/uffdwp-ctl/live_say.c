/* SPDX-License-Identifier: MIT */
/* See live_say.h. */
#include "live_say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"

/* ------------------------------------------------------------------------------------------------- for people -- */

const char *live_say_count(char *word, uint64_t count)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)count);
	char *to = word;

	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return word;
}

const char *live_say_bytes(char *word, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	uint64_t whole = bytes;
	unsigned unit = 0;

	while (whole >= 1024 && whole % 1024 == 0 && unit < 4) {
		whole /= 1024;
		unit++;
	}
	if (whole < 1024) {
		(void)snprintf(word, LIVE_WORD, "%llu %s", (unsigned long long)whole, units[unit]);
		return word;
	}
	double share = (double)whole;

	for (; share >= 1023.5 && unit < 4; unit++)
		share /= 1024;
	(void)snprintf(word, LIVE_WORD, share < 99.95 ? "%.1f %s" : "%.0f %s", share, units[unit]);
	return word;
}

const char *live_say_time(char *word, uint64_t time_ns)
{
	double time = (double)time_ns;

	if (time_ns < 1000)
		(void)snprintf(word, LIVE_WORD, "%.0f ns", time);
	else if (time < 999.5e3)
		(void)snprintf(word, LIVE_WORD, "%.3g us", time / 1e3);
	else if (time < 999.5e6)
		(void)snprintf(word, LIVE_WORD, "%.3g ms", time / 1e6);
	else if (time < 60e9)
		(void)snprintf(word, LIVE_WORD, "%.3g s", time / 1e9);
	else if (time < 3600e9)
		(void)snprintf(word, LIVE_WORD, "%llu min %02llu s", (unsigned long long)(time_ns / 60000000000u),
		               (unsigned long long)(time_ns / 1000000000u % 60));
	else
		(void)snprintf(word, LIVE_WORD, "%llu h %02llu min", (unsigned long long)(time_ns / 3600000000000u),
		               (unsigned long long)(time_ns / 60000000000u % 60));
	return word;
}

const char *live_say_percent(char *word, uint64_t part, uint64_t whole)
{
	double percent = whole ? 100 * (double)part / (double)whole : 0;

	/* What is nearly all is not called all. */
	if (part < whole && percent > 99.9)
		percent = 99.9;
	(void)snprintf(word, LIVE_WORD, whole ? "%.1f %%" : "-", percent);
	return word;
}

const char *live_say_rate(char *word, uint64_t part, uint64_t time_ns)
{
	double rate = time_ns ? (double)part * 1e9 / (double)time_ns : 0;

	(void)live_say_count(word, rate < 1e18 ? (uint64_t)(rate + 0.5) : (uint64_t)1e18);
	return strncat(word, "/s", LIVE_WORD - strlen(word) - 1);
}

static uint64_t live_say_bounded(double number)
{
	return number < 9e18 ? (uint64_t)number : (uint64_t)INT64_MAX;
}

uint64_t live_say_left(uint64_t time_ns, uint64_t done, uint64_t rest)
{
	return done ? live_say_bounded((double)time_ns * ((double)rest / (double)done)) : 0;
}

uint64_t live_say_pace(uint64_t bytes, uint64_t time_ns)
{
	return time_ns ? live_say_bounded((double)bytes * 1e9 / (double)time_ns) : 0;
}

const char *live_say_bar(char *bar, unsigned width, uint64_t part, uint64_t whole)
{
	unsigned inner = width - 2;
	double share = whole ? (double)part / (double)whole : 0;
	unsigned full = share >= 1 ? inner : (unsigned)(share * inner);

	bar[0] = '[';
	memset(bar + 1, '#', full);
	memset(bar + 1 + full, '-', inner - full);
	bar[width - 1] = ']';
	bar[width] = '\0';
	return bar;
}

void live_complain(const char *command, const char *format, ...)
{
	char line[2048];
	char escaped[4096];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	(void)escape_text(escaped, sizeof(escaped), line, 0);
	(void)fprintf(stderr, "uffdwp-ctl %s: %s\n", command, escaped);
}

/* ----------------------------------------------------------------------------------------------- command lines -- */

static int live_parse_to(const char *text, int base, char **end, uint64_t *number)
{
	errno = 0;
	*number = strtoull(text, end, base);
	return errno || *end == text || *number > INT64_MAX ? -1 : 0;
}

int live_parse_number(const char *text, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9' || live_parse_to(text, 10, &end, number))
		return -1;
	return *end ? -1 : 0;
}

/* The power of 1024 that a unit stands for; -1: it is none. */
static int live_parse_unit(const char *unit)
{
	static const char units[] = "KMGT";
	const char *at;

	if (!*unit || strcmp(unit, "B") == 0)
		return 0;
	at = strchr(units, *unit == 'k' ? 'K' : *unit);
	if (!at || (unit[1] && strcmp(unit + 1, "iB") != 0 && strcmp(unit + 1, "B") != 0))
		return -1;
	return (int)(at - units) + 1;
}

int live_parse_size(const char *text, uint64_t *bytes)
{
	int hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;
	int power;

	if (*text < '0' || *text > '9' || live_parse_to(text, hexadecimal ? 16 : 10, &end, bytes))
		return -1;
	power = live_parse_unit(end);
	for (int i = 0; i < power; i++) {
		if (*bytes > INT64_MAX / 1024)
			return -1;
		*bytes *= 1024;
	}
	return power < 0 ? -1 : 0;
}
