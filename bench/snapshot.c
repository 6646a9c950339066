/* SPDX-License-Identifier: MIT */
/*
 * Question: what does an image of live memory cost, by the library and by fork()?
 *
 * For each load (uniform, sequential) all ways take turns; the order is turned round from one repetition to the next.
 * Figures are medians of the repetitions, except the largest write and the peak of memory, which are the worst of all.
 * Before the first repetition each way takes one image that is compared with the memory at its cut.
 *
 * Times of writes are shown twice, and never one without the other: `during` ends when that way's image is durable,
 * `write` ends with a window that is the same for all ways (README.md says what each can tell).
 *
 * Words: a way is inline, thread (the library's deliveries), fork or fork_direct; a trial is one snapshot (trial.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "report.h"
#include "trial.h"

#define WAYS 4
#define REPEAT_MAX 64
#define WINDOW_SECONDS_MAX 3600
#define WINDOW_PER_FORK 1.25 /* so that a trial of fork that takes somewhat longer than its first still fits */
#define WINDOW_MIN_NS 1000000000u

static const struct trial_way *const all_ways[WAYS] = {&trial_inline, &trial_thread, &trial_fork, &trial_fork_direct};

static const struct {
	const char *name;
	int worst; /* the worst of the repetitions stands for them, not the median */
} figures[TRIAL_FIGURES] = {
        [TRIAL_PAUSE_NS] = {"pause_ns", 0},
        [TRIAL_TOTAL_NS] = {"total_ns", 0},
        [TRIAL_DURING_P50_NS] = {"during_p50_ns", 0},
        [TRIAL_DURING_P99_NS] = {"during_p99_ns", 0},
        [TRIAL_DURING_P999_NS] = {"during_p999_ns", 0},
        [TRIAL_DURING_MAX_NS] = {"during_max_ns", 1},
        [TRIAL_WINDOW_P50_NS] = {"write_p50_ns", 0},
        [TRIAL_WINDOW_P99_NS] = {"write_p99_ns", 0},
        [TRIAL_WINDOW_P999_NS] = {"write_p999_ns", 0},
        [TRIAL_WINDOW_MAX_NS] = {"write_max_ns", 1},
        [TRIAL_WRITES_PER_S] = {"writes_per_s", 0},
        [TRIAL_WRITES_SHARE] = {"writes_share", 0},
        [TRIAL_FAULTS] = {"faults", 0},
        [TRIAL_WRITES_PER_FAULT] = {"during_writes_per_fault", 0},
        [TRIAL_PAGES_FAULT] = {"pages_fault", 0},
        [TRIAL_PAGES_PREPARE] = {"pages_prepare", 0},
        [TRIAL_PAGES_SWEEP] = {"pages_sweep", 0},
        [TRIAL_WAITS] = {"waits", 0},
        [TRIAL_PREIMAGE_PEAK_BYTES] = {"preimage_peak_bytes", 1},
        [TRIAL_WRITTEN_BYTES] = {"written_bytes", 0},
};

struct settings {
	struct bench_settings common;
	struct trial_setup trial;
	unsigned repeat;
	int verify;
	int pattern; /* -1: all */
	const char *way;
	const char *parent; /* where the folder for images is made */
	char folder[256];
};

/* What one way showed under one load. */
struct row {
	const struct trial_way *way;
	struct trial_result trials[REPEAT_MAX];
	double values[TRIAL_FIGURES];
	unsigned beyond; /* trials that took longer than the window */
};

/* What one ratio to fork is called, and which figure it is of. */
static const struct {
	const char *name;
	enum trial_figure figure;
} ratios[] = {
        {"time_ratio_fork", TRIAL_TOTAL_NS},
        {"pause_ratio_fork", TRIAL_PAUSE_NS},
        {"write_p999_ratio_fork", TRIAL_WINDOW_P999_NS},
        {"during_p999_ratio_fork", TRIAL_DURING_P999_NS},
};

#define RATIOS (sizeof(ratios) / sizeof(ratios[0]))

static char *folder_to_remove;

/* ---------------------------------------------------------------------------------------------------- options -- */

enum { KEY_SIZE = 's', KEY_WRITERS = 'w', KEY_POOL = 'b', KEY_DIR = 'd', KEY_PIN = 'p', KEY_REPEAT = 'n' };
enum { KEY_LOAD = 'l', KEY_WAY = 'o', KEY_UNVERIFIED = 'u', KEY_WINDOW = 'i', KEY_MECHANISM = 'c' };

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES", 0, "Size of the memory (default 1G)", 0},
        {"writers", KEY_WRITERS, "N", 0, "Threads that write; the n-th on the n-th CPU (default 1)", 0},
        {"pool", KEY_POOL, "BYTES", 0, "Bound on the library's pre-images (default 64M)", 0},
        {"dir", KEY_DIR, "FOLDER", 0, "Where images go (default: the current folder)", 0},
        {"pin", KEY_PIN, "WHERE", 0, "The library's threads and fork's child: free (default) or other (second CPU)", 0},
        {"repeat", KEY_REPEAT, "N", 0, "Trials of each way (default 5)", 0},
        {"window", KEY_WINDOW, "SECONDS", 0,
         "Stretch of time from the cut on that is compared (default 0: a little more than fork's snapshot takes)", 0},
        {"load", KEY_LOAD, "NAME", 0, "uniform or sequential only", 0},
        {"way", KEY_WAY, "NAME", 0, "inline, thread, fork or fork_direct only", 0},
        {"mechanism", KEY_MECHANISM, "NAME", 0,
         "The library's: marker, rearm, minor or mprotect (default: the best that works here)", 0},
        {"no-verify", KEY_UNVERIFIED, NULL, 0, "Leave out the comparison of an image of each way with the memory", 0},
        {0},
};

/* Seconds, with a fraction if need be; as nanoseconds. */
static uint64_t seconds(const char *text, struct argp_state *state)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= WINDOW_SECONDS_MAX))
		argp_error(state, "%s: not seconds from 0 to %d", text, WINDOW_SECONDS_MAX);
	return (uint64_t)(value * 1e9);
}

static int choice(const char *text, const char *zero, const char *one, struct argp_state *state)
{
	if (strcmp(text, zero) != 0 && strcmp(text, one) != 0)
		argp_error(state, "%s: neither %s nor %s", text, zero, one);
	return !strcmp(text, one);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_SIZE:
		settings->trial.size_bytes = bench_size(argument);
		return 0;
	case KEY_WRITERS:
		settings->trial.writer_count = bench_number(argument, LOAD_WRITERS_MAX);
		return 0;
	case KEY_POOL:
		settings->trial.pool_bytes = bench_size(argument);
		return 0;
	case KEY_DIR:
		settings->parent = argument;
		return 0;
	case KEY_PIN:
		settings->trial.pin_other = choice(argument, "free", "other", state);
		return 0;
	case KEY_REPEAT:
		settings->repeat = bench_number(argument, REPEAT_MAX);
		return 0;
	case KEY_WINDOW:
		settings->trial.window_ns = seconds(argument, state);
		return 0;
	case KEY_LOAD:
		settings->pattern = choice(argument, "uniform", "sequential", state);
		return 0;
	case KEY_WAY:
		settings->way = argument;
		return 0;
	case KEY_MECHANISM:
		settings->trial.mechanism = library_mechanism_of(argument);
		return 0;
	case KEY_UNVERIFIED:
		settings->verify = 0;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "A live snapshot: the library against fork() with the child copying out.",
        children, NULL,  NULL};

/* The one that was asked for must work by one of the deliveries; which one is left out is said later. */
static void choose_mechanism(enum uffdwp_mechanism *mechanism)
{
	const char *reason;

	if (*mechanism == UFFDWP_MECHANISM_AUTO)
		*mechanism = library_best(UFFDWP_MEMORY_SHMEM);
	reason = library_refuses(UFFDWP_MEMORY_SHMEM, *mechanism, UFFDWP_DELIVERY_INLINE);
	if (reason && library_refuses(UFFDWP_MEMORY_SHMEM, *mechanism, UFFDWP_DELIVERY_THREAD))
		bench_skip("%s does not work here: %s", library_mechanism_name(*mechanism), reason);
}

static void check_settings(struct settings *settings)
{
	if (settings->common.quick) {
		settings->trial.size_bytes = 16 << 20;
		settings->trial.pool_bytes = 4 << 20;
		settings->repeat = 1;
	}
	if (settings->trial.size_bytes % (uint64_t)sysconf(_SC_PAGESIZE))
		bench_die("the size must be in whole pages");
	choose_mechanism(&settings->trial.mechanism);
	if (settings->trial.pin_other && bench_cpus() < 2)
		bench_skip("--pin other needs two CPUs");
}

static void remove_folder(void)
{
	char path[300];

	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder_to_remove, i ? "image" : "aside");
		unlink(path);
	}
	rmdir(folder_to_remove);
}

static void make_folder(struct settings *settings)
{
	snprintf(settings->folder, sizeof(settings->folder), "%s/uffdwp-bench-XXXXXX", settings->parent);
	if (!mkdtemp(settings->folder))
		bench_die("%s: %s", settings->folder, strerror(errno));
	settings->trial.folder = settings->folder;
	folder_to_remove = settings->folder;
	atexit(remove_folder);
}

/* -------------------------------------------------------------------------------------------------- reporting -- */

static void add_row(struct report *report, const char *load, struct row *row, unsigned repeat)
{
	double values[REPEAT_MAX];

	for (int figure = 0; figure < TRIAL_FIGURES; figure++) {
		double worst = 0;

		for (unsigned i = 0; i < repeat; i++) {
			values[i] = row->trials[i].values[figure];
			worst = values[i] > worst ? values[i] : worst;
		}
		if (figures[figure].worst) {
			row->values[figure] = worst;
			report_add(report, worst, "%s.%s.%s", load, row->way->name, figures[figure].name);
		} else {
			row->values[figure] = report_add_median(report, values, repeat, "%s.%s.%s", load,
			                                        row->way->name, figures[figure].name);
		}
	}
}

/* A trial that took longer than the window is compared over another stretch of time than the rest. */
static void add_beyond(struct report *report, const char *load, struct row *row, unsigned repeat, uint64_t window_ns)
{
	row->beyond = 0;
	for (unsigned i = 0; i < repeat; i++)
		row->beyond += row->trials[i].values[TRIAL_TOTAL_NS] > (double)window_ns;
	report_add(report, row->beyond, "%s.%s.trials_beyond_window", load, row->way->name);
}

static double ratio(size_t which, const struct row *row, const struct row *fork_row)
{
	return row->values[ratios[which].figure] / fork_row->values[ratios[which].figure];
}

static void add_ratios(struct report *report, const char *load, const struct row *row, const struct row *fork_row)
{
	for (size_t i = 0; i < RATIOS; i++)
		report_add(report, ratio(i, row, fork_row), "%s.%s.%s", load, row->way->name, ratios[i].name);
}

static void add_faults_per_page(struct report *report, const char *load, const struct row *row)
{
	double pages = row->values[TRIAL_PAGES_FAULT];

	if (pages > 0)
		report_add(report, row->values[TRIAL_FAULTS] / pages, "%s.%s.faults_per_page", load, row->way->name);
}

static void print_head(const char *load, uint64_t window_ns)
{
	printf("\n%s writer, window %.3f s\n", load, (double)window_ns / 1e9);
	printf("%-12s %9s %9s | %-44s | %-18s |\n", "", "", "", "writes during the snapshot", "in the window");
	printf("%-12s %9s %9s | %8s %8s %8s %9s %7s | %8s %9s | %8s %8s %8s %8s | %8s %8s\n", "way", "pause ms",
	       "total ms", "p50 us", "p99 us", "p99.9 us", "max us", "writes%", "p99.9 us", "max us", "faults",
	       "by fault", "by sweep", "waits", "peak MiB", "MiB out");
}

static void print_row(const struct row *row)
{
	const double *v = row->values;

	printf("%-12s %9.3f %9.1f | %8.2f %8.2f %8.2f %9.1f %7.1f | %8.2f %9.1f |", row->way->name,
	       v[TRIAL_PAUSE_NS] / 1e6, v[TRIAL_TOTAL_NS] / 1e6, v[TRIAL_DURING_P50_NS] / 1e3,
	       v[TRIAL_DURING_P99_NS] / 1e3, v[TRIAL_DURING_P999_NS] / 1e3, v[TRIAL_DURING_MAX_NS] / 1e3,
	       v[TRIAL_WRITES_SHARE] * 100, v[TRIAL_WINDOW_P999_NS] / 1e3, v[TRIAL_WINDOW_MAX_NS] / 1e3);
	printf(" %8.0f %8.0f %8.0f %8.0f | %8.1f %8.1f\n", v[TRIAL_FAULTS], v[TRIAL_PAGES_FAULT], v[TRIAL_PAGES_SWEEP],
	       v[TRIAL_WAITS], v[TRIAL_PREIMAGE_PEAK_BYTES] / (1 << 20), v[TRIAL_WRITTEN_BYTES] / (1 << 20));
}

static void print_ratios(const struct row *rows, size_t count, const struct row *fork_row)
{
	printf("\n%-12s %9s %9s %15s %15s\n", "against fork", "total", "pause", "p99.9 in window", "p99.9 during");
	for (size_t i = 0; i < count; i++) {
		if (&rows[i] != fork_row)
			printf("%-12s %9.3f %9.3f %15.3f %15.3f\n", rows[i].way->name, ratio(0, &rows[i], fork_row),
			       ratio(1, &rows[i], fork_row), ratio(2, &rows[i], fork_row),
			       ratio(3, &rows[i], fork_row));
	}
}

/* Beside JSON they go to standard error; the figures have them, too. */
static void print_beyond(FILE *to, const struct row *rows, size_t count, unsigned repeat)
{
	for (size_t i = 0; i < count; i++) {
		if (rows[i].beyond)
			fprintf(to, "%s: %u of %u trials took longer than the window; theirs ended when they did\n",
			        rows[i].way->name, rows[i].beyond, repeat);
	}
}

/* -------------------------------------------------------------------------------------------------- measuring -- */

/* The window as asked for, or a little more than a snapshot by fork takes, which is thrown away. */
static uint64_t choose_window(const struct trial_setup *asked)
{
	struct trial_setup setup = *asked;
	struct trial_result warm_up;
	uint64_t window_ns;

	if (asked->window_ns)
		return asked->window_ns;
	setup.verify = 0;
	trial_run(&trial_fork, &setup, &warm_up);
	window_ns = (uint64_t)(warm_up.values[TRIAL_TOTAL_NS] * WINDOW_PER_FORK);
	return window_ns < WINDOW_MIN_NS ? WINDOW_MIN_NS : window_ns;
}

static void verify_all(const struct trial_setup *asked, const struct row *rows, size_t count)
{
	struct trial_setup setup = *asked;
	struct trial_result unused;

	setup.verify = 1;
	setup.window_ns = 0;
	for (size_t i = 0; i < count; i++)
		trial_run(rows[i].way, &setup, &unused);
}

static void repeat_all(const struct trial_setup *setup, unsigned repeat, struct row *rows, size_t count)
{
	for (unsigned turn = 0; turn < repeat; turn++) {
		for (size_t i = 0; i < count; i++) {
			struct row *row = &rows[turn % 2 ? count - 1 - i : i];

			trial_run(row->way, setup, &row->trials[turn]);
		}
	}
}

/* Why a way cannot be had here, or NULL. */
static const char *way_refused(const struct settings *settings, const struct trial_way *way)
{
	if (way == &trial_fork)
		return NULL;
	if (way == &trial_fork_direct)
		return trial_fork_direct_works(settings->folder) ? NULL : "no O_DIRECT in the folder of the images";
	return library_refuses(UFFDWP_MEMORY_SHMEM, settings->trial.mechanism, (enum uffdwp_delivery)way->variant);
}

static size_t choose_ways(const struct settings *settings, struct row *rows)
{
	size_t count = 0;
	unsigned known = 0;

	memset(rows, 0, WAYS * sizeof(*rows));
	for (size_t i = 0; i < WAYS; i++) {
		const char *reason;

		if (settings->way && strcmp(settings->way, all_ways[i]->name) != 0)
			continue;
		known++;
		reason = way_refused(settings, all_ways[i]);
		if (reason)
			fprintf(stderr, "uffdwp-bench: %s is left out: %s\n", all_ways[i]->name, reason);
		else
			rows[count++].way = all_ways[i];
	}
	if (!known)
		bench_die("%s: no such way", settings->way);
	if (!count)
		bench_skip("no way works here by mechanism %s", library_mechanism_name(settings->trial.mechanism));
	return count;
}

static void add_rows(struct report *report, const char *load, struct row *rows, size_t count,
                     const struct row *fork_row, const struct settings *settings, uint64_t window_ns)
{
	report_add(report, (double)window_ns, "%s.window_ns", load);
	for (size_t i = 0; i < count; i++) {
		add_row(report, load, &rows[i], settings->repeat);
		add_faults_per_page(report, load, &rows[i]);
		add_beyond(report, load, &rows[i], settings->repeat, window_ns);
	}
	for (size_t i = 0; fork_row && i < count; i++) {
		if (&rows[i] != fork_row)
			add_ratios(report, load, &rows[i], fork_row);
	}
}

static const struct row *find_fork(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (rows[i].way == &trial_fork)
			return &rows[i];
	}
	return NULL;
}

static void print_rows(const char *load, const struct row *rows, size_t count, const struct row *fork_row,
                       uint64_t window_ns)
{
	print_head(load, window_ns);
	for (size_t i = 0; i < count; i++)
		print_row(&rows[i]);
	if (fork_row && count > 1)
		print_ratios(rows, count, fork_row);
}

static void measure(struct report *report, const struct settings *settings, enum load_pattern pattern)
{
	static struct row rows[WAYS];
	const char *load = load_pattern_name(pattern);
	struct trial_setup setup = settings->trial;
	size_t count = choose_ways(settings, rows);
	const struct row *fork_row = find_fork(rows, count);

	setup.pattern = pattern;
	if (settings->verify)
		verify_all(&setup, rows, count);
	setup.window_ns = choose_window(&setup);
	repeat_all(&setup, settings->repeat, rows, count);
	add_rows(report, load, rows, count, fork_row, settings, setup.window_ns);
	if (!settings->common.json)
		print_rows(load, rows, count, fork_row, setup.window_ns);
	print_beyond(settings->common.json ? stderr : stdout, rows, count, settings->repeat);
}

static void note_settings(struct report *report, const struct settings *settings)
{
	const struct trial_setup *trial = &settings->trial;

	report_note(report, "memory", "%llu MiB (library: shmem, fork: private anonymous), pool %llu MiB",
	            (unsigned long long)trial->size_bytes >> 20, (unsigned long long)trial->pool_bytes >> 20);
	report_note(report, "mechanism", "%s", library_mechanism_name(trial->mechanism));
	report_note(report, "load", "%u unthrottled writers of 64-byte records, pinned from CPU %d on",
	            trial->writer_count, bench_cpu(0));
	report_note(report, "placement", "the library's threads, and fork's child: %s",
	            trial->pin_other ? "on the second CPU" : "free");
	report_note(report, "runs", "%u of each way, in turns; images %s", settings->repeat,
	            settings->verify ? "of one more compared with the memory at the cut" : "not compared");
	if (trial->window_ns)
		report_note(report, "window", "%.3f s from the cut on, as asked for", (double)trial->window_ns / 1e9);
	else
		report_note(report, "window", "1.25 x the time of one snapshot by fork, not counted; at least 1 s");
	if (!settings->common.json)
		report_print_notes(report);
}

int snapshot_main(int argc, char **argv)
{
	static struct settings settings;
	struct report report;
	int code;

	settings = (struct settings){.trial = {.size_bytes = 1 << 30, .pool_bytes = 64 << 20, .writer_count = 1},
	                             .repeat = 5,
	                             .verify = 1,
	                             .pattern = -1,
	                             .parent = "."};
	bench_parse(&argp, argc, argv, &settings);
	check_settings(&settings);
	make_folder(&settings);
	report_init(&report, "snapshot");
	note_settings(&report, &settings);
	for (int pattern = 0; pattern < LOAD_PATTERN_COUNT; pattern++) {
		if (settings.pattern < 0 || settings.pattern == pattern)
			measure(&report, &settings, (enum load_pattern)pattern);
	}
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
