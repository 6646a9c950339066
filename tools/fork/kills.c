/* SPDX-License-Identifier: MIT */
/* See kills.h. */
#include "kills.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"
#include "uffdwp.h"

#define KILLS_REASONS 8

/* As child/watch.c says it. */
#define KILLS_CHILD " child "
#define KILLS_WORDS ": ended by SIGKILL: "

/* Reasons that were said, by a number of their words; where there is no place any more nothing is said. */
static _Atomic uint32_t kills_known[KILLS_REASONS];
static _Atomic(int) kills_said[KILLS_REASONS];

/* FNV-1a, of a text up to a comma, in which the number of pages follows; not 0. */
static uint32_t kills_number(const char *reason, size_t *length)
{
	uint32_t number = 2166136261u;

	for (*length = 0; reason[*length] && reason[*length] != ','; ++*length)
		number = (number ^ (unsigned char)reason[*length]) * 16777619u;
	return number ? number : 1;
}

static void kills_say(int pid, const char *reason)
{
	size_t length;
	uint32_t number = kills_number(reason, &length);

	for (size_t i = 0; i < KILLS_REASONS; i++) {
		uint32_t known = 0;

		if (!atomic_compare_exchange_strong(&kills_known[i], &known, number) && known != number)
			continue;
		say_once(&kills_said[i], "had to end its child %d by SIGKILL: %.*s", pid, (int)length, reason);
		return;
	}
}

static void kills_look(void *unused, const char *line)
{
	const char *child = strstr(line, KILLS_CHILD);
	const char *words = child ? strstr(child, KILLS_WORDS) : NULL;

	(void)unused;
	if (words)
		kills_say((int)strtol(child + strlen(KILLS_CHILD), NULL, 10), words + strlen(KILLS_WORDS));
}

void kills_init(void)
{
	const char *value = getenv("UFFDWP_DEBUG");

	if (!value || !*value || strcmp(value, "0") == 0)
		(void)uffdwp_log_to(kills_look, NULL);
}
