/* SPDX-License-Identifier: MIT */
/*
 * The values of one figure, one for each round in which a contender had its turn, and their comparison with those of
 * another contender: round by round, since what disturbs the machine in one round disturbs both.
 */
#ifndef UFFDWP_BENCH_ROUNDS_H
#define UFFDWP_BENCH_ROUNDS_H

#include "report.h"

#define ROUNDS_MAX 20

struct rounds {
	double values[ROUNDS_MAX];
	unsigned count;
};

/* Adds the value of the next round; ends the program where there are too many. */
void rounds_keep(struct rounds *rounds, double value);

/* 0: there are no values. */
double rounds_median(const struct rounds *rounds);

/* Each round's value over that of the same round of `other`; of as many rounds as both have. A round in which `other`
 * has 0 is left out: no ratio says anything. */
void rounds_over(const struct rounds *rounds, const struct rounds *other, struct rounds *ratios);

/* The median of that. 0: there is nothing to compare. */
double rounds_ratio(const struct rounds *rounds, const struct rounds *other);

/* Adds the median with its range, under `name`; nothing where there are no values. */
void rounds_report(struct report *report, const struct rounds *rounds, const char *name);

#endif
