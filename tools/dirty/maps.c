/* SPDX-License-Identifier: MIT */
/* See maps.h. */
#include "maps.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TEXT_FIRST 65536
#define DEVICES 64

const char *area_kind_name(enum area_kind kind)
{
	static const char *const names[AREA_KINDS] = {"heap", "stack", "anon", "shared", "data"};

	return names[kind];
}

/* ------------------------------------------------------------------------------------------------------ the text -- */

static int maps_grow_text(struct maps *maps)
{
	size_t size = maps->text_size ? maps->text_size * 2 : TEXT_FIRST;
	char *text = realloc(maps->text, size);

	if (!text)
		return -ENOMEM;
	maps->text = text;
	maps->text_size = size;
	return 0;
}

static int maps_read_text(struct maps *maps, int fd)
{
	size_t used = 0;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		ssize_t got;

		if (maps->text_size - used < 2 && maps_grow_text(maps))
			return -ENOMEM;
		got = read(fd, maps->text + used, maps->text_size - used - 1);
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		used += (size_t)got;
	}
	maps->text[used] = '\0';
	return used ? 0 : -ESRCH;
}

/* ---------------------------------------------------------------------------------------------- which are memory -- */

/* A line of mountinfo: "36 35 98:0 / /mnt rw - ext3 /dev/root rw". 1: that device is mounted as a file system of
 * memory. */
static int maps_line_is_memory(const char *line, unsigned major, unsigned minor)
{
	const char *type = strstr(line, " - ");
	char device[32];

	(void)snprintf(device, sizeof(device), " %u:%u ", major, minor);
	if (!type || !strstr(line, device) || strstr(line, device) > type)
		return 0;
	type += 3;
	return strncmp(type, "tmpfs ", 6) == 0 || strncmp(type, "hugetlbfs ", 10) == 0 ||
	       strncmp(type, "ramfs ", 6) == 0;
}

static int maps_ask_mounts(pid_t pid, unsigned major, unsigned minor)
{
	char path[48];
	char *line = NULL;
	size_t size = 0;
	int found = 0;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	file = fopen(path, "re");
	if (!file)
		file = fopen("/proc/self/mountinfo", "re");
	while (file && !found && getline(&line, &size, file) > 0)
		found = maps_line_is_memory(line, major, minor);
	free(line);
	if (file)
		(void)fclose(file);
	return found;
}

static int maps_is_known(const uint64_t *devices, unsigned count, uint64_t device)
{
	for (unsigned i = 0; i < count; i++) {
		if (devices[i] == device)
			return 1;
	}
	return 0;
}

static int maps_is_memory_device(struct maps *maps, pid_t pid, unsigned major, unsigned minor)
{
	uint64_t device = makedev(major, minor);
	int is_memory;

	if (maps_is_known(maps->memory_devices, maps->memory_device_count, device))
		return 1;
	if (maps_is_known(maps->other_devices, maps->other_device_count, device))
		return 0;
	is_memory = maps_ask_mounts(pid, major, minor);
	if (is_memory && maps->memory_device_count < DEVICES)
		maps->memory_devices[maps->memory_device_count++] = device;
	if (!is_memory && maps->other_device_count < DEVICES)
		maps->other_devices[maps->other_device_count++] = device;
	return is_memory;
}

/* Memory that the kernel keeps in mounts of its own, which no process sees. */
static int maps_has_memory_name(const char *name)
{
	static const char *const starts[] = {"/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage", "[anon_shmem:"};

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		if (strncmp(name, starts[i], strlen(starts[i])) == 0)
			return 1;
	}
	return 0;
}

static int maps_is_our_own(const char *name)
{
	static const char shim[] = "/uffdwp_dirty.so";
	size_t length = strlen(name);

	return length >= sizeof(shim) - 1 && strcmp(name + length - (sizeof(shim) - 1), shim) == 0;
}

/* A line of maps, as it is. */
struct line {
	uint64_t start;
	uint64_t end;
	char access[5];
	unsigned major;
	unsigned minor;
	uint64_t inode;
	char *name;
};

/* 1: it is tracked. Private anonymous memory is, whatever its protection: it may be made writable at any time. Memory
 * of a file only if it may be written now. */
static int maps_classify(struct maps *maps, pid_t pid, const struct line *line, struct mapping *out)
{
	int shared = line->access[3] == 's';
	int writable = line->access[1] == 'w';

	out->start = line->start;
	out->end = line->end;
	out->name = line->name;
	if (!shared && line->inode == 0) {
		out->kind = AREA_ANON;
		if (strcmp(line->name, "[heap]") == 0)
			out->kind = AREA_HEAP;
		else if (strcmp(line->name, "[stack]") == 0)
			out->kind = AREA_STACK;
		else if (!*line->name)
			out->name = "anon";
		else if (strncmp(line->name, "[anon:", 6) != 0)
			return 0; /* [vdso], [vvar] and what else is the kernel's */
		return 1;
	}
	if (!writable || maps_is_our_own(line->name))
		return 0;
	out->kind = shared ? AREA_SHARED : AREA_DATA;
	if (maps_has_memory_name(line->name))
		return 1;
	if (strncmp(line->name, "/dev/", 5) == 0 && strncmp(line->name, "/dev/shm/", 9) != 0)
		return 0;
	return !shared || maps_is_memory_device(maps, pid, line->major, line->minor);
}

static int maps_is_excluded(const struct maps *maps, const struct mapping *mapping)
{
	for (const char *const *pattern = maps->excluded; pattern && *pattern; pattern++) {
		if (fnmatch(*pattern, mapping->name, 0) == 0 || strcmp(*pattern, area_kind_name(mapping->kind)) == 0)
			return 1;
	}
	return 0;
}

/* --------------------------------------------------------------------------------------------------------- lines -- */

/* A number and the character that must follow it; moves *at after both. 1: so it was. */
static int maps_take_number(char **at, int base, char after, uint64_t *number)
{
	char *end;

	if (!isxdigit((unsigned char)**at))
		return 0;
	*number = strtoull(*at, &end, base);
	if (*end != after)
		return 0;
	*at = end + 1;
	return 1;
}

/* "start-end perms offset major:minor inode   name", of which nothing may be missing but the name. 1: so it was. */
static int maps_parse_fields(char *at, struct line *line)
{
	uint64_t offset;
	uint64_t major;
	uint64_t minor;

	if (!maps_take_number(&at, 16, '-', &line->start) || !maps_take_number(&at, 16, ' ', &line->end) ||
	    line->start >= line->end || strlen(at) < 5 || at[4] != ' ')
		return 0;
	memcpy(line->access, at, 4);
	line->access[4] = '\0';
	at += 5;
	if (!maps_take_number(&at, 16, ' ', &offset) || !maps_take_number(&at, 16, ':', &major) ||
	    !maps_take_number(&at, 16, ' ', &minor) || !isdigit((unsigned char)*at))
		return 0;
	line->major = (unsigned)major;
	line->minor = (unsigned)minor;
	line->inode = strtoull(at, &at, 10);
	line->name = at + strspn(at, " ");
	return 1;
}

/* Ends the line's name in place. The next line; NULL: not understood. */
static char *maps_parse_line(char *at, struct line *line)
{
	char *next = strchr(at, '\n');

	if (!next)
		return NULL;
	*next = '\0';
	return maps_parse_fields(at, line) ? next + 1 : NULL;
}

static int maps_append(struct maps *maps, const struct mapping *mapping)
{
	if (maps->count == maps->capacity) {
		size_t capacity = maps->capacity ? maps->capacity * 2 : 256;
		struct mapping *list = realloc(maps->list, capacity * sizeof(*list));

		if (!list)
			return -ENOMEM;
		maps->list = list;
		maps->capacity = capacity;
	}
	maps->list[maps->count++] = *mapping;
	return 0;
}

int maps_read(struct maps *maps, int fd, pid_t pid)
{
	int error = maps_read_text(maps, fd);
	char *at = maps->text;

	maps->count = 0;
	while (!error && at && *at) {
		struct mapping mapping = {0};
		struct line line = {0};

		at = maps_parse_line(at, &line);
		if (!at)
			error = -EBADMSG;
		else if (maps_classify(maps, pid, &line, &mapping) && !maps_is_excluded(maps, &mapping))
			error = maps_append(maps, &mapping);
	}
	return error;
}

void maps_fini(struct maps *maps)
{
	free(maps->text);
	free(maps->list);
	maps->text = NULL;
	maps->list = NULL;
	maps->text_size = maps->count = maps->capacity = 0;
}
