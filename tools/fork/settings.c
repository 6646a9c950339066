/* SPDX-License-Identifier: MIT */
/* See settings.h. The environment is changed in place: its strings are the process's own and only get shorter. */
#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uffdwp.h"

#define SETTINGS_PREFIX "UFFDWP_FORK_"
#define SETTINGS_SMALL_BYTES ((uint64_t)16 << 20)
#define SETTINGS_WINDOW_MAX 64
#define SETTINGS_NICE_MAX 19

struct settings settings = {
        .delivery = UFFDWP_DELIVERY_THREAD, .small_bytes = SETTINGS_SMALL_BYTES, .window_max = SETTINGS_WINDOW_MAX};

uint64_t settings_parse_size(const char *text)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long value = strtoull(text, &end, 10);
	unsigned shift = 0;

	if (end == text || *text == '-')
		return 0;
	if (*end) {
		const char *unit = strchr(units, *end);

		if (!unit || end[1])
			return 0;
		shift = 10 * (unsigned)(unit - units + 1);
	}
	return value > UINT64_MAX >> shift ? 0 : value << shift;
}

static int settings_take_delivery(const char *value)
{
	if (strcmp(value, "thread") == 0)
		settings.delivery = UFFDWP_DELIVERY_THREAD;
	else if (strcmp(value, "inline") == 0)
		settings.delivery = UFFDWP_DELIVERY_INLINE;
	else
		return 0;
	return 1;
}

static int settings_take_from(const char *value)
{
	static const char *const names[] = {"auto", "program", "all"};

	for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
		if (strcmp(value, names[i]) == 0) {
			settings.from = i;
			return 1;
		}
	}
	return 0;
}

static int settings_take_size(const char *value, uint64_t *size)
{
	*size = settings_parse_size(value);
	return *size != 0 || strcmp(value, "0") == 0;
}

static int settings_take_number(const char *value, unsigned long least, unsigned long most, unsigned long *to)
{
	char *end;
	unsigned long number = strtoul(value, &end, 10);

	if (end == value || *end || number < least || number > most)
		return 0;
	*to = number;
	return 1;
}

static int settings_take_window(const char *value)
{
	unsigned long pages;

	if (!settings_take_number(value, 1, SETTINGS_WINDOW_MAX, &pages))
		return 0;
	settings.window_max = (uint32_t)pages;
	return 1;
}

static int settings_take_nice(const char *value)
{
	unsigned long more;

	if (!settings_take_number(value, 0, SETTINGS_NICE_MAX, &more))
		return 0;
	settings.nice = (int)more;
	return 1;
}

static int settings_take_switch(const char *value, int *to)
{
	*to = strcmp(value, "0") != 0 && *value != '\0';
	return 1;
}

/* 1: understood. */
static int settings_take(const char *name, size_t length, const char *value, unsigned long *preloaded)
{
#define IS(word) (length == sizeof(word) - 1 && memcmp(name, word, length) == 0)
	if (IS("DELIVERY"))
		return settings_take_delivery(value);
	if (IS("FROM"))
		return settings_take_from(value);
	if (IS("CAPACITY"))
		return settings_take_size(value, &settings.capacity_bytes);
	if (IS("PRIVATE"))
		return settings_take_size(value, &settings.private_bytes);
	if (IS("WINDOW"))
		return settings_take_window(value);
	if (IS("NICE"))
		return settings_take_nice(value);
	if (IS("SMALL"))
		return settings_take_size(value, &settings.small_bytes);
	if (IS("HINTS"))
		return settings_take_switch(value, &settings.hints);
	if (IS("FOLLOW"))
		return settings_take_switch(value, &settings.follow);
	if (IS("VERBOSE"))
		return settings_take_switch(value, &settings.verbose);
	if (IS("QUIET"))
		return settings_take_switch(value, &settings.quiet);
	if (!IS("PRELOADED"))
		return 0;
#undef IS
	*preloaded = strtoul(value, NULL, 10);
	return 1;
}

/* Takes the first words of "LD_PRELOAD=a:b:c" away; 1: none is left. */
static int settings_shorten_preload(char *entry, unsigned long words)
{
	char *value = strchr(entry, '=') + 1;
	char *rest = value;

	for (; words && *rest; words--) {
		rest += strcspn(rest, ": ");
		rest += *rest != '\0';
	}
	memmove(value, rest, strlen(rest) + 1);
	return *value == '\0';
}

static void settings_clean_environment(unsigned long preloaded)
{
	static const char preload[] = "LD_PRELOAD=";
	char **to = environ;

	for (char **at = environ; *at; at++) {
		int drop = strncmp(*at, SETTINGS_PREFIX, sizeof(SETTINGS_PREFIX) - 1) == 0;

		if (preloaded && strncmp(*at, preload, sizeof(preload) - 1) == 0)
			drop = settings_shorten_preload(*at, preloaded);
		if (!drop)
			*to++ = *at;
	}
	*to = NULL;
}

const char *settings_read(void)
{
	const char *strange = NULL;
	unsigned long preloaded = 0;

	for (char **at = environ; at && *at; at++) {
		const char *name = *at + sizeof(SETTINGS_PREFIX) - 1;
		const char *value;

		if (strncmp(*at, SETTINGS_PREFIX, sizeof(SETTINGS_PREFIX) - 1) != 0)
			continue;
		value = strchr(name, '=');
		if (value && !settings_take(name, (size_t)(value - name), value + 1, &preloaded))
			strange = *at;
	}
	if (environ && !settings.follow)
		settings_clean_environment(preloaded);
	return strange;
}
