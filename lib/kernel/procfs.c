/* SPDX-License-Identifier: MIT */
/*
 * Reading /proc. Idea: the files that matter are shorter than one buffer, so that no allocation and no stdio is needed
 * and a fake kernel can serve them.
 *
 * Threads: any. Never: for the fault path.
 */
#include "kernel/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 8192

ssize_t procfs_text(const struct kernel_ops *k, const char *path, char *text, size_t size)
{
	int fd = k->open(path, O_RDONLY | O_CLOEXEC, 0);
	size_t length = 0;
	ssize_t got = 1;

	if (fd < 0)
		return fd;
	while (got > 0 && length < size - 1) {
		got = k->read(fd, text + length, size - 1 - length);
		length += got > 0 ? (size_t)got : 0;
	}
	k->close(fd);
	if (got < 0)
		return got;
	text[length] = '\0';
	return (ssize_t)length;
}

/* The text after the key, or NULL. */
static const char *procfs_after_key(const char *text, const char *key)
{
	size_t key_length = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, key_length) == 0)
			return line + key_length;
	}
	return NULL;
}

int procfs_number(const struct kernel_ops *k, const char *path, const char *key, uint64_t *number)
{
	char text[TEXT_BYTES];
	ssize_t length = procfs_text(k, path, text, sizeof text);
	const char *digits = length < 0 ? NULL : procfs_after_key(text, key);
	char *end;
	unsigned long long value;

	if (length < 0)
		return (int)length;
	if (!digits)
		return -ENODATA;
	value = strtoull(digits, &end, 10);
	if (end == digits)
		return -ENODATA;
	*number = value;
	return 0;
}

/* proc(5): field 2 is a name in parentheses, which may have any byte; field 39 is the CPU, field 40 the real-time
 * priority. */
int procfs_stat_cpu(const struct kernel_ops *k, int fd)
{
	char text[1024];
	ssize_t length = k->read(fd, text, sizeof text - 1);

	if (length < 0)
		return (int)length;
	text[length] = '\0';
	const char *at = strrchr(text, ')');

	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	char *next = NULL;
	long cpu = at ? strtol(at, &next, 10) : -1;

	if (!at || next == at)
		return -ENODATA;
	return strtol(next, NULL, 10) ? -EPERM : (int)cpu;
}

int procfs_thread_state(const struct kernel_ops *k, int thread)
{
	char path[64];
	char text[1024];

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
	ssize_t length = procfs_text(k, path, text, sizeof(text));
	const char *at = length < 0 ? NULL : strrchr(text, ')');

	if (length < 0)
		return (int)length;
	return at && at[1] == ' ' && at[2] ? at[2] : -ENODATA;
}

/* /proc/swaps: a line of titles, then a line for each. */
int procfs_swap_on(const struct kernel_ops *k)
{
	char text[TEXT_BYTES];
	ssize_t length = procfs_text(k, "/proc/swaps", text, sizeof text);
	const char *titles_end = length < 0 ? NULL : strchr(text, '\n');

	if (length < 0 && kernel_is_passing((int)length))
		return (int)length;
	return titles_end && titles_end[1] != '\0';
}
