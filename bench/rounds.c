/* SPDX-License-Identifier: MIT */
/*
 * See rounds.h. Values stay in the order of rounds: what sorts them sorts a copy.
 */
#include "rounds.h"

#include <string.h>

#include "bench.h"
#include "duel.h"

void rounds_keep(struct rounds *rounds, double value)
{
	if (rounds->count == ROUNDS_MAX)
		bench_die("more than %d rounds", ROUNDS_MAX);
	rounds->values[rounds->count++] = value;
}

double rounds_median(const struct rounds *rounds)
{
	double sorted[ROUNDS_MAX];
	double half;

	memcpy(sorted, rounds->values, sizeof(sorted));
	return rounds->count ? duel_median(sorted, rounds->count, &half) : 0;
}

void rounds_over(const struct rounds *rounds, const struct rounds *other, struct rounds *ratios)
{
	unsigned count = rounds->count < other->count ? rounds->count : other->count;

	memset(ratios, 0, sizeof(*ratios));
	for (unsigned i = 0; i < count; i++) {
		if (other->values[i] > 0)
			rounds_keep(ratios, rounds->values[i] / other->values[i]);
	}
}

double rounds_ratio(const struct rounds *rounds, const struct rounds *other)
{
	struct rounds ratios;

	rounds_over(rounds, other, &ratios);
	return rounds_median(&ratios);
}

void rounds_report(struct report *report, const struct rounds *rounds, const char *name)
{
	double copy[ROUNDS_MAX];

	memcpy(copy, rounds->values, sizeof(copy));
	if (rounds->count)
		report_add_median(report, copy, rounds->count, "%s", name);
}
