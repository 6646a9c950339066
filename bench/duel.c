/* SPDX-License-Identifier: MIT */
/*
 * See duel.h. The first rounds of a turn are not kept: they warm up caches, page tables and the clock of the CPU. What
 * a round takes is known from the last of them, and with it how many fit into the budget.
 */
#include "duel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "report.h"

/* At most, and as long as they take less than a quarter of a turn. */
#define WARM_ROUNDS 3
#define RETRIES 4

static int ascending(const void *a, const void *b)
{
	const double *x = a;
	const double *y = b;

	return (*x > *y) - (*x < *y);
}

double duel_quantile(const double *sorted, size_t count, double quantile)
{
	size_t rank = (size_t)fmax(1.0, ceil(quantile * (double)count));

	if (quantile == 0.5)
		return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
	return sorted[rank - 1];
}

double duel_median(double *values, size_t count, double *half)
{
	qsort(values, count, sizeof(*values), ascending);
	*half = 1.57 * (duel_quantile(values, count, 0.75) - duel_quantile(values, count, 0.25)) / sqrt((double)count);
	return duel_quantile(values, count, 0.5);
}

static double turn_median(const double *a, const double *b, unsigned rounds, double *half)
{
	double ratios[DUEL_TURN_ROUNDS];

	for (unsigned i = 0; i < rounds; i++)
		ratios[i] = a[i] / b[i];
	return duel_median(ratios, rounds, half);
}

/* Halves of intervals add as squares, being errors of their own each. */
struct duel_ratio duel_compare(const double *a, const double *b, unsigned rounds)
{
	struct duel_ratio ratio = {.value = 0, .low = HUGE_VAL};
	double logs = 0;
	double squares = 0;

	for (size_t turn = 0; turn < DUEL_TURNS; turn++) {
		double half;
		double median = turn_median(a + turn * rounds, b + turn * rounds, rounds, &half);

		logs += log(median);
		squares += half / median * (half / median);
		ratio.low = fmin(ratio.low, median);
		ratio.high = fmax(ratio.high, median);
	}
	ratio.value = exp(logs / DUEL_TURNS);
	ratio.half = ratio.value * sqrt(squares) / DUEL_TURNS;
	return ratio;
}

double duel_noise(struct duel_ratio control)
{
	return fabs(control.value - 1.0) + control.half;
}

/* Where nearly every trial is disturbed, trying again does not help: hence a bound for the turn, too. */
static uint64_t try_undisturbed(struct duel *duel, const struct duel_side *side)
{
	uint64_t took_ns;
	int disturbed = 0;

	took_ns = side->trial(side->self, &disturbed);
	for (int i = 0; i < RETRIES && disturbed && duel->spare_trials; i++) {
		duel->spare_trials--;
		disturbed = 0;
		took_ns = side->trial(side->self, &disturbed);
	}
	return took_ns ? took_ns : 1;
}

/* The order goes round, and backwards every other time: no side always comes after the same one. */
static void fight_round(struct duel *duel, unsigned round, uint64_t seed, size_t keep)
{
	duel->before_round(duel->user, seed);
	for (size_t i = 0; i < duel->count; i++) {
		size_t place = round % 2 ? duel->count - 1 - i : i;
		size_t side = (place + round / 2) % duel->count;
		uint64_t took_ns = try_undisturbed(duel, &duel->sides[side]);

		if (keep != SIZE_MAX)
			duel->times_ns[side][keep] = (double)took_ns;
	}
}

static int is_long(const struct duel *duel)
{
	return duel->round_ns >= duel->budget_ns / DUEL_TURNS / 4;
}

/* Rounds that are not kept. For long ones the first turn's is enough: a side that changes places looks at all of its
 * memory. */
static void warm_up(struct duel *duel, uint64_t *seed)
{
	duel->spare_trials = 0;
	if (duel->turn && is_long(duel))
		return;
	for (unsigned i = 0; i < WARM_ROUNDS; i++) {
		uint64_t from = bench_now_ns();

		fight_round(duel, i, (*seed)++, SIZE_MAX);
		if (duel->turn == 0)
			duel->round_ns = bench_now_ns() - from;
		if (is_long(duel))
			return;
	}
}

static unsigned rounds_of(const struct duel *duel)
{
	uint64_t fit = duel->budget_ns / DUEL_TURNS / (duel->round_ns ? duel->round_ns : 1);

	if (fit > DUEL_TURN_ROUNDS)
		fit = DUEL_TURN_ROUNDS;
	return fit < duel->rounds_min ? duel->rounds_min : (unsigned)fit;
}

int duel_is_decided(const struct duel *duel)
{
	return duel->decided;
}

static void decide(struct duel *duel)
{
	duel->turn = 0;
	duel->attempts++;
	duel->noise = duel_noise(duel_ratio(duel, duel->again, duel->bare));
	duel->decided = duel->noise <= duel->tolerance || duel->attempts >= DUEL_ATTEMPTS ||
	                bench_now_ns() > duel->retry_until_ns;
}

int duel_turn(struct duel *duel)
{
	uint64_t seed = 1 + 10000 * duel->attempts + 1000 * duel->turn;

	if (duel_is_decided(duel))
		return 0;
	warm_up(duel, &seed);
	if (duel->turn == 0)
		duel->rounds = rounds_of(duel);
	duel->spare_trials = 4 + duel->rounds * (unsigned)duel->count / 4;
	for (unsigned i = 0; i < duel->rounds; i++)
		fight_round(duel, i, seed++, (size_t)duel->turn * duel->rounds + i);
	if (++duel->turn == DUEL_TURNS)
		decide(duel);
	return 1;
}

struct duel_ratio duel_ratio(const struct duel *duel, size_t side, size_t other)
{
	return duel_compare(duel->times_ns[side], duel->times_ns[other], duel->rounds);
}

void duel_report_ratio(const struct duel *duel, struct report *report, const char *prefix, size_t side, size_t other)
{
	struct duel_ratio ratio = duel_ratio(duel, side, other);

	report_add_range(report, ratio.value, ratio.low, ratio.high, "%s.%s.ratio_%s", prefix, duel->sides[side].name,
	                 duel->sides[other].name);
}

/* All times of a side, sorted; how many. */
static size_t sorted_times(const struct duel *duel, size_t side, double *times_ns)
{
	size_t count = (size_t)DUEL_TURNS * duel->rounds;

	memcpy(times_ns, duel->times_ns[side], count * sizeof(*times_ns));
	qsort(times_ns, count, sizeof(*times_ns), ascending);
	return count;
}

void duel_report(const struct duel *duel, struct report *report, const char *prefix)
{
	double times_ns[DUEL_ROUNDS];

	for (size_t i = 0; i < duel->count; i++) {
		size_t count = sorted_times(duel, i, times_ns);

		report_add_median(report, times_ns, count, "%s.%s.p50_ns", prefix, duel->sides[i].name);
		report_add(report, duel_quantile(times_ns, count, 0.99), "%s.%s.p99_ns", prefix, duel->sides[i].name);
		if (i != duel->bare)
			duel_report_ratio(duel, report, prefix, i, duel->bare);
	}
	report_add(report, duel->noise, "%s.noise", prefix);
	report_add(report, duel->attempts, "%s.attempts", prefix);
}

void duel_print_times(const struct duel *duel, size_t side)
{
	double times_ns[DUEL_ROUNDS];
	size_t count = sorted_times(duel, side, times_ns);

	printf(" %10.1f %10.1f", duel_quantile(times_ns, count, 0.5) / 1e3, duel_quantile(times_ns, count, 0.99) / 1e3);
}

void duel_print_noise(const struct duel *duel)
{
	if (duel->noise > duel->tolerance)
		printf("  noise %.0f %% in attempt %u: cannot resolve %.0f %%", duel->noise * 100, duel->attempts,
		       duel->tolerance * 100);
	else if (duel->attempts > 1)
		printf("  attempt %u, for noise", duel->attempts);
}
