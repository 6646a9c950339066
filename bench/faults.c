/* SPDX-License-Identifier: MIT */
/*
 * Question: what does the first write to an armed page cost its writer, by each mechanism, and how much of that is the
 * library's?
 *
 * For each placement (handler thread on the writer's CPU, on another, wherever the scheduler puts it; inline) all rows
 * take turns: the library by each mechanism that this machine offers, and the bare system calls that do the same. Same
 * CPU, same order of pages, a window each. The rivals at the end put the figures beside what else one could do.
 *
 * Words: p50 and so on are over all pages of all rounds, the clock's own cost taken off. A ratio is a row over the row
 * that it is compared with, both of the same placement.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "contender.h"
#include "prepare.h"
#include "report.h"

struct placement {
	const char *name;
	enum uffdwp_delivery delivery;
	int handler_cpu; /* the n-th of the program's CPUs, or BENCH_ANY_CPU */
	int all;         /* 1: every mechanism; 0: the first that works, unless others are asked for */
};

static const struct placement placements[] = {
        {"same_cpu", UFFDWP_DELIVERY_THREAD, 0, 1},
        {"other_cpu", UFFDWP_DELIVERY_THREAD, 1, 0},
        {"default", UFFDWP_DELIVERY_THREAD, BENCH_ANY_CPU, 0},
        {"inline", UFFDWP_DELIVERY_INLINE, BENCH_ANY_CPU, 1},
};

#define FILES (1u << UFFDWP_MEMORY_SHMEM | 1u << UFFDWP_MEMORY_HUGETLB)
#define ALL_MEMORY (FILES | 1u << UFFDWP_MEMORY_ANON)

enum row_kind { ROW_LIBRARY, ROW_BARE, ROW_BARE_MPROTECT };

struct row {
	const char *name;
	enum row_kind kind;
	enum uffdwp_mechanism mechanism;
	enum library_loss loss;
	enum bare_kind bare;
	unsigned memories; /* bits of enum uffdwp_memory */
	const char *against[2];
};

/* The library's rows first, the best mechanism at the top; bare rows are measured where a row is compared with them. */
static const struct row rows[] = {
        {"marker", ROW_LIBRARY, UFFDWP_MECHANISM_MARKER, LOSS_NONE, BARE_WP, ALL_MEMORY, {"bare", NULL}},
        {"rearm", ROW_LIBRARY, UFFDWP_MECHANISM_REARM, LOSS_NONE, BARE_WP, ALL_MEMORY, {"bare", "marker"}},
        {"rearm_zap", ROW_LIBRARY, UFFDWP_MECHANISM_REARM, LOSS_ZAP, BARE_WP, FILES, {"bare_minor", NULL}},
        {"rearm_zap",
         ROW_LIBRARY,
         UFFDWP_MECHANISM_REARM,
         LOSS_ZAP,
         BARE_WP,
         1u << UFFDWP_MEMORY_ANON,
         {"bare_missing", NULL}},
        {"rearm_hole", ROW_LIBRARY, UFFDWP_MECHANISM_REARM, LOSS_HOLE, BARE_WP, FILES, {"bare_missing", NULL}},
        {"minor", ROW_LIBRARY, UFFDWP_MECHANISM_MINOR, LOSS_NONE, BARE_WP, FILES, {"bare_minor", NULL}},
        {"mprotect", ROW_LIBRARY, UFFDWP_MECHANISM_MPROTECT, LOSS_NONE, BARE_WP, ALL_MEMORY, {"bare_mprotect", NULL}},
        {"bare", ROW_BARE, UFFDWP_MECHANISM_AUTO, LOSS_NONE, BARE_WP, ALL_MEMORY, {NULL, NULL}},
        {"bare_minor", ROW_BARE, UFFDWP_MECHANISM_AUTO, LOSS_NONE, BARE_MINOR, FILES, {NULL, NULL}},
        {"bare_missing", ROW_BARE, UFFDWP_MECHANISM_AUTO, LOSS_NONE, BARE_MISSING, ALL_MEMORY, {NULL, NULL}},
        {"bare_mprotect", ROW_BARE_MPROTECT, UFFDWP_MECHANISM_AUTO, LOSS_NONE, BARE_WP, ALL_MEMORY, {NULL, NULL}},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct settings {
	struct bench_settings common;
	enum uffdwp_memory memory;
	uint32_t handler_threads;
	uint64_t size_bytes;
	unsigned rounds;
	const char *placement; /* NULL: all, and the rivals */
	unsigned mechanisms;   /* bits of enum uffdwp_mechanism; 0: all that the machine offers, and the rivals */
};

enum { KEY_MEMORY = 'm', KEY_HANDLERS = 't', KEY_SIZE = 's', KEY_ROUNDS = 'r', KEY_PLACEMENT = 'p' };
enum { KEY_MECHANISM = 'c' };

static const struct argp_option options[] = {
        {"memory", KEY_MEMORY, "TYPE", 0, "shmem (default), hugetlb or anon", 0},
        {"handlers", KEY_HANDLERS, "N", 0, "Handler threads of the library (default: its own)", 0},
        {"size", KEY_SIZE, "BYTES", 0, "Size of each contender's memory (default 32M)", 0},
        {"rounds", KEY_ROUNDS, "N", 0, "Times that all pages are written (default 8)", 0},
        {"placement", KEY_PLACEMENT, "NAME", 0, "same_cpu, other_cpu, default or inline only; no rivals", 0},
        {"mechanism", KEY_MECHANISM, "NAME,...", 0, "Of marker, rearm, minor, mprotect these only; no rivals", 0},
        {0},
};

static unsigned mechanisms_of(char *names)
{
	unsigned bits = 0;

	for (char *name; (name = strsep(&names, ",")) != NULL;)
		bits |= 1u << library_mechanism_of(name);
	return bits;
}

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
	case KEY_MECHANISM:
		settings->mechanisms = mechanisms_of(argument);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse,
        NULL,     "The first write to an armed page: the library by each mechanism, against the bare calls.",
        children, NULL,
        NULL};

/* -------------------------------------------------------------------------------------------------- reporting -- */

static const struct {
	const char *name;
	double quantile;
} quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};

static void print_row(const char *placement, const struct contender *contender, const struct histogram *all)
{
	printf("%-10s %-13s", placement, contender->name);
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
	printf("\nmicroseconds\n%-10s %-13s %9s %9s %9s %9s %9s %9s  %s\n", "placement", "side", "seq p50", "rand p50",
	       "p50", "p99", "p99.9", "max", "its p50 is this of the p50 of");
}

/* -------------------------------------------------------------------------------------------------- the rows -- */

/* The rows of one placement, opened. */
struct field {
	const struct settings *settings;
	const struct placement *placement;
	size_t count;
	const struct row *rows[ROWS];
	struct contender contenders[ROWS];
	struct library libraries[ROWS];
	struct bare bares[ROWS];
	struct histogram all[ROWS];
};

static const struct contender *find_contender(const struct field *field, const char *name, size_t *index)
{
	for (size_t i = 0; name && i < field->count; i++) {
		if (!strcmp(field->rows[i]->name, name)) {
			*index = i;
			return &field->contenders[i];
		}
	}
	return NULL;
}

/* Standard error beside JSON, so that a row that is not there is not overlooked. */
static void say_missing(const struct field *field, const struct row *row, const char *reason)
{
	if (row->loss == LOSS_NONE)
		fprintf(field->settings->common.json ? stderr : stdout, "%-10s %-13s not offered here: %s\n",
		        field->placement->name, row->name, reason);
}

static int is_asked_for(const struct field *field, const struct row *row)
{
	const struct settings *settings = field->settings;

	if (settings->mechanisms)
		return (settings->mechanisms >> row->mechanism & 1) != 0;
	return field->placement->all || field->count == 0;
}

static void choose_library_row(struct field *field, const struct row *row)
{
	const char *reason;

	if (!is_asked_for(field, row))
		return;
	reason = library_refuses(field->settings->memory, row->mechanism, field->placement->delivery);
	if (reason)
		say_missing(field, row, reason);
	else
		field->rows[field->count++] = row;
}

static int is_compared_with(const struct field *field, const struct row *bare)
{
	for (size_t i = 0; i < field->count; i++) {
		for (int k = 0; k < 2; k++) {
			const char *against = field->rows[i]->against[k];

			if (against && !strcmp(against, bare->name))
				return 1;
		}
	}
	return 0;
}

static void choose_rows(struct field *field)
{
	for (size_t i = 0; i < ROWS; i++) {
		if (!(rows[i].memories >> field->settings->memory & 1))
			continue;
		if (rows[i].kind == ROW_LIBRARY)
			choose_library_row(field, &rows[i]);
		else if (is_compared_with(field, &rows[i]))
			field->rows[field->count++] = &rows[i];
	}
}

static void open_row(struct field *field, size_t i)
{
	const struct settings *settings = field->settings;
	const struct placement *placement = field->placement;
	const struct row *row = field->rows[i];
	struct library_setup setup = {
	        .memory = settings->memory,
	        .mechanism = row->mechanism,
	        .delivery = placement->delivery,
	        .loss = row->loss,
	        .handler_threads = settings->handler_threads,
	        .cpu = placement->handler_cpu == BENCH_ANY_CPU ? BENCH_ANY_CPU : bench_cpu(placement->handler_cpu),
	        .length_bytes = settings->size_bytes,
	};

	field->bares[i].kind = row->bare;
	if (row->kind == ROW_LIBRARY)
		contender_library(&field->contenders[i], row->name, &field->libraries[i], &setup);
	else if (row->kind == ROW_BARE)
		contender_bare(&field->contenders[i], row->name, &field->bares[i], &setup);
	else
		contender_mprotect(&field->contenders[i], row->name, &setup);
}

static void close_rows(struct field *field)
{
	for (size_t i = field->count; i-- > 0;) {
		struct contender *contender = &field->contenders[i];

		if (field->rows[i]->kind == ROW_LIBRARY)
			library_expect_faults(&field->libraries[i], contender->hist[ORDER_SEQUENTIAL].count +
			                                                    contender->hist[ORDER_RANDOM].count);
		contender->close(contender->self);
	}
}

/* -------------------------------------------------------------------------------------------------- measuring -- */

static void report_ratio(struct report *report, const struct field *field, const char *prefix, size_t i,
                         const char *against)
{
	size_t other;

	if (!find_contender(field, against, &other))
		return;
	for (size_t k = 0; k < sizeof(quantiles) / sizeof(quantiles[0]); k++) {
		double ratio = histogram_quantile(&field->all[i], quantiles[k].quantile) /
		               histogram_quantile(&field->all[other], quantiles[k].quantile);

		report_add(report, ratio, "%s.%s.%s_ratio_%s", prefix, field->rows[i]->name, quantiles[k].name,
		           against);
		if (k == 0 && !field->settings->common.json)
			printf("  %.3f %s", ratio, against);
	}
}

/* What a handler beside its writer costs at least was measured before, in the same run. */
static void report_beside(struct report *report, const struct field *field, const char *prefix, size_t i)
{
	char name[96];

	snprintf(name, sizeof(name), "%s.%s.same_cpu.bare.p50_ns", report->question,
	         area_memory_name(field->settings->memory));
	const struct figure *bare = report_find(report, name);

	if (!bare || field->placement->delivery != UFFDWP_DELIVERY_THREAD ||
	    field->placement->handler_cpu != BENCH_ANY_CPU || field->rows[i]->kind != ROW_LIBRARY)
		return;
	report_add(report, histogram_quantile(&field->all[i], 0.5) / bare->value, "%s.%s.p50_ratio_same_cpu_bare",
	           prefix, field->rows[i]->name);
}

static void report_rows(struct report *report, struct field *field)
{
	char prefix[48];

	snprintf(prefix, sizeof(prefix), "%s.%s", area_memory_name(field->settings->memory), field->placement->name);
	for (size_t i = 0; i < field->count; i++)
		add_contender(report, prefix, &field->contenders[i], &field->all[i]);
	for (size_t i = 0; i < field->count; i++) {
		if (!field->settings->common.json)
			print_row(field->placement->name, &field->contenders[i], &field->all[i]);
		for (int k = 0; k < 2; k++)
			report_ratio(report, field, prefix, i, field->rows[i]->against[k]);
		report_beside(report, field, prefix, i);
		if (!field->settings->common.json)
			printf("\n");
	}
	if (!field->settings->common.json)
		printf("\n");
}

/* How many rows there were. */
static size_t measure_placement(struct report *report, const struct settings *settings,
                                const struct placement *placement)
{
	static struct field field;

	memset(&field, 0, sizeof(field));
	field.settings = settings;
	field.placement = placement;
	choose_rows(&field);
	if (!field.count)
		return 0;
	bench_pin(BENCH_ANY_CPU);
	for (size_t i = 0; i < field.count; i++)
		open_row(&field, i);
	bench_pin(bench_cpu(0));
	contender_measure(field.contenders, field.count, settings->rounds);
	close_rows(&field);
	report_rows(report, &field);
	return field.count;
}

static void measure_rivals(struct report *report, const struct settings *settings)
{
	static struct contender rivals[2];
	static struct histogram all;

	contender_fork(&rivals[0], settings->size_bytes);
	contender_unarmed(&rivals[1], settings->size_bytes);
	bench_pin(bench_cpu(0));
	contender_measure(rivals, 2, settings->rounds);
	for (int i = 0; i < 2; i++) {
		rivals[i].close(rivals[i].self);
		add_contender(report, "rival", &rivals[i], &all);
		if (settings->common.json)
			continue;
		print_row("-", &rivals[i], &all);
		printf("\n");
	}
}

static int is_wanted(const struct settings *settings, const struct placement *placement)
{
	return !settings->placement || !strcmp(settings->placement, placement->name);
}

static void measure(struct report *report, const struct settings *settings)
{
	unsigned known = 0;
	size_t measured = 0;

	for (size_t i = 0; i < sizeof(placements) / sizeof(placements[0]); i++) {
		if (!is_wanted(settings, &placements[i]))
			continue;
		known++;
		if (placements[i].handler_cpu > 0 && bench_cpus() < 2)
			fprintf(stderr, "uffdwp-bench: one CPU only: %s is left out\n", placements[i].name);
		else
			measured += measure_placement(report, settings, &placements[i]);
	}
	if (!known)
		bench_die("%s: no such placement", settings->placement);
	if (!measured)
		bench_skip("none of the mechanisms that were asked for works here");
	if (settings->placement || settings->mechanisms)
		return;
	measure_rivals(report, settings);
	prepare_measure(report, settings->memory, settings->size_bytes, !settings->common.json);
}

static void check_settings(struct settings *settings)
{
	size_t page_bytes = area_page_bytes(settings->memory);

	if (settings->common.quick) {
		settings->rounds = 2;
		settings->size_bytes = settings->memory == UFFDWP_MEMORY_HUGETLB ? 4 * page_bytes : 256 * page_bytes;
	}
	if (settings->rounds < 2 || settings->size_bytes % page_bytes)
		bench_die("at least 2 rounds (one in each order), and a size in whole pages of %zu bytes", page_bytes);
}

int faults_main(int argc, char **argv)
{
	struct settings settings = {.memory = UFFDWP_MEMORY_SHMEM, .size_bytes = 32 << 20, .rounds = 8};
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
