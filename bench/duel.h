/* SPDX-License-Identifier: MIT */
/*
 * A duel: several methods for the same, tried in turns within one run. A round tries each side once, on the same choice
 * of pages; the order changes from round to round. What is compared are pairs of one round, so that whatever slows the
 * machine down for a while slows both of a pair.
 *
 * Each side works on memory of its own, and where that lies matters by some per cent, for as long as it lies there. So
 * a duel has three turns, between which the caller lets the sides change places. The ratio of two sides is the
 * geometric mean of the medians of the turns: each side was in each place as often, and the places cancel.
 *
 * A trial in whose timed part the kernel gave the CPU to another program is made again, a few times: the work is the
 * same each time, and how long others had the CPU says nothing of it.
 *
 * One rival is there twice: what these two differ by is what the duel cannot resolve (an A/A control). Its noise is the
 * far end of the 95 % interval of their ratio, as a distance from 1. A duel whose noise exceeds its tolerance is fought
 * again from the start, twice at most. The decision looks at the control only, never at the side that is judged; all
 * figures are of the last attempt, and say which it was.
 *
 * Threads: the caller's, which is pinned.
 */
#ifndef UFFDWP_BENCH_DUEL_H
#define UFFDWP_BENCH_DUEL_H

#include <stddef.h>
#include <stdint.h>

#define DUEL_SIDES 6
#define DUEL_TURNS 3
#define DUEL_TURN_ROUNDS 67 /* at most */
#define DUEL_ROUNDS ((size_t)DUEL_TURNS * DUEL_TURN_ROUNDS)
#define DUEL_ATTEMPTS 3

struct report;

struct duel_side {
	const char *name; /* in figures */
	void *self;
	/* What it took, in ns; *disturbed becomes 1 where another program had the CPU meanwhile. */
	uint64_t (*trial)(void *self, int *disturbed);
};

struct duel {
	struct duel_side sides[DUEL_SIDES];
	size_t count;
	size_t bare;  /* the side that the others are compared with */
	size_t again; /* its twin */
	double tolerance;
	uint64_t budget_ns;                              /* for the rounds of one attempt */
	unsigned rounds_min;                             /* of a turn, also beyond the budget */
	void (*before_round)(void *user, uint64_t seed); /* each round has a seed of its own */
	void *user;

	uint64_t retry_until_ns; /* on bench_now_ns(): later a duel is not fought again */

	/* The outcome. */
	uint64_t round_ns;     /* what a round takes, about */
	unsigned spare_trials; /* instead of disturbed ones, in this turn */
	unsigned turn;         /* that comes next */
	unsigned rounds;       /* of each turn */
	unsigned attempts;
	int decided;
	double noise;
	double times_ns[DUEL_SIDES][DUEL_ROUNDS]; /* turn after turn */
};

/* The value of rank `quantile` (0 to 1) of sorted values, the nearest one; the middle of the two middle ones for 0.5.
 */
double duel_quantile(const double *sorted, size_t count, double quantile);

/*
 * The median of values and how far it can be trusted: *half is half of its 95 % interval, 1.57 times the middle half of
 * the values over the root of their number (the notch of R. McGill's box plots, 1978). Sorts the values.
 */
double duel_median(double *values, size_t count, double *half);

/*
 * The ratio of two sides over DUEL_TURNS turns of `rounds` each, a and b pair by pair; *half is half of its 95 %
 * interval, *low and *high are the turns that lie farthest apart.
 */
struct duel_ratio {
	double value;
	double half;
	double low;
	double high;
};
struct duel_ratio duel_compare(const double *a, const double *b, unsigned rounds);

/* The noise of an A/A control. */
double duel_noise(struct duel_ratio control);

/* Fights the next turn, unless the duel is decided: 1 if it was fought. */
int duel_turn(struct duel *duel);

/* 1: all turns were fought, and the noise allows an answer, or there is no other attempt. */
int duel_is_decided(const struct duel *duel);

/* The ratio of two sides of a duel that is decided. */
struct duel_ratio duel_ratio(const struct duel *duel, size_t side, size_t other);

/* Adds "prefix.SIDE.p50_ns" and "p99_ns" of each side, its ratio to `bare`, the noise and the attempts. */
void duel_report(const struct duel *duel, struct report *report, const char *prefix);

/* Adds "prefix.SIDE.ratio_OTHER". */
void duel_report_ratio(const struct duel *duel, struct report *report, const char *prefix, size_t side, size_t other);

/* Standard output: a side's p50 and p99 in microseconds. */
void duel_print_times(const struct duel *duel, size_t side);

/* Standard output: says that the duel was fought again, or that it has no answer; else nothing. */
void duel_print_noise(const struct duel *duel);

#endif
