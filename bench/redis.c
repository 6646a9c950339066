/* SPDX-License-Identifier: MIT */
/*
 * Question: what do the saves of a redis-server cost its clients, plain, under `uffdwp-ctl fork`, and under `uffdwp-ctl
 * fork --nice=10`, where the children leave the CPUs to the server?
 *
 * All sides run the same program with the same data, and get the same requests at the same rate, which does not depend
 * on how fast they answer (openloop.h). Sides take turns, a round each with a new server; the order is reversed from
 * one round to the next, and ratios are medians over pairs of one round.
 *
 * Threads: the main thread, and one for the clients.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "overcommit.h"
#include "redis.h"

#define BAR_BYTES (UINT64_C(4) << 30) /* the size that bars.txt is about */
#define SPARE_BYTES (UINT64_C(512) << 20)
#define NS_PER_S UINT64_C(1000000000)

struct settings {
	struct bench_settings common;
	struct redis_plan plan;
	const char *parent; /* of the folder */
	const char *ctl;    /* folder of uffdwp-ctl; NULL: beside this program */
	const char *plot;
};

static const struct {
	const char *name;
	const char *ratio; /* NULL: it is not compared */
} figures[REDIS_FIGURES] = {
        [REDIS_FORK_NS] = {"fork_ns", "fork_ratio_plain"},
        [REDIS_SAVE_NS] = {"save_ns", "save_ratio_plain"},
        [REDIS_SAVE_P50_NS] = {"save_p50_ns", "save_p50_ratio_plain"},
        [REDIS_SAVE_P99_NS] = {"save_p99_ns", "save_p99_ratio_plain"},
        [REDIS_SAVE_P999_NS] = {"save_p999_ns", "save_p999_ratio_plain"},
        [REDIS_SAVE_MAX_NS] = {"save_max_ns", "save_max_ratio_plain"},
        [REDIS_REST_P50_NS] = {"rest_p50_ns", "rest_p50_ratio_plain"},
        [REDIS_REST_P99_NS] = {"rest_p99_ns", NULL},
        [REDIS_REST_P999_NS] = {"rest_p999_ns", NULL},
        [REDIS_REST_MAX_NS] = {"rest_max_ns", NULL},
        [REDIS_REST_OPS] = {"rest_ops_per_s", "rest_ops_ratio_plain"},
        [REDIS_PEAK_PSS_BYTES] = {"peak_pss_bytes", "peak_pss_ratio_plain"},
        [REDIS_PEAK_SYSTEM_BYTES] = {"peak_system_bytes", "peak_system_ratio_plain"},
        [REDIS_PEAK_SERVER_BYTES] = {"peak_server_bytes", NULL},
};

static const struct {
	const char *title;
	enum redis_figure figure;
	double unit;
} columns[] = {
        {"fork ms", REDIS_FORK_NS, 1e6},
        {"save s", REDIS_SAVE_NS, 1e9},
        {"save p50", REDIS_SAVE_P50_NS, 1e6},
        {"p99", REDIS_SAVE_P99_NS, 1e6},
        {"p99.9", REDIS_SAVE_P999_NS, 1e6},
        {"max ms", REDIS_SAVE_MAX_NS, 1e6},
        {"rest p50", REDIS_REST_P50_NS, 1e6},
        {"p99", REDIS_REST_P99_NS, 1e6},
        {"p99.9", REDIS_REST_P999_NS, 1e6},
        {"max ms", REDIS_REST_MAX_NS, 1e6},
        {"ops/s", REDIS_REST_OPS, 1},
        {"pss MiB", REDIS_PEAK_PSS_BYTES, 1 << 20},
        {"system", REDIS_PEAK_SYSTEM_BYTES, 1 << 20},
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static struct redis_row rows[REDIS_SIDES] = {
        [REDIS_PLAIN] = {.name = "plain", .look = {"redis-server", "#D55E00"}},
        [REDIS_UFFDWP] = {.name = "uffdwp", .look = {"under uffdwp-ctl fork", "#0072B2"}},
        [REDIS_NICE] = {.name = "nice", .look = {"under uffdwp-ctl fork --nice=10", "#009E73"}},
};

enum {
	KEY_SIZE = 's',
	KEY_ROUNDS = 'r',
	KEY_SAVES = 'n',
	KEY_RATE = 'q',
	KEY_DIR = 'd',
	KEY_SERVER = 'e',
	KEY_CTL = 'c',
	KEY_PLOT = 'p'
};

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES", 0, "All values together (default 1G; with --check 4G, which the bars are about)",
         0},
        {"repeat", KEY_ROUNDS, "N", 0, "Rounds of each side, each with a new server (default 3)", 0},
        {"saves", KEY_SAVES, "N", 0, "Saves in a round (default 3)", 0},
        {"rate", KEY_RATE, "N", 0, "Requests a second (default: half of what the plain server does)", 0},
        {"dir", KEY_DIR, "DIR", 0, "Where the dump is written, in a folder of its own (default: here)", 0},
        {"server", KEY_SERVER, "PATH", 0, "The server (default: redis-server, by PATH)", 0},
        {"ctl", KEY_CTL, "DIR", 0, "Where uffdwp-ctl is (default: beside this program)", 0},
        {"plot", KEY_PLOT, "FOLDER", 0, "Draw the latency over time", 0},
        {0},
};

static error_t redis_parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_SIZE:
		settings->plan.size_bytes = bench_size(argument);
		return 0;
	case KEY_ROUNDS:
		settings->plan.rounds = bench_number(argument, ROUNDS_MAX);
		return 0;
	case KEY_SAVES:
		settings->plan.saves = bench_number(argument, OPENLOOP_SPANS_MAX);
		return 0;
	case KEY_RATE:
		settings->plan.requests_per_s = bench_number(argument, 10000000);
		return 0;
	case KEY_DIR:
		settings->parent = argument;
		return 0;
	case KEY_SERVER:
		settings->plan.server = argument;
		return 0;
	case KEY_CTL:
		settings->ctl = argument;
		return 0;
	case KEY_PLOT:
		settings->plot = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {options,  redis_parse, NULL, "redis-server's saves: plain, and under uffdwp-ctl fork.",
                                 children, NULL,        NULL};

/* -------------------------------------------------------------------------------------------------- the figures -- */

static void redis_report(struct report *report, const char *size_name)
{
	for (int side = 0; side < REDIS_SIDES; side++) {
		for (int i = 0; i < REDIS_FIGURES; i++) {
			const struct rounds *rounds = &rows[side].figures[i];
			struct rounds ratios;
			char name[80];

			snprintf(name, sizeof(name), "%s.%s.%s", size_name, rows[side].name, figures[i].name);
			rounds_report(report, rounds, name);
			if (side == REDIS_PLAIN || !figures[i].ratio)
				continue;
			rounds_over(rounds, &rows[REDIS_PLAIN].figures[i], &ratios);
			snprintf(name, sizeof(name), "%s.%s.%s", size_name, rows[side].name, figures[i].ratio);
			rounds_report(report, &ratios, name);
		}
	}
}

static unsigned redis_dumps_of_ours(void)
{
	return rows[REDIS_UFFDWP].dumps_checked + rows[REDIS_NICE].dumps_checked;
}

static void redis_print(const struct redis_plan *plan)
{
	printf("\n%llu requests a second, half of them GET; milliseconds\n%-8s",
	       (unsigned long long)plan->requests_per_s, "");
	for (size_t i = 0; i < COLUMNS; i++)
		printf(" %9s", columns[i].title);
	for (int side = 0; side < REDIS_SIDES; side++) {
		printf("\n%-8s", rows[side].name);
		for (size_t i = 0; i < COLUMNS; i++) {
			double value = rounds_median(&rows[side].figures[columns[i].figure]) / columns[i].unit;

			printf(value >= 1000 ? " %9.0f" : " %9.3f", value);
		}
	}
	for (int side = REDIS_PLAIN + 1; side < REDIS_SIDES; side++) {
		printf("\n%-8s", "ratio");
		for (size_t i = 0; i < COLUMNS; i++)
			printf(" %9.3f", rounds_ratio(&rows[side].figures[columns[i].figure],
			                              &rows[REDIS_PLAIN].figures[columns[i].figure]));
	}
	printf("\nredis-check-rdb was content with %u dumps of the plain server and %u of the others, of %u and %u\n",
	       rows[REDIS_PLAIN].dumps_checked, redis_dumps_of_ours(), plan->rounds, (REDIS_SIDES - 1) * plan->rounds);
}

/* ---------------------------------------------------------------------------------------------------- measuring -- */

static char folder[PATH_MAX / 2];

/* With what the server has left, which may be a part of a dump. */
static void redis_remove_folder(void)
{
	DIR *entries = opendir(folder);
	const struct dirent *entry;

	while (entries && (entry = readdir(entries)) != NULL)
		unlinkat(dirfd(entries), entry->d_name, 0);
	if (entries)
		closedir(entries);
	rmdir(folder);
}

/* By its whole path: the server goes there. */
static void redis_make_folder(const char *parent)
{
	char whole[PATH_MAX];

	if (!realpath(parent, whole))
		bench_die("%s: %s", parent, strerror(errno));
	if ((size_t)snprintf(folder, sizeof(folder), "%s/uffdwp-bench-XXXXXX", whole) >= sizeof(folder))
		bench_die("%s: too long a path", parent);
	if (!mkdtemp(folder))
		bench_die("%s: %s", folder, strerror(errno));
	atexit(redis_remove_folder);
}

/* At worst each page is written during a save. */
static void redis_expect_memory(const struct redis_plan *plan)
{
	uint64_t needed = plan->size_bytes * 5 / 2 + SPARE_BYTES;
	uint64_t available = bench_meminfo_bytes("MemAvailable");

	if (needed > available)
		bench_skip("it may need %llu MiB of memory, and %llu MiB are available: say --size",
		           (unsigned long long)needed >> 20, (unsigned long long)available >> 20);
}

static void redis_choose(struct settings *settings)
{
	struct redis_plan *plan = &settings->plan;

	if (!plan->size_bytes)
		plan->size_bytes = settings->common.check ? BAR_BYTES : UINT64_C(1) << 30;
	plan->rest_ns = 4 * NS_PER_S;
	plan->gap_ns = 2 * NS_PER_S;
	if (!settings->common.quick)
		return;
	plan->size_bytes = UINT64_C(32) << 20;
	plan->rounds = 1;
	plan->saves = 2;
	plan->rest_ns = NS_PER_S / 2;
	plan->gap_ns = NS_PER_S / 4;
}

static void redis_add_notes(struct report *report, const struct redis_plan *plan, const char *overcommit)
{
	report_note(report, "data", "%llu MiB in values of 1 KiB", (unsigned long long)plan->size_bytes >> 20);
	report_note(report, "load", "open loop, 4 connections, GET and SET of random keys, half each");
	report_note(report, "overcommit", "vm.overcommit_memory %s%s", overcommit ? "is not 1: " : "is 1",
	            overcommit ? overcommit : "");
	report_note(report, "rounds", "%u of each side, %u saves in each", plan->rounds, plan->saves);
}

static void redis_measure(struct redis_plan *plan)
{
	for (unsigned round = 0; round < plan->rounds; round++) {
		for (unsigned place = 0; place < REDIS_SIDES; place++) {
			unsigned side = round % 2 ? REDIS_SIDES - 1 - place : place;

			redis_trial(plan, (enum redis_side_number)side, round, &rows[side]);
		}
	}
}

int redis_main(int argc, char **argv)
{
	static struct settings settings;
	static char ctl[PATH_MAX];
	struct redis_plan *plan = &settings.plan;
	struct report report;
	const char *overcommit;
	char size_name[32];
	int code;

	settings.plan = (struct redis_plan){.server = "redis-server", .rounds = 3, .saves = 3};
	settings.parent = ".";
	bench_parse(&argp, argc, argv, &settings);
	redis_choose(&settings);
	child_beside(settings.ctl, "uffdwp-ctl", ctl, sizeof(ctl));
	plan->ctl = ctl;
	signal(SIGPIPE, SIG_IGN);
	redis_server_try(plan, REDIS_PLAIN);
	redis_server_try(plan, REDIS_UFFDWP);
	redis_expect_memory(plan);
	overcommit = overcommit_always();
	redis_make_folder(settings.parent);
	plan->folder = folder;
	report_init(&report, "redis");
	redis_add_notes(&report, plan, overcommit);
	if (!settings.common.json)
		report_print_notes(&report);
	redis_measure(plan);
	report_note(&report, "rate", "%llu requests a second", (unsigned long long)plan->requests_per_s);
	report_note(&report, "dumps", "%u plain and %u under uffdwp-ctl passed redis-check-rdb",
	            rows[REDIS_PLAIN].dumps_checked, redis_dumps_of_ours());
	bench_size_name(plan->size_bytes, size_name, sizeof(size_name));
	redis_report(&report, size_name);
	if (!settings.common.json)
		redis_print(plan);
	if (settings.plot)
		redis_plot(settings.plot, size_name, rows, REDIS_SIDES);
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
