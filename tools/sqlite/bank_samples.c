/* SPDX-License-Identifier: MIT */
/*
 * Every transaction's latency, kept whole: percentiles are exact, and a transaction that was running when a save began
 * counts for that save.
 */
#include "bank.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t bank_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static int samples_reserve(struct samples *samples, size_t count)
{
	if (count <= samples->room)
		return 0;
	size_t room = samples->room * 2 > count ? samples->room * 2 : count;
	struct sample *list = realloc(samples->list, room * sizeof(*list));
	if (!list)
		return -1;
	samples->list = list;
	samples->room = room;
	return 0;
}

int samples_add(struct samples *samples, struct sample sample)
{
	if (samples_reserve(samples, samples->count + 1) < 0)
		return -1;
	samples->list[samples->count++] = sample;
	return 0;
}

int samples_append(struct samples *samples, const struct samples *more)
{
	if (more->count == 0)
		return 0;
	if (samples_reserve(samples, samples->count + more->count) < 0)
		return -1;
	memcpy(samples->list + samples->count, more->list, more->count * sizeof(*more->list));
	samples->count += more->count;
	return 0;
}

static int bank_samples_belongs(const struct sample *sample, const struct interval *interval, enum samples_rule rule)
{
	uint64_t end_ns = sample->start_ns + sample->latency_ns;
	if (rule == SAMPLES_INSIDE)
		return sample->start_ns >= interval->from_ns && end_ns <= interval->to_ns;
	return sample->start_ns < interval->to_ns && end_ns > interval->from_ns;
}

static int bank_samples_belongs_to_any(const struct sample *sample, const struct interval *intervals, size_t count,
                                       enum samples_rule rule)
{
	size_t i = 0;
	while (i < count && !bank_samples_belongs(sample, &intervals[i], rule))
		i++;
	return i < count;
}

static int bank_samples_compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

/* The smallest value that `per_mille` thousandths of the values do not exceed. */
static uint64_t bank_samples_percentile(const uint64_t *sorted, size_t count, size_t per_mille)
{
	size_t rank = (count * per_mille + 999) / 1000;
	return sorted[rank ? rank - 1 : 0];
}

int samples_measure(const struct samples *samples, const struct interval *intervals, size_t count,
                    enum samples_rule rule, struct latencies *out)
{
	uint64_t *values = malloc((samples->count + 1) * sizeof(*values));
	size_t found = 0;
	if (!values)
		return -1;
	for (size_t i = 0; i < samples->count; i++)
		if (bank_samples_belongs_to_any(&samples->list[i], intervals, count, rule))
			values[found++] = samples->list[i].latency_ns;
	*out = (struct latencies){.count = found};
	if (found) {
		qsort(values, found, sizeof(*values), bank_samples_compare);
		out->p50_ns = bank_samples_percentile(values, found, 500);
		out->p99_ns = bank_samples_percentile(values, found, 990);
		out->p999_ns = bank_samples_percentile(values, found, 999);
		out->max_ns = values[found - 1];
	}
	free(values);
	return 0;
}
