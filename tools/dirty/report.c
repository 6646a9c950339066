/* SPDX-License-Identifier: MIT */
/* See report.h: what the three have in common. */
#include "report.h"
#include "base/escape.h"

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

static int report_by_name(const void *a, const void *b)
{
	const struct area *left = *(const struct area *const *)a;
	const struct area *right = *(const struct area *const *)b;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	return strcmp(left->name, right->name);
}

static int report_by_written(const void *a, const void *b)
{
	const struct group *left = a;
	const struct group *right = b;

	if (left->written_bytes != right->written_bytes)
		return left->written_bytes < right->written_bytes ? 1 : -1;
	if (left->peak_bytes != right->peak_bytes)
		return left->peak_bytes < right->peak_bytes ? 1 : -1;
	return strcmp(left->name, right->name);
}

static const struct area **report_areas_by_name(const struct record *record)
{
	const struct area **list = malloc((record->area_count + 1) * sizeof(const struct area *));

	if (!list)
		return NULL;
	for (size_t i = 0; i < record->area_count; i++)
		list[i] = &record->areas[i];
	qsort(list, record->area_count, sizeof(const struct area *), report_by_name);
	return list;
}

struct group *report_groups(const struct record *record, size_t *count)
{
	const struct area **list = report_areas_by_name(record);
	struct group *groups = calloc(record->area_count + 1, sizeof(*groups));

	*count = 0;
	for (size_t i = 0; list && groups && i < record->area_count; i++) {
		struct group *group;

		if (i == 0 || report_by_name(&list[i - 1], &list[i]) != 0)
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
	qsort(groups, *count, sizeof(*groups), report_by_written);
	return groups;
}

void report_command(const struct report *report, char *line, size_t size)
{
	char raw[4096];
	size_t used = 0;

	raw[0] = '\0';
	for (char *const *word = report->argv; *word && used < sizeof(raw); word++) {
		int length = snprintf(raw + used, sizeof(raw) - used, "%s%s", used ? " " : "", *word);

		used += length > 0 ? (size_t)length : 0;
	}
	used = escape_text(line, size, raw, 0);
	if (used < size || size <= 4)
		return;
	/* Room for the dots, without half of a character before them. */
	(void)escape_text(line, size - 3, raw, 0);
	memcpy(line + strlen(line), "...", 4);
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

double report_peak_rate(const struct report *report, double *at_s)
{
	const struct record *record = report->record;
	double seconds = report_seconds(report);
	double mean = seconds > 0 ? (double)record->written_bytes / seconds : 0;
	int has_peak = record->peak_rate >= mean;

	*at_s = has_peak ? record->peak_s : seconds;
	return has_peak ? record->peak_rate : mean;
}
