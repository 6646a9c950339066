/* SPDX-License-Identifier: MIT */
/*
 * The frame of a trial: see trial.h. The main thread makes the cut and waits; it, and whatever it starts for a way,
 * runs on any CPU or, where asked, on the second one. The writers pin themselves.
 */
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "digest.h"

#define WARM_MS 100
#define BEFORE_MS 400

static void sleep_ms(unsigned ms)
{
	struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

static void sleep_until(uint64_t until_ns)
{
	struct timespec time = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
		;
}

/* What one trial left to write must not be written during the next. */
static void settle(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || syncfs(fd))
		bench_die("%s: %s", folder, strerror(errno));
	close(fd);
}

/* The writes per second before the snapshot. */
static double warm_up(struct load *load)
{
	static struct load_result before;
	uint64_t from;
	uint64_t took_ns;

	load_phase(load, LOAD_WARM);
	sleep_ms(WARM_MS);
	from = bench_now_ns();
	load_phase(load, LOAD_BEFORE);
	sleep_ms(BEFORE_MS);
	load_phase(load, LOAD_HOLD);
	took_ns = bench_now_ns() - from;
	load_result(load, LOAD_BEFORE, &before);
	return (double)before.times.count * 1e9 / (double)took_ns;
}

/* p50, p99, p99.9 and the largest: the order of the figures. */
static void add_quantiles(double *values, const struct histogram *times)
{
	values[0] = histogram_quantile(times, 0.5);
	values[1] = histogram_quantile(times, 0.99);
	values[2] = histogram_quantile(times, 0.999);
	values[3] = (double)times->largest_ns;
}

static void add_times(struct trial_result *result, const struct load_result *during, const struct load_result *after,
                      double before_per_s)
{
	static struct histogram window;
	double *values = result->values;

	window = during->times;
	histogram_merge(&window, &after->times);
	add_quantiles(&values[TRIAL_DURING_P50_NS], &during->times);
	add_quantiles(&values[TRIAL_WINDOW_P50_NS], &window);
	values[TRIAL_WRITES_PER_S] = (double)during->times.count * 1e9 / values[TRIAL_TOTAL_NS];
	values[TRIAL_WRITES_SHARE] = values[TRIAL_WRITES_PER_S] / before_per_s;
}

/* Cut, image, and what is left of the window. The digest of the memory at the cut, where the trial verifies. */
static uint64_t take(const struct trial_way *way, const struct trial_setup *setup, struct load *load,
                     const struct area *area, const char *path, struct trial_result *result)
{
	uint64_t digest = 0;
	uint64_t from;

	if (setup->verify)
		digest = digest_bytes(DIGEST_START, area->base, area->length_bytes);
	else
		load_phase(load, LOAD_DURING);
	from = bench_now_ns();
	way->begin(way, setup, path);
	if (setup->verify)
		load_phase(load, LOAD_DURING);
	way->wait();
	result->values[TRIAL_TOTAL_NS] = (double)(bench_now_ns() - from);
	load_phase(load, LOAD_AFTER);
	sleep_until(from + setup->window_ns);
	return digest;
}

void trial_run(const struct trial_way *way, const struct trial_setup *setup, struct trial_result *result)
{
	static struct load_result during;
	static struct load_result after;
	struct load load;
	struct area area;
	char path[512];
	double before_per_s;
	uint64_t digest;

	snprintf(path, sizeof(path), "%s/image", setup->folder);
	memset(result, 0, sizeof(*result));
	settle(setup->folder);
	bench_pin(setup->pin_other ? bench_cpu(1) : BENCH_ANY_CPU);
	way->open(way, setup, &area);
	area_fill(area.base, area.length_bytes, 1);
	load_start(&load, setup->pattern, area.base, area.length_bytes, setup->writer_count);
	before_per_s = warm_up(&load);
	digest = take(way, setup, &load, &area, path, result);
	load_stop(&load);
	load_result(&load, LOAD_DURING, &during);
	load_result(&load, LOAD_AFTER, &after);
	add_times(result, &during, &after, before_per_s);
	way->result(&during, result);
	if (result->values[TRIAL_FAULTS] > 0)
		result->values[TRIAL_WRITES_PER_FAULT] = (double)during.times.count / result->values[TRIAL_FAULTS];
	if (setup->verify && digest_file(path, area.length_bytes) != digest)
		bench_die("%s, %s: the image is not the memory at the cut", way->name,
		          load_pattern_name(setup->pattern));
	unlink(path);
	load_free(&load);
	way->close();
}
