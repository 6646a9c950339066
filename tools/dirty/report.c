/* SPDX-License-Identifier: MIT */
/* See report.h: what the three have in common. */
#include "report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define FAULT_S 1e-6 /* a write fault that the kernel resolves by itself: 0.7 to 1.3 us were seen */

void report_note(struct report *report, const char *format, ...)
{
	va_list arguments;

	if (report->note_count == REPORT_NOTES)
		return;
	va_start(arguments, format);
	(void)vsnprintf(report->notes[report->note_count++], sizeof(report->notes[0]), format, arguments);
	va_end(arguments);
}

static int by_name(const void *a, const void *b)
{
	const struct area *left = *(const struct area *const *)a;
	const struct area *right = *(const struct area *const *)b;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	return strcmp(left->name, right->name);
}

static int by_written(const void *a, const void *b)
{
	const struct group *left = a;
	const struct group *right = b;

	if (left->written_bytes != right->written_bytes)
		return left->written_bytes < right->written_bytes ? 1 : -1;
	if (left->peak_bytes != right->peak_bytes)
		return left->peak_bytes < right->peak_bytes ? 1 : -1;
	return strcmp(left->name, right->name);
}

static const struct area **areas_by_name(const struct record *record)
{
	const struct area **list = malloc((record->area_count + 1) * sizeof(const struct area *));

	if (!list)
		return NULL;
	for (size_t i = 0; i < record->area_count; i++)
		list[i] = &record->areas[i];
	qsort(list, record->area_count, sizeof(const struct area *), by_name);
	return list;
}

struct group *report_groups(const struct record *record, size_t *count)
{
	const struct area **list = areas_by_name(record);
	struct group *groups = calloc(record->area_count + 1, sizeof(*groups));

	*count = 0;
	for (size_t i = 0; list && groups && i < record->area_count; i++) {
		struct group *group;

		if (i == 0 || by_name(&list[i - 1], &list[i]) != 0)
			groups[(*count)++] = (struct group){.name = list[i]->name, .kind = list[i]->kind};
		group = &groups[*count - 1];
		group->areas++;
		group->written_bytes += list[i]->written_bytes;
		group->unique_bytes += list[i]->unique_bytes;
		group->populated_bytes += list[i]->populated_bytes;
		group->peak_bytes += list[i]->peak_bytes;
	}
	free(list);
	if (!groups || !*count) {
		free(groups);
		return NULL;
	}
	qsort(groups, *count, sizeof(*groups), by_written);
	return groups;
}

void report_command(const struct report *report, char *line, size_t size)
{
	size_t used = 0;

	line[0] = '\0';
	for (char *const *word = report->argv; *word && used < size; word++) {
		int length = snprintf(line + used, size - used, "%s%s", used ? " " : "", *word);

		used += length > 0 ? (size_t)length : 0;
	}
	for (char *at = line; *at; at++) {
		if ((unsigned char)*at < ' ')
			*at = ' ';
	}
	if (used >= size && size > 4)
		memcpy(line + size - 4, "...", 4);
}

void report_ending(const struct report *report, char *text, size_t size)
{
	if (WIFSIGNALED(report->status))
		(void)snprintf(text, size, "signal %d (%s)", WTERMSIG(report->status),
		               strsignal(WTERMSIG(report->status)));
	else
		(void)snprintf(text, size, "exit status %d", WEXITSTATUS(report->status));
}

double report_cost(const struct report *report)
{
	return report->run_s > 0 ? (double)report->faults * FAULT_S / report->run_s : 0;
}

double report_seconds(const struct report *report)
{
	return record_seconds(report->record);
}
