/* SPDX-License-Identifier: MIT */
/*
 * The frame of a trial: see trial.h. The main thread makes the cut and waits; it, and whatever it starts for a method,
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
#include "window.h"

#define REST_NS 200000000u /* between two snapshots of a series, at least */
#define SAMPLE_NS 20000000u

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

/* p50, p99, p99.9 and the largest: the order of the figures. */
static void add_quantiles(double *values, const struct histogram *times)
{
	values[0] = histogram_quantile(times, 0.5);
	values[1] = histogram_quantile(times, 0.99);
	values[2] = histogram_quantile(times, 0.999);
	values[3] = (double)times->largest_ns;
}

/* What is the same for all snapshots of a series. */
struct series {
	const struct trial_method *method;
	const struct trial_setup *setup;
	struct load load;
	struct area area;
	double before_per_s;
	uint64_t undisturbed;   /* writes in a window without a snapshot */
	uint64_t window_writes; /* in all windows so far */
	uint64_t begun_ns;      /* of the snapshot that is taken; on bench_now_ns() */
	uint64_t begin_ns;      /* how long its caller waited */
	uint64_t durable_ns;
	uint64_t ended_ns; /* the writers stand still */
	uint64_t digest;   /* of the memory at the cut, where the trial verifies */
};

/* A window without a snapshot, before the first one. Where times are thrown away, a short look is enough. */
static void warm_up(struct series *series, struct trial_result *result)
{
	static struct load_result before;
	const struct trial_setup *setup = series->setup;
	struct load *load = &series->load;
	uint64_t length_ns = setup->before_ms * UINT64_C(1000000);
	uint64_t window_ns = setup->sampler || setup->verify ? 0 : setup->window_ns;
	uint64_t from_ns;

	load_phase(load, LOAD_WARM);
	sleep_ms(setup->before_ms / 4);
	load_phase(load, LOAD_BEFORE);
	from_ns = bench_now_ns();
	load_open_window(load, from_ns, window_ns);
	sleep_until(from_ns + (window_ns > length_ns ? window_ns : length_ns));
	load_phase(load, LOAD_HOLD);
	length_ns = bench_now_ns() - from_ns;
	load_result(load, LOAD_BEFORE, &before);
	add_quantiles(&result->values[TRIAL_BEFORE_P50_NS], &before.times);
	series->undisturbed = load_window_writes(load);
	series->before_per_s = (double)before.times.count * 1e9 / (double)length_ns;
}

static void add_times(const struct series *series, const struct load_result *during, const struct load_result *after,
                      struct trial_result *result)
{
	static struct histogram window;
	double *values = result->values;

	window = during->times;
	histogram_merge(&window, &after->times);
	add_quantiles(&values[TRIAL_DURING_P50_NS], &during->times);
	add_quantiles(&values[TRIAL_WINDOW_P50_NS], &window);
	values[TRIAL_WRITES_PER_S] = (double)during->times.count * 1e9 / values[TRIAL_TOTAL_NS];
	values[TRIAL_WRITES_SHARE] = values[TRIAL_WRITES_PER_S] / series->before_per_s;
	values[TRIAL_AFTER_SHARE] = (double)after->times.count * 1e9 /
	                            (double)(series->ended_ns - series->durable_ns + 1) / series->before_per_s;
	result->during = during->times;
}

static void add_lost(struct series *series, double *values)
{
	uint64_t writes = load_window_writes(&series->load);

	values[TRIAL_UNDISTURBED_WRITES] = (double)series->undisturbed;
	values[TRIAL_WINDOW_WRITES] = (double)(writes - series->window_writes);
	if (series->undisturbed)
		values[TRIAL_LOST_SHARE] = window_lost_share(writes - series->window_writes, series->undisturbed);
	series->window_writes = writes;
}

/* Every write that was due is one of the times, however late it was. */
static void check_due(const struct series *series, const struct load_result *during, const struct load_result *after)
{
	uint64_t kept = during->times.count + after->times.count;
	uint64_t least;
	uint64_t most;

	if (!series->load.writes_per_s)
		return;
	least = load_due_writes(&series->load, &most);
	if (kept < least || kept > most)
		bench_die("%s: %llu writes were due, and %llu have a time", series->method->name,
		          (unsigned long long)least, (unsigned long long)kept);
}

static void image_name(const struct trial_setup *setup, unsigned number, char *path, size_t size)
{
	if (setup->kind == TRIAL_INCREMENTAL)
		snprintf(path, size, "%s/image-%u", setup->folder, number);
	else
		snprintf(path, size, "%s/image", setup->folder);
}

static void begin(struct series *series, unsigned number)
{
	const struct trial_setup *setup = series->setup;
	char path[512];
	char parent[512];
	struct trial_cut cut = {.path = path, .load = &series->load};

	image_name(setup, number, path, sizeof(path));
	if (number > 0 && setup->kind == TRIAL_INCREMENTAL) {
		image_name(setup, number - 1, parent, sizeof(parent));
		cut.parent = parent;
	}
	series->begun_ns = bench_now_ns();
	load_open_window(&series->load, series->begun_ns, setup->window_ns);
	series->method->begin(series->method, setup, &cut);
	series->begin_ns = bench_now_ns() - series->begun_ns;
}

/* What is left of the window; a series rests for a while in any case. */
static void rest(const struct series *series)
{
	uint64_t end_ns = series->begun_ns + series->setup->window_ns;
	uint64_t rested_ns = series->durable_ns + (series->setup->snapshots > 1 ? REST_NS : 0);

	sleep_until(end_ns > rested_ns ? end_ns : rested_ns);
}

/* Cut, image, and what is left of the window. */
static void take(struct series *series, unsigned number)
{
	const struct trial_setup *setup = series->setup;
	struct memory_sampler *sampler = number + 1 == setup->snapshots ? setup->sampler : NULL;

	if (sampler)
		memory_sampler_start(sampler, SAMPLE_NS);
	if (setup->verify)
		series->digest = digest_bytes(DIGEST_START, series->area.base, series->area.length_bytes);
	else
		load_phase(&series->load, LOAD_DURING);
	begin(series, number);
	if (sampler && series->method->child)
		memory_sampler_child(sampler, series->method->child());
	if (setup->verify)
		load_phase(&series->load, LOAD_DURING);
	series->method->wait();
	series->durable_ns = bench_now_ns();
	if (sampler)
		memory_sampler_child(sampler, 0);
	load_phase(&series->load, LOAD_AFTER);
	rest(series);
	load_phase(&series->load, LOAD_HOLD);
	series->ended_ns = bench_now_ns();
	if (sampler)
		memory_sampler_stop(sampler);
}

static void collect(struct series *series, struct trial_result *result)
{
	static struct load_result during;
	static struct load_result after;

	load_result(&series->load, LOAD_DURING, &during);
	load_result(&series->load, LOAD_AFTER, &after);
	load_forget(&series->load, LOAD_DURING);
	load_forget(&series->load, LOAD_AFTER);
	result->values[TRIAL_BEGIN_NS] = (double)series->begin_ns;
	result->values[TRIAL_TOTAL_NS] = (double)(series->durable_ns - series->begun_ns);
	add_times(series, &during, &after, result);
	add_lost(series, result->values);
	check_due(series, &during, &after);
	series->method->result(&during, result);
	if (result->values[TRIAL_FAULTS] > 0)
		result->values[TRIAL_WRITES_PER_FAULT] = (double)during.times.count / result->values[TRIAL_FAULTS];
}

/* An increment is not the memory: whether it adds up to it is for the library's own tests to say. */
static void check_image(const struct series *series, unsigned number)
{
	const struct trial_setup *setup = series->setup;
	char path[512];

	if (!setup->verify || (number > 0 && setup->kind == TRIAL_INCREMENTAL))
		return;
	image_name(setup, number, path, sizeof(path));
	if (digest_file(path, series->area.length_bytes) != series->digest)
		bench_die("%s, %s, snapshot %u: the image is not the memory at the cut", series->method->name,
		          load_pattern_name(setup->pattern), number + 1);
}

static void add_timeline_sign(const struct series *series, struct trial_timeline *timeline)
{
	uint64_t origin_ns = series->load.origin_ns;

	timeline->begun_ns = series->begun_ns - origin_ns;
	timeline->durable_ns = series->durable_ns - origin_ns;
	timeline->count = (size_t)((series->ended_ns - origin_ns) >> LOAD_SLOT_SHIFT);
}

static void take_all(struct series *series, struct trial_result *results, struct trial_timeline *timeline)
{
	for (unsigned i = 0; i < series->setup->snapshots; i++) {
		memcpy(&results[i].values[TRIAL_BEFORE_P50_NS], &results[0].values[TRIAL_BEFORE_P50_NS],
		       i ? 4 * sizeof(double) : 0);
		take(series, i);
		collect(series, &results[i]);
		check_image(series, i);
		series->method->end();
		if (timeline && i == 0)
			add_timeline_sign(series, timeline);
	}
}

static void keep_timeline(const struct load *load, struct trial_timeline *timeline)
{
	if (timeline->count > LOAD_SLOTS)
		timeline->count = LOAD_SLOTS;
	for (size_t slot = 0; slot < timeline->count; slot++)
		timeline->slots[slot] = load_timeline(load, slot);
}

static void remove_images(const struct trial_setup *setup)
{
	char path[512];

	for (unsigned i = 0; i < setup->snapshots; i++) {
		image_name(setup, i, path, sizeof(path));
		unlink(path);
	}
}

void trial_run(const struct trial_method *method, const struct trial_setup *setup, struct trial_result *results,
               struct trial_timeline *timeline)
{
	static struct series series;

	memset(&series, 0, sizeof(series));
	memset(results, 0, setup->snapshots * sizeof(*results));
	series.method = method;
	series.setup = setup;
	settle(setup->folder);
	bench_pin(setup->pin_other ? bench_cpu(1) : BENCH_ANY_CPU);
	method->open(method, setup, &series.area);
	load_start(&series.load, setup->pattern, series.area.base, series.area.length_bytes, setup->writer_count);
	warm_up(&series, &results[0]);
	series.window_writes = series.undisturbed;
	take_all(&series, results, timeline);
	load_stop(&series.load);
	if (timeline)
		keep_timeline(&series.load, timeline);
	remove_images(setup);
	load_free(&series.load);
	method->close();
}
