/* SPDX-License-Identifier: MIT */
/* See trace_names.h. */
#include "trace_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "live_wait.h"

#define TRACE_AGAIN_MS 1000
#define TRACE_MAPPINGS_MAX 262144

void trace_names_init(struct trace_names *names, int64_t pid)
{
	memset(names, 0, sizeof(*names));
	names->pid = pid;
}

static void trace_names_forget(struct trace_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->mappings[i].name);
	names->count = 0;
}

void trace_names_fini(struct trace_names *names)
{
	trace_names_forget(names);
	free(names->mappings);
	names->mappings = NULL;
	names->room = 0;
}

/* ---------------------------------------------------------------------------------------------------- threads -- */

static void trace_names_read_thread(const struct trace_names *names, struct trace_thread *thread, uint64_t tid)
{
	char path[80];
	char name[32] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%lld/task/%llu/comm", (long long)names->pid, (unsigned long long)tid);
	file = fopen(path, "re");
	if (file && !fgets(name, sizeof(name), file))
		name[0] = '\0';
	if (file)
		(void)fclose(file);
	name[strcspn(name, "\n")] = '\0';
	(void)escape_text(thread->name, sizeof(thread->name), name[0] ? name : "?", 0);
	thread->tid = tid;
}

/* A slot is another thread's when two numbers meet there: then the name is read again. */
const char *trace_names_thread(struct trace_names *names, uint64_t tid)
{
	struct trace_thread *thread = &names->threads[tid % TRACE_THREADS];

	if (tid == 0)
		return "?";
	if (thread->tid != tid)
		trace_names_read_thread(names, thread, tid);
	return thread->name;
}

/* --------------------------------------------------------------------------------------------------- mappings -- */

static struct trace_mapping *trace_names_add(struct trace_names *names)
{
	if (names->count == names->room) {
		size_t room = names->room ? 2 * names->room : 256;
		struct trace_mapping *more;

		if (room > TRACE_MAPPINGS_MAX)
			return NULL;
		more = realloc(names->mappings, room * sizeof(*more));
		if (!more)
			return NULL;
		names->mappings = more;
		names->room = room;
	}
	return &names->mappings[names->count++];
}

/* What is after so many words of a line, without the blanks before it. */
static const char *trace_names_after(const char *line, int words)
{
	for (int i = 0; i < words; i++) {
		line += strcspn(line, " ");
		line += strspn(line, " ");
	}
	return line;
}

/* "start-end rwxp offset dev inode   path". -1: no such line, or no memory. */
static int trace_names_take_line(struct trace_names *names, char *line)
{
	char escaped[512];
	char *end;
	uint64_t start = strtoull(line, &end, 16);
	struct trace_mapping *mapping;
	const char *path;

	line[strcspn(line, "\n")] = '\0';
	path = trace_names_after(line, 5);
	(void)escape_text(escaped, sizeof(escaped), *path ? path : "anonymous", 0);
	mapping = *end == '-' ? trace_names_add(names) : NULL;
	if (!mapping)
		return -1;
	*mapping = (struct trace_mapping){.start = start, .end = strtoull(end + 1, NULL, 16), .name = strdup(escaped)};
	return mapping->name ? 0 : -1;
}

static void trace_names_read_mappings(struct trace_names *names)
{
	char path[64];
	char *line = NULL;
	size_t size = 0;
	FILE *file;

	names->read_ms = live_wait_now_ms();
	trace_names_forget(names);
	(void)snprintf(path, sizeof(path), "/proc/%lld/maps", (long long)names->pid);
	file = fopen(path, "re");
	while (file && getline(&line, &size, file) > 0 && trace_names_take_line(names, line) == 0)
		;
	free(line);
	if (file)
		(void)fclose(file);
}

static const char *trace_names_find(const struct trace_names *names, uint64_t address)
{
	size_t low = 0;
	size_t high = names->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct trace_mapping *mapping = &names->mappings[middle];

		if (address >= mapping->end)
			low = middle + 1;
		else if (address < mapping->start)
			high = middle;
		else
			return mapping->name ? mapping->name : "?";
	}
	return NULL;
}

const char *trace_names_mapping(struct trace_names *names, uint64_t address)
{
	const char *name = trace_names_find(names, address);

	if (!name && (!names->read_ms || live_wait_now_ms() - names->read_ms >= TRACE_AGAIN_MS)) {
		trace_names_read_mappings(names);
		name = trace_names_find(names, address);
	}
	return name ? name : "?";
}
