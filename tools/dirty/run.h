/* SPDX-License-Identifier: MIT */
/* A run of a program under observation, from its start to its end: the one loop that waits for all that may happen. */
#ifndef UFFDWP_DIRTY_RUN_H
#define UFFDWP_DIRTY_RUN_H

#include <stdint.h>
#include <stdio.h>

#include "launch.h"
#include "live.h"
#include "record.h"
#include "report.h"
#include "target.h"

struct run {
	/* Set by the caller. */
	char *const *argv;
	double interval_s;
	int widens; /* looks come less often where they would cost the program too much */
	const char *const *excluded;
	enum live_mode live_mode;
	FILE *lines;    /* for plain lines of the live view; NULL: stderr */
	unsigned flags; /* enum hello_flags */

	struct launch launch;
	struct target target;
	struct record record;
	struct live live;
	struct report report;
	double started_s; /* of the monotonic clock */
	double first_s;   /* of the first collect, there */
	double next_s;    /* when the next collect is due */
	double measured_s;
	uint64_t written_before; /* bytes, by all looks but the last */
	double measure_cost_s;
	double left_s;   /* when the program went to one that is not tracked; 0: it did not */
	int refused;     /* exit code with which the program was asked to end before main() */
	int final_error; /* of the last collect */
};

/* Runs the program. 0: it ran, and the report is filled; else an exit code, and the complaint was printed. */
int run_program(struct run *run);

void run_fini(struct run *run);

#endif
