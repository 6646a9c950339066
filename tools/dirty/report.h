/* SPDX-License-Identifier: MIT */
/* What is reported at the end, in three forms: text for people, JSON for programs, a picture. All only read the
 * record. */
#ifndef UFFDWP_DIRTY_REPORT_H
#define UFFDWP_DIRTY_REPORT_H

#include <stdio.h>
#include <sys/types.h>

#include "record.h"

#define REPORT_NOTES 8
#define REPORT_HOT 10

struct report {
	const struct record *record;
	char *const *argv;
	pid_t pid;
	int status;      /* of waitpid(2) */
	double run_s;    /* from start to end of the program */
	int tracked;     /* 1: there was a collect */
	uint64_t faults; /* that the wp bits cost: about one for each page found written */
	int widened;     /* some looks came later than the interval, to cost the program less */
	int complete;    /* 1: the last collect came after the last write */
	unsigned note_count;
	char notes[REPORT_NOTES][240]; /* what the reader should know about the figures */
};

__attribute__((format(printf, 2, 3))) void report_note(struct report *report, const char *format, ...);

/* Mappings of one name, taken together. */
struct group {
	const char *name;
	enum area_kind kind;
	size_t areas;
	uint64_t written_bytes;
	uint64_t unique_bytes;
	uint64_t populated_bytes;
	uint64_t peak_bytes; /* when most was populated: these sums make up the size of a full snapshot */
};

/* By bytes written, most first. To be freed; NULL where there are none, or no memory. */
struct group *report_groups(const struct record *record, size_t *count);

/* The program's command line, cut to what fits. */
void report_command(const struct report *report, char *line, size_t size);

/* "exit status 3", "signal 9 (Killed)" */
void report_ending(const struct report *report, char *text, size_t size);

/* The share of its time that the program paid, estimated by what such a fault takes on most machines. */
double report_cost(const struct report *report);

/* Seconds that were measured, from the first collect on. */
double report_seconds(const struct report *report);

/* The highest rate of one look and when it was seen. A program that ended within half an interval has no look that is
 * long enough: its mean is all that is known. */
double report_peak_rate(const struct report *report, double *at_s);

/* All answer 0, or -1 where there is no memory. Errors of the stream are left to ferror(). */
int report_text(const struct report *report, FILE *out);
int report_json(const struct report *report, FILE *out);
int report_svg(const struct report *report, FILE *out);

#endif
