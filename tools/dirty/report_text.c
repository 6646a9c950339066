/* SPDX-License-Identifier: MIT */
/* The summary for people: lines fit 80 columns, figures stand in columns, the most wanted comes first. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "units.h"

#define ROWS 12
#define NAME_WIDTH 28

static void report_text_print_head(const struct report *report, FILE *out)
{
	const struct record *record = report->record;
	char command[60]; /* and what stands before it: 80 columns */
	char ending[64];
	char each[UNITS_TEXT];
	double spent = (double)record->collect_ns / 1e6 / (double)(record->collects ? record->collects : 1);

	report_command(report, command, sizeof(command));
	report_ending(report, ending, sizeof(ending));
	(void)fprintf(out, "pages written by: %s\n", command);
	(void)fprintf(out, "  %-12s %.2f s, ended by %s\n", "ran", report->run_s, ending);
	if (!report->tracked)
		return;
	(void)fprintf(out, "  %-12s %" PRIu64 " times, every %s%s; each took %.2f ms (ours: %.1f %% of a CPU)\n",
	              "looked", record->collects, units_seconds(each, record->interval_s),
	              report->widened ? " or more" : "", spent,
	              report->run_s > 0 ? (double)record->collect_ns / 1e7 / report->run_s : 0);
}

static void report_text_print_cost(const struct report *report, FILE *out)
{
	(void)fprintf(out, "  %-12s about %" PRIu64 " faults of 1 us in the program: %.1f %% of its time\n", "cost",
	              report->faults, 100 * report_cost(report));
}

static void report_text_print_totals(const struct report *report, FILE *out)
{
	const struct record *record = report->record;
	double seconds = report_seconds(report);
	double peak_s;
	double peak = report_peak_rate(report, &peak_s);
	char a[UNITS_TEXT];
	char b[UNITS_TEXT];
	char c[UNITS_TEXT];

	(void)fprintf(out, "  %-12s %s, mean %s/s, most %s/s at %.1f s\n", "written",
	              units_bytes(a, (double)record->written_bytes),
	              units_bytes(b, seconds > 0 ? (double)record->written_bytes / seconds : 0), units_bytes(c, peak),
	              peak_s);
	(void)fprintf(out, "  %-12s %s in different pages of %s\n", "of that",
	              units_bytes(a, (double)(record->pages.unique * record->page_bytes)),
	              units_bytes(b, (double)record->page_bytes));
	(void)fprintf(out, "  %-12s %s at the end, %s at most: the size of a full snapshot\n", "populated",
	              units_bytes(a, (double)record->populated_bytes),
	              units_bytes(b, (double)record->populated_max_bytes));
	(void)fprintf(out, "  %-12s %s were written by the start, before main(); not counted\n", "before",
	              units_bytes(a, (double)record->start_bytes));
}

static void report_text_print_window(const struct report *report, const struct window *window, FILE *out)
{
	double whole = (double)report->record->populated_max_bytes;
	char every[UNITS_TEXT];
	char mean[UNITS_TEXT];
	char most[UNITS_TEXT];
	double bytes;

	if (!window->count) {
		(void)fprintf(out, "  %10s %10s %12s   (the run is shorter)\n", units_seconds(every, window->seconds),
		              "-", "-");
		return;
	}
	bytes = (double)window->sum_bytes / (double)window->count;
	(void)fprintf(out, "  %10s %10" PRIu64 " %12s %12s %13.1f %%\n", units_seconds(every, window->seconds),
	              window->count, units_bytes(mean, bytes), units_bytes(most, (double)window->max_bytes),
	              whole > 0 ? 100 * bytes / whole : 0);
}

static void report_text_print_windows(const struct report *report, FILE *out)
{
	const struct record *record = report->record;

	(void)fprintf(out, "\nIncrements: different pages written, if one saved them so often\n");
	(void)fprintf(out, "  %10s %10s %12s %12s %15s\n", "every", "increments", "mean", "largest", "of a snapshot");
	for (unsigned i = 0; i < PAGES_WINDOWS; i++) {
		if (i == 0 || record->windows[i].seconds > record->interval_s * 1.5)
			report_text_print_window(report, &record->windows[i], out);
	}
}

/* The end of a long name says more than its beginning. */
static const char *report_text_fit(const char *name, char buffer[NAME_WIDTH + 1])
{
	size_t length = strlen(name);

	if (length <= NAME_WIDTH)
		return name;
	(void)snprintf(buffer, NAME_WIDTH + 1, "...%s", name + length - (NAME_WIDTH - 3));
	return buffer;
}

static void report_text_print_group(const struct report *report, const struct group *group, FILE *out)
{
	double all = (double)report->record->written_bytes;
	char populated[UNITS_TEXT];
	char written[UNITS_TEXT];
	char unique[UNITS_TEXT];
	char cut[NAME_WIDTH + 1];
	char name[AREA_NAME + 32];

	if (group->areas > 1)
		(void)snprintf(name, sizeof(name), "%s (%zu areas)", group->name, group->areas);
	else
		(void)snprintf(name, sizeof(name), "%s", group->name);
	(void)fprintf(out, "  %-*s %11s %11s %11s %7.1f %%\n", NAME_WIDTH, report_text_fit(name, cut),
	              units_bytes(populated, (double)group->peak_bytes),
	              units_bytes(written, (double)group->written_bytes),
	              units_bytes(unique, (double)group->unique_bytes),
	              all > 0 ? 100 * (double)group->written_bytes / all : 0);
}

static void report_text_print_groups(const struct report *report, FILE *out)
{
	size_t count;
	struct group *groups = report_groups(report->record, &count);

	if (!groups)
		return;
	(void)fprintf(out, "\n  %-*s %11s %11s %11s %9s\n", NAME_WIDTH, "mapping", "populated", "written", "different",
	              "of all");
	for (size_t i = 0; i < count && i < ROWS; i++)
		report_text_print_group(report, &groups[i], out);
	if (count > ROWS)
		(void)fprintf(out, "  and %zu others (--json has them)\n", count - ROWS);
	free(groups);
}

static void report_text_print_hot_range(const struct report *report, const struct hot_range *range, FILE *out)
{
	const struct record *record = report->record;
	uint64_t start = range->first * record->page_bytes;
	const struct area *area = record_area_of(record, start);
	double share = (double)range->hits / (double)range->count / (double)record->collects;
	char size[UNITS_TEXT];
	char cut[NAME_WIDTH + 1];

	(void)fprintf(out, "  %012" PRIx64 "-%012" PRIx64 " %10s %8.1f %%   %s\n", start,
	              start + range->count * record->page_bytes,
	              units_bytes(size, (double)(range->count * record->page_bytes)), share < 1 ? 100 * share : 100,
	              area ? report_text_fit(area->name, cut) : "?");
}

static void report_text_print_hottest(const struct report *report, FILE *out)
{
	struct hot_range hottest[REPORT_HOT];
	size_t count = pages_hottest(&report->record->pages, hottest, REPORT_HOT);

	if (!count)
		return;
	(void)fprintf(out, "\n  %-25s %10s %10s   %s\n", "hottest ranges", "size", "of looks", "mapping");
	for (size_t i = 0; i < count; i++)
		report_text_print_hot_range(report, &hottest[i], out);
}

/* Words up to column 78, each line after two blanks. */
static void report_text_print_wrapped(FILE *out, const char *text)
{
	unsigned at = 2;

	(void)fputs("  ", out);
	while (*text) {
		unsigned length = (unsigned)strcspn(text, " ");

		if (at > 2 && at + length + 1 > 78) {
			(void)fputs("\n  ", out);
			at = 2;
		} else if (at > 2) {
			(void)fputc(' ', out);
			at++;
		}
		(void)fwrite(text, 1, length, out);
		at += length;
		text += length;
		text += strspn(text, " ");
	}
	(void)fputc('\n', out);
}

int report_text(const struct report *report, FILE *out)
{
	report_text_print_head(report, out);
	if (report->tracked) {
		report_text_print_cost(report, out);
		report_text_print_totals(report, out);
		report_text_print_windows(report, out);
		report_text_print_groups(report, out);
		report_text_print_hottest(report, out);
	}
	if (report->note_count)
		(void)fprintf(out, "\nNotes\n");
	for (unsigned i = 0; i < report->note_count; i++)
		report_text_print_wrapped(out, report->notes[i]);
	return 0;
}
