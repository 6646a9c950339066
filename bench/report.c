/* SPDX-License-Identifier: MIT */
/*
 * See report.h. Lines of missed bars go to standard output for people, to standard error beside JSON.
 *
 * Threads: the main thread only.
 */
#include "report.h"

#include <errno.h>
#include <fnmatch.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <uffdwp.h>

#include "bench.h"

void report_init(struct report *report, const char *question)
{
	struct utsname system;

	memset(report, 0, sizeof(*report));
	report->question = question;
	report_note(report, "library", "%s", uffdwp_version());
	if (!uname(&system))
		report_note(report, "kernel", "%s %s, %d CPUs", system.release, system.machine, bench_cpus());
}

void report_fini(struct report *report)
{
	free(report->figures);
	memset(report, 0, sizeof(*report));
}

static struct figure *grow(struct report *report)
{
	struct figure *figures;

	figures = realloc(report->figures, (report->figure_count + 1) * sizeof(*figures));
	if (!figures)
		bench_die("no memory for the figures");
	report->figures = figures;
	return &figures[report->figure_count++];
}

__attribute__((format(printf, 3, 0))) static void add(struct report *report, struct figure figure, const char *format,
                                                      va_list arguments)
{
	int head = snprintf(figure.name, sizeof(figure.name), "%s.", report->question);

	vsnprintf(figure.name + head, sizeof(figure.name) - (size_t)head, format, arguments);
	if (report_find(report, figure.name))
		bench_die("%s is measured twice", figure.name);
	*grow(report) = figure;
}

void report_add(struct report *report, double value, const char *format, ...)
{
	struct figure figure = {.value = value, .low = value, .high = value};
	va_list arguments;

	va_start(arguments, format);
	add(report, figure, format, arguments);
	va_end(arguments);
}

void report_add_range(struct report *report, double value, double low, double high, const char *format, ...)
{
	struct figure figure = {.value = value, .low = low, .high = high};
	va_list arguments;

	va_start(arguments, format);
	add(report, figure, format, arguments);
	va_end(arguments);
}

static int ascending(const void *a, const void *b)
{
	const double *x = a;
	const double *y = b;

	return (*x > *y) - (*x < *y);
}

double report_add_median(struct report *report, double *values, size_t count, const char *format, ...)
{
	struct figure figure = {.value = 0};
	va_list arguments;

	qsort(values, count, sizeof(*values), ascending);
	figure.value = (values[(count - 1) / 2] + values[count / 2]) / 2;
	figure.low = values[0];
	figure.high = values[count - 1];
	va_start(arguments, format);
	add(report, figure, format, arguments);
	va_end(arguments);
	return figure.value;
}

void report_note(struct report *report, const char *key, const char *format, ...)
{
	struct note *note = &report->notes[report->note_count];
	va_list arguments;

	if (report->note_count == sizeof(report->notes) / sizeof(report->notes[0]))
		bench_die("too many notes");
	snprintf(note->key, sizeof(note->key), "%s", key);
	va_start(arguments, format);
	vsnprintf(note->text, sizeof(note->text), format, arguments);
	va_end(arguments);
	report->note_count++;
}

void report_print_notes(const struct report *report)
{
	for (size_t i = 0; i < report->note_count; i++)
		printf("%-10s %s\n", report->notes[i].key, report->notes[i].text);
}

const struct figure *report_find(const struct report *report, const char *name)
{
	for (size_t i = 0; i < report->figure_count; i++) {
		if (!strcmp(report->figures[i].name, name))
			return &report->figures[i];
	}
	return NULL;
}

/* 1: holds, 0: does not, -1: no such relation. */
static int holds(double value, const char *relation, double bar)
{
	if (!strcmp(relation, "<="))
		return value <= bar;
	if (!strcmp(relation, "<"))
		return value < bar;
	if (!strcmp(relation, ">="))
		return value >= bar;
	if (!strcmp(relation, ">"))
		return value > bar;
	return -1;
}

static int of_question(const struct report *report, const char *name)
{
	size_t length = strlen(report->question);

	return !strncmp(name, report->question, length) && name[length] == '.';
}

struct bar {
	char figure[96];
	char relation[3];
	double value;
	const char *why;
};

/* 1: *bar is what the line says, 0: it says something else. */
static int read_bar(const char *line, struct bar *bar)
{
	int head = 0;
	char *end;

	if (sscanf(line, "%95s %2s %n", bar->figure, bar->relation, &head) != 2 || holds(0, bar->relation, 0) < 0)
		return 0;
	bar->value = strtod(line + head, &end);
	bar->why = end + strspn(end, " \t");
	return end != line + head && bar->why != end && *bar->why;
}

static int is_asked_for(const char *pattern, const char *name)
{
	return !pattern || fnmatch(pattern, name, 0) == 0;
}

static int check_line(const struct report *report, char *line, unsigned number, FILE *to)
{
	const struct figure *figure;
	struct bar bar;

	line[strcspn(line, "#\n")] = '\0';
	if (!line[strspn(line, " \t")])
		return 0;
	if (!read_bar(line, &bar)) {
		fprintf(to, "bars, line %u: not \"figure relation value why\"\n", number);
		return BENCH_EXIT_ERROR;
	}
	if (!of_question(report, bar.figure) || !is_asked_for(report->bar, bar.figure))
		return 0;
	figure = report_find(report, bar.figure);
	if (!figure) {
		fprintf(to, "bars, line %u: %s was not measured\n", number, bar.figure);
		return BENCH_EXIT_ERROR;
	}
	if (holds(figure->value, bar.relation, bar.value))
		return 0;
	fprintf(to, "missed: %s is %.4g, bar %s %.4g (%s)\n", bar.figure, figure->value, bar.relation, bar.value,
	        bar.why);
	return BENCH_EXIT_MISSED;
}

int report_check(const struct report *report, FILE *file, FILE *to)
{
	char line[512];
	int worst = 0;

	for (unsigned number = 1; fgets(line, sizeof(line), file); number++) {
		int code = check_line(report, line, number, to);

		if (code > worst)
			worst = code;
	}
	return ferror(file) ? BENCH_EXIT_ERROR : worst;
}

static FILE *open_bars(const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		bench_die("%s: %s", path, strerror(errno));
	return file;
}

int report_bars_have(const char *path, const char *pattern, const char *prefix)
{
	FILE *file = open_bars(path);
	char line[512];
	struct bar bar;
	int found = 0;

	while (!found && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\n")] = '\0';
		found = read_bar(line, &bar) && is_asked_for(pattern, bar.figure) &&
		        !strncmp(bar.figure, prefix, strlen(prefix));
	}
	fclose(file);
	return found;
}

static struct json_object *figure_json(const struct figure *figure)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "value", json_object_new_double(figure->value));
	json_object_object_add(object, "low", json_object_new_double(figure->low));
	json_object_object_add(object, "high", json_object_new_double(figure->high));
	return object;
}

static void print_json(const struct report *report)
{
	struct json_object *root = json_object_new_object();
	struct json_object *notes = json_object_new_object();
	struct json_object *figures = json_object_new_object();

	for (size_t i = 0; i < report->note_count; i++)
		json_object_object_add(notes, report->notes[i].key, json_object_new_string(report->notes[i].text));
	for (size_t i = 0; i < report->figure_count; i++)
		json_object_object_add(figures, report->figures[i].name, figure_json(&report->figures[i]));
	json_object_object_add(root, "question", json_object_new_string(report->question));
	json_object_object_add(root, "notes", notes);
	json_object_object_add(root, "figures", figures);
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
	json_object_put(root);
}

static int check(struct report *report, const char *path, const char *bar, FILE *to)
{
	FILE *file = fopen(path, "re");
	int code;

	if (!file) {
		fprintf(to, "%s: %s\n", path, strerror(errno));
		return BENCH_EXIT_ERROR;
	}
	report->bar = bar;
	code = report_check(report, file, to);
	fclose(file);
	if (bar && !report_bars_have(path, bar, report->question)) {
		fprintf(to, "%s: no bar of %s is called %s\n", path, report->question, bar);
		return BENCH_EXIT_ERROR;
	}
	if (code == 0)
		fputs("every bar held\n", to);
	return code;
}

int report_finish(struct report *report, const struct bench_settings *settings)
{
	if (settings->json)
		print_json(report);
	return settings->check ? check(report, settings->bars, settings->bar, settings->json ? stderr : stdout) : 0;
}
