/* SPDX-License-Identifier: MIT */
/*
 * The URI parameters of a database: size, capacity, mechanism, delivery, prepare. A word that is none of ours, and none
 * that SQLite itself defines, is refused: a misspelt "mechanism" must not silently mean the default.
 */
#include "extension.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3ext.h>

SQLITE_EXTENSION_INIT3

#define DEFAULT_SIZE_BYTES (UINT64_C(16) << 20)
#define DEFAULT_CAPACITY_BYTES (UINT64_C(16) << 30)
#define MOST_BYTES (UINT64_C(1) << 46)

/* By enum uffdwp_delivery and enum uffdwp_mechanism. */
static const char *const delivery_names[] = {"auto", "thread", "inline"};
static const char *const mechanism_names[] = {"auto", "marker", "rearm", "minor", "mprotect"};

static const char *const known_keys[] = {
        "size",
        "capacity",
        "mechanism",
        "delivery",
        "prepare",
        VFS_LOADING,
        /* https://sqlite.org/c3ref/open.html; the last one is an option of its VFS for files */
        "vfs",
        "mode",
        "cache",
        "psow",
        "nolock",
        "immutable",
        "modeof",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *vfs_delivery_name(unsigned delivery)
{
	return delivery < COUNT(delivery_names) ? delivery_names[delivery] : "unknown";
}

const char *vfs_mechanism_name(unsigned mechanism)
{
	return mechanism < COUNT(mechanism_names) ? mechanism_names[mechanism] : "unknown";
}

static int config_unit_shift(const char *unit)
{
	static const char units[] = "KMGT";
	const char *place = *unit ? strchr(units, *unit & ~0x20) : NULL;
	if (!*unit)
		return 0;
	if (!place || unit[1])
		return -1;
	return 10 * (int)(place - units + 1);
}

/* "64M", "4096", "2g". 0 or -EINVAL. */
static int config_parse_bytes(const char *text, uint64_t *bytes)
{
	char *unit = NULL;
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	uint64_t number = strtoull(text, &unit, 10);
	int shift = config_unit_shift(unit);
	if (errno || shift < 0 || number == 0 || number > MOST_BYTES >> shift)
		return -EINVAL;
	*bytes = number << shift;
	return 0;
}

static int config_bytes(const char *name, const char *key, uint64_t *bytes)
{
	const char *text = sqlite3_uri_parameter(name, key);
	return text ? config_parse_bytes(text, bytes) : 0;
}

static int config_word(const char *name, const char *key, const char *const *words, uint32_t count, uint32_t *out)
{
	const char *text = sqlite3_uri_parameter(name, key);
	if (!text)
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(text, words[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	return -EINVAL;
}

/* The first parameter that is not known, or NULL. */
static const char *config_unknown(const char *name)
{
	const char *key;
	for (int i = 0; (key = sqlite3_uri_key(name, i)) != NULL; i++) {
		size_t known = 0;
		while (known < COUNT(known_keys) && strcmp(key, known_keys[known]) != 0)
			known++;
		if (known == COUNT(known_keys))
			return key;
	}
	return NULL;
}

/* NULL, or what is wrong with one of the values. */
static const char *config_values(const char *name, struct store_config *config)
{
	if (config_bytes(name, "size", &config->size_bytes) < 0)
		return "size= takes a number of bytes with an optional K, M, G or T after it";
	if (config_bytes(name, "capacity", &config->capacity_bytes) < 0)
		return "capacity= takes a number of bytes with an optional K, M, G or T after it";
	if (sqlite3_uri_parameter(name, "capacity") && config->capacity_bytes < config->size_bytes)
		return "capacity= is below size=";
	if (config_word(name, "delivery", delivery_names, COUNT(delivery_names), &config->delivery) < 0)
		return "delivery= takes auto, thread or inline";
	if (config_word(name, "mechanism", mechanism_names, COUNT(mechanism_names), &config->mechanism) < 0)
		return "mechanism= takes auto, marker, rearm, minor or mprotect";
	if (sqlite3_uri_boolean(name, "nolock", 0))
		return "nolock=1 is refused: without locks no snapshot can know where a transaction ends";
	config->prepare = sqlite3_uri_boolean(name, "prepare", 1);
	return NULL;
}

int vfs_config(const char *name, struct store_config *config, char *text, size_t size)
{
	struct store_config found = {.size_bytes = DEFAULT_SIZE_BYTES, .capacity_bytes = DEFAULT_CAPACITY_BYTES};
	const char *unknown = config_unknown(name);
	const char *wrong = unknown ? NULL : config_values(name, &found);
	if (unknown)
		sqlite3_snprintf((int)size, text,
		                 "%s= is no parameter of this VFS; there are size, capacity, mechanism, delivery and "
		                 "prepare",
		                 unknown);
	else if (wrong)
		sqlite3_snprintf((int)size, text, "%s", wrong);
	if (unknown || wrong)
		return -EINVAL;
	*config = found;
	return 0;
}
