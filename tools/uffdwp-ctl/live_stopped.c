/* SPDX-License-Identifier: MIT */
/* See live_stopped.h. A name in /proc/PID/stat may have anything in it, so its end is the last bracket. */
#include "live_stopped.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A small file of /proc as a text; -1: there is none. */
static int live_stopped_read(int64_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	FILE *file;
	size_t length;

	(void)snprintf(path, sizeof(path), "/proc/%lld/%s", (long long)pid, name);
	file = pid > 0 ? fopen(path, "re") : NULL;
	if (!file)
		return -1;
	length = fread(text, 1, size - 1, file);
	(void)fclose(file);
	text[length] = '\0';
	return length ? 0 : -1;
}

int live_is_stopped(int64_t pid)
{
	char text[1024];
	const char *name_end;

	if (live_stopped_read(pid, "stat", text, sizeof(text)))
		return 0;
	name_end = strrchr(text, ')');
	return name_end && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

/* The line of status has four: real, effective, saved, of the file system. */
int live_is_of_user(int64_t pid, uid_t uid, uid_t *other)
{
	char text[4096];
	char *at = live_stopped_read(pid, "status", text, sizeof(text)) ? NULL : strstr(text, "\nUid:");
	int count = 0;

	for (at = at ? at + 5 : NULL; at && count < 4; count++) {
		char *end;
		unsigned long has = strtoul(at, &end, 10);

		if (end == at)
			break;
		if (has == uid)
			return 1;
		*other = (uid_t)has;
		at = end;
	}
	return count == 0;
}
