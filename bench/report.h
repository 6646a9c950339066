/* SPDX-License-Identifier: MIT */
/*
 * The figures of one run, by name, and what becomes of them: JSON, and the comparison with the bars.
 *
 * A name is question.case.contender.figure_unit, lower case, from the general to the special. A file of bars has a line
 * for each: figure, relation (<=, <, >=, >), value, and why; # starts a comment. The bars of other questions are passed
 * over; a bar of this question whose figure was not measured is an error, so that a renamed figure cannot hide.
 */
#ifndef UFFDWP_BENCH_REPORT_H
#define UFFDWP_BENCH_REPORT_H

#include <stddef.h>
#include <stdio.h>

struct bench_settings;

struct figure {
	char name[96];
	double value;
	double low; /* of the runs that value stands for; equal to value where there was one */
	double high;
};

struct note {
	char key[32];
	char text[160];
};

struct report {
	const char *question;
	const char *bar; /* a pattern of the shell: other bars are passed over; NULL: none is */
	struct figure *figures;
	size_t figure_count;
	struct note notes[16];
	size_t note_count;
};

void report_init(struct report *report, const char *question);
void report_fini(struct report *report);

/* Adds a figure whose name is the question, a dot, and the formatted text. */
void report_add(struct report *report, double value, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same with the range that the value stands for. */
void report_add_range(struct report *report, double value, double low, double high, const char *format, ...)
        __attribute__((format(printf, 5, 6)));

/* The same for a figure that is the median of `count` runs; sorts the values. */
double report_add_median(struct report *report, double *values, size_t count, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/* Adds what a reader must know: how things were placed, sizes. Printed above the table and kept in the JSON. */
void report_note(struct report *report, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
void report_print_notes(const struct report *report);

/* The figure of a full name, or NULL. */
const struct figure *report_find(const struct report *report, const char *name);

/* Compares with the bars in `file`; lines for what is missed or wrong go to `to`. 0, BENCH_EXIT_MISSED or
 * BENCH_EXIT_ERROR (a bar that cannot be read, or whose figure is unknown). */
int report_check(const struct report *report, FILE *file, FILE *to);

/* 1 where the bars of `path` have a figure that begins with `prefix` and, unless NULL, matches `pattern`. */
int report_bars_have(const char *path, const char *pattern, const char *prefix);

/* Prints JSON and compares with the bars, as asked. The exit code of the program. */
int report_finish(struct report *report, const struct bench_settings *settings);

#endif
