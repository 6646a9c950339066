/* SPDX-License-Identifier: MIT */
/*
 * Question: what does the first write to an armed page cost its writer, and how much of that is the library's?
 *
 * For each placement (handler thread on the writer's CPU, on another, wherever the scheduler puts it; inline) the
 * library and a bare loop of the same system calls take turns: same CPU, same order of pages, a window each. The rivals
 * at the end put the figures beside what else one could do.
 *
 * Words: p50 and so on are over all pages of all rounds, the clock's own cost taken off; a ratio is library over bare.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "contender.h"
#include "report.h"

struct placement {
	const char *name;
	enum uffdwp_delivery delivery;
	int handler_cpu; /* the n-th of the program's CPUs, or BENCH_ANY_CPU */
};

static const struct placement placements[] = {
        {"same_cpu", UFFDWP_DELIVERY_THREAD, 0},
        {"other_cpu", UFFDWP_DELIVERY_THREAD, 1},
        {"default", UFFDWP_DELIVERY_THREAD, BENCH_ANY_CPU},
        {"inline", UFFDWP_DELIVERY_INLINE, BENCH_ANY_CPU},
};

struct settings {
	struct bench_settings common;
	enum uffdwp_memory memory;
	uint32_t handler_threads;
	uint64_t size_bytes;
	unsigned rounds;
	const char *placement; /* NULL: all, and the rivals */
};

enum { KEY_MEMORY = 'm', KEY_HANDLERS = 't', KEY_SIZE = 's', KEY_ROUNDS = 'r', KEY_PLACEMENT = 'p' };

static const struct argp_option options[] = {
        {"memory", KEY_MEMORY, "TYPE", 0, "shmem (default), hugetlb or anon", 0},
        {"handlers", KEY_HANDLERS, "N", 0, "Handler threads of the library (default: its own)", 0},
        {"size", KEY_SIZE, "BYTES", 0, "Size of each contender's memory (default 64M)", 0},
        {"rounds", KEY_ROUNDS, "N", 0, "Times that all pages are written (default 8)", 0},
        {"placement", KEY_PLACEMENT, "NAME", 0, "same_cpu, other_cpu, default or inline only; no rivals", 0},
        {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_MEMORY:
		settings->memory = area_memory_of(argument);
		return 0;
	case KEY_HANDLERS:
		settings->handler_threads = bench_number(argument, 64);
		return 0;
	case KEY_SIZE:
		settings->size_bytes = bench_size(argument);
		return 0;
	case KEY_ROUNDS:
		settings->rounds = bench_number(argument, 10000);
		return 0;
	case KEY_PLACEMENT:
		settings->placement = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "The first write to an armed page: the library against a bare loop of the same calls.",
        children, NULL,  NULL};

/* -------------------------------------------------------------------------------------------------- reporting -- */

static const struct {
	const char *name;
	double quantile;
} quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};

static void print_row(const char *placement, const struct contender *contender, const struct histogram *all)
{
	printf("%-10s %-9s", placement, contender->name);
	for (int order = 0; order < ORDER_COUNT; order++)
		printf(" %9.2f", histogram_quantile(&contender->hist[order], 0.5) / 1e3);
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
		printf(" %9.2f", histogram_quantile(all, quantiles[i].quantile) / 1e3);
	printf(" %9.2f", (double)all->largest_ns / 1e3);
}

static void add_contender(struct report *report, const char *row, const struct contender *contender,
                          struct histogram *all)
{
	contender_merged(contender, all);
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
		report_add(report, histogram_quantile(all, quantiles[i].quantile), "%s.%s.%s_ns", row, contender->name,
		           quantiles[i].name);
	report_add(report, histogram_quantile(&contender->hist[ORDER_SEQUENTIAL], 0.5), "%s.%s.sequential_p50_ns", row,
	           contender->name);
	report_add(report, histogram_quantile(&contender->hist[ORDER_RANDOM], 0.5), "%s.%s.random_p50_ns", row,
	           contender->name);
}

static void print_head(const struct settings *settings)
{
	if (settings->common.json)
		return;
	printf("\nmicroseconds\n%-10s %-9s %9s %9s %9s %9s %9s %9s  %s\n", "placement", "who", "seq p50", "rand p50",
	       "p50", "p99", "p99.9", "max", "p50 library/bare");
}

/* -------------------------------------------------------------------------------------------------- measuring -- */

static void report_pair(struct report *report, const struct settings *settings, const struct placement *placement,
                        const struct contender pair[2])
{
	static struct histogram all[2];
	char row[48];

	snprintf(row, sizeof(row), "%s.%s", area_memory_name(settings->memory), placement->name);
	for (int i = 0; i < 2; i++)
		add_contender(report, row, &pair[i], &all[i]);
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
		report_add(report,
		           histogram_quantile(&all[0], quantiles[i].quantile) /
		                   histogram_quantile(&all[1], quantiles[i].quantile),
		           "%s.%s_ratio_bare", row, quantiles[i].name);
	if (settings->common.json)
		return;
	print_row(placement->name, &pair[0], &all[0]);
	printf("  %.3f\n", histogram_quantile(&all[0], 0.5) / histogram_quantile(&all[1], 0.5));
	print_row(placement->name, &pair[1], &all[1]);
	printf("\n");
}

static void measure_pair(struct report *report, const struct settings *settings, const struct placement *placement)
{
	static struct contender pair[2];
	struct library library;
	struct bare bare;
	struct library_setup setup = {
	        .memory = settings->memory,
	        .delivery = placement->delivery,
	        .handler_threads = settings->handler_threads,
	        .cpu = placement->handler_cpu == BENCH_ANY_CPU ? BENCH_ANY_CPU : bench_cpu(placement->handler_cpu),
	        .length_bytes = settings->size_bytes,
	};

	bench_pin(BENCH_ANY_CPU);
	contender_library(&pair[0], &library, &setup);
	contender_bare(&pair[1], &bare, &setup);
	bench_pin(bench_cpu(0));
	contender_measure(pair, 2, settings->rounds);
	library_expect_faults(&library, pair[0].hist[0].count + pair[0].hist[1].count);
	pair[1].close(pair[1].self);
	pair[0].close(pair[0].self);
	report_pair(report, settings, placement, pair);
}

static void measure_rivals(struct report *report, const struct settings *settings)
{
	static struct contender rivals[3];
	static struct histogram all;

	contender_mprotect(&rivals[0], settings->size_bytes);
	contender_fork(&rivals[1], settings->size_bytes);
	contender_unarmed(&rivals[2], settings->size_bytes);
	bench_pin(bench_cpu(0));
	contender_measure(rivals, 3, settings->rounds);
	for (int i = 0; i < 3; i++) {
		rivals[i].close(rivals[i].self);
		add_contender(report, "rival", &rivals[i], &all);
		if (settings->common.json)
			continue;
		print_row("-", &rivals[i], &all);
		printf("\n");
	}
}

static int wanted(const struct settings *settings, const struct placement *placement)
{
	if (settings->placement)
		return !strcmp(settings->placement, placement->name);
	return 1;
}

static void measure(struct report *report, const struct settings *settings)
{
	unsigned measured = 0;

	for (size_t i = 0; i < sizeof(placements) / sizeof(placements[0]); i++) {
		if (!wanted(settings, &placements[i]))
			continue;
		measured++;
		if (placements[i].handler_cpu > 0 && bench_cpus() < 2)
			fprintf(stderr, "uffdwp-bench: one CPU only: %s is left out\n", placements[i].name);
		else
			measure_pair(report, settings, &placements[i]);
	}
	if (!measured)
		bench_die("%s: no such placement", settings->placement);
	if (!settings->placement)
		measure_rivals(report, settings);
}

static void check_settings(struct settings *settings)
{
	size_t page_bytes = area_page_bytes(settings->memory);

	if (settings->common.quick) {
		settings->rounds = 2;
		settings->size_bytes = 256 * page_bytes;
	}
	if (settings->rounds < 2 || settings->size_bytes % page_bytes)
		bench_die("at least 2 rounds (one in each order), and a size in whole pages of %zu bytes", page_bytes);
}

int faults_main(int argc, char **argv)
{
	struct settings settings = {.memory = UFFDWP_MEMORY_SHMEM, .size_bytes = 64 << 20, .rounds = 8};
	struct report report;
	int code;

	bench_parse(&argp, argc, argv, &settings);
	check_settings(&settings);
	report_init(&report, "faults");
	report_note(&report, "memory", "%s, %llu KiB each, %u rounds", area_memory_name(settings.memory),
	            (unsigned long long)settings.size_bytes >> 10, settings.rounds);
	report_note(&report, "placement",
	            "writer on CPU %d; same_cpu: handler there too; other_cpu: handler on CPU %d; default: "
	            "handler on any",
	            bench_cpu(0), bench_cpu(1));
	if (!settings.common.json)
		report_print_notes(&report);
	print_head(&settings);
	measure(&report, &settings);
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
