/* SPDX-License-Identifier: MIT */
/*
 * Question: what does a child that has all memory cost, by fork() and by uffdwp_fork()?
 *
 * fork() as users have it, of private anonymous memory, is beside uffdwp_fork() of a created region of shared memory,
 * and the bare calls as the limit. What is measured: the call, the first writes after it while the child lives, how
 * long the child reads all of its memory, and how much memory both gained. Sides take turns, a round each, with memory
 * of their own; the order is reversed from one round to the next, and ratios are medians over pairs of one round. Each
 * child checks its memory by stamps: one that is wrong ends the program.
 *
 * Threads: the main thread and the library's, on any CPU, as a program has them.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "duel.h"
#include "fork.h"
#include "overcommit.h"

#define SIZES_MAX 16
#define SPARE_BYTES (UINT64_C(512) << 20)
#define COMMON_NAME "1g" /* the size that others are compared with */

struct settings {
	struct bench_settings common;
	uint64_t sizes[SIZES_MAX];
	size_t size_count;
	int is_sized; /* by --size */
	unsigned rounds;
	unsigned calls;
	const char *plot;
};

/* All sides with one size. */
struct table {
	char name[32];
	struct fork_row rows[FORK_SIDES];
	size_t count;
};

static const struct {
	const char *name;
	const char *ratio; /* NULL: it is not compared */
} figures[FORK_FIGURES] = {
        [FORK_FIRST_CALL_NS] = {"first_call_ns", "first_call_ratio_fork"},
        [FORK_CALL_NS] = {"call_ns", "call_ratio_fork"},
        [FORK_PAUSE_NS] = {"pause_ns", NULL},
        [FORK_REST_NS] = {"rest_ns", NULL},
        [FORK_SCAN_WORDS_NS] = {"scan_words_ns", "scan_words_ratio_fork"},
        [FORK_SCAN_SUMS_NS] = {"scan_sums_ns", "scan_sums_ratio_fork"},
        [FORK_EXTRA_BYTES] = {"extra_bytes", "extra_ratio_fork"},
        [FORK_EXTRA_ANON_BYTES] = {"extra_anon_bytes", NULL},
        [FORK_EXTRA_TABLES_BYTES] = {"extra_tables_bytes", NULL},
        [FORK_CHILD_ANON_BYTES] = {"child_anon_bytes", NULL},
        [FORK_CHILD_PRIVATE_BYTES] = {"child_private_bytes", NULL},
};

static const struct {
	const char *name;
	double quantile;
} write_figures[] = {{"write_p50", 0.5}, {"write_p99", 0.99}, {"write_p999", 0.999}};

#define WRITE_FIGURES (sizeof(write_figures) / sizeof(write_figures[0]))

enum { KEY_SIZE = 's', KEY_ROUNDS = 'r', KEY_CALLS = 'n', KEY_PLOT = 'p' };

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES,...", 0, "Sizes of the memory (default 1G,4G,8G)", 0},
        {"repeat", KEY_ROUNDS, "N", 0, "Rounds of each side, each with memory of its own (default 3)", 0},
        {"calls", KEY_CALLS, "N", 0, "Children in a round, one after the other, at least 4 (default 12)", 0},
        {"plot", KEY_PLOT, "FOLDER", 0, "Draw the time of the call against the size", 0},
        {0},
};

static void fork_add_size(struct settings *settings, const char *text, struct argp_state *state)
{
	uint64_t size_bytes = bench_size(text);

	if (settings->size_count == SIZES_MAX)
		argp_error(state, "at most %d sizes", SIZES_MAX);
	if (size_bytes % (uint64_t)sysconf(_SC_PAGESIZE))
		argp_error(state, "%s: a size must be in whole pages", text);
	settings->sizes[settings->size_count++] = size_bytes;
}

static error_t fork_parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_SIZE:
		settings->size_count = 0;
		settings->is_sized = 1;
		for (char *size; (size = strsep(&argument, ",")) != NULL;)
			fork_add_size(settings, size, state);
		return 0;
	case KEY_ROUNDS:
		settings->rounds = bench_number(argument, ROUNDS_MAX);
		return 0;
	case KEY_CALLS:
		settings->calls = bench_number(argument, FORK_CALLS_MAX);
		if (settings->calls < 4)
			argp_error(state, "--calls must be 4 or more");
		return 0;
	case KEY_PLOT:
		settings->plot = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {options,  fork_parse, NULL, "A child with all memory: fork() and uffdwp_fork().",
                                 children, NULL,       NULL};

/* ---------------------------------------------------------------------------------------------------- figures -- */

static void fork_report_figure(struct report *report, const struct table *table, const struct fork_row *row,
                               enum fork_figure figure)
{
	const struct fork_row *plain = &table->rows[0];
	struct rounds ratios;
	char name[80];

	snprintf(name, sizeof(name), "%s.%s.%s", table->name, row->side->name, figures[figure].name);
	rounds_report(report, &row->figures[figure], name);
	if (row == plain || !figures[figure].ratio)
		return;
	rounds_over(&row->figures[figure], &plain->figures[figure], &ratios);
	snprintf(name, sizeof(name), "%s.%s.%s", table->name, row->side->name, figures[figure].ratio);
	rounds_report(report, &ratios, name);
}

static void fork_report_writes(struct report *report, const struct table *table, const struct fork_row *row)
{
	const struct histogram *plain = &table->rows[0].writes;

	if (!row->writes.count)
		return;
	for (size_t i = 0; i < WRITE_FIGURES; i++) {
		double value = histogram_quantile(&row->writes, write_figures[i].quantile);

		report_add(report, value, "%s.%s.%s_ns", table->name, row->side->name, write_figures[i].name);
		if (row != &table->rows[0])
			report_add(report, value / histogram_quantile(plain, write_figures[i].quantile),
			           "%s.%s.%s_ratio_fork", table->name, row->side->name, write_figures[i].name);
	}
	report_add(report, (double)row->writes.largest_ns, "%s.%s.write_max_ns", table->name, row->side->name);
}

/* What the library adds to the calls that it cannot do without. */
static void fork_report_bare(struct report *report, const struct table *table, const struct fork_row *row)
{
	static const enum fork_figure compared[] = {FORK_CALL_NS, FORK_SCAN_WORDS_NS, FORK_SCAN_SUMS_NS};
	const struct fork_row *bare = &table->rows[table->count - 1];

	if (bare->side != &fork_sides[FORK_BARE] || !row->side->is_library)
		return;
	for (size_t i = 0; i < sizeof(compared) / sizeof(compared[0]); i++) {
		const char *name = figures[compared[i]].name;

		report_add(report, rounds_ratio(&row->figures[compared[i]], &bare->figures[compared[i]]),
		           "%s.%s.%.*s_ratio_bare", table->name, row->side->name, (int)(strlen(name) - strlen("_ns")),
		           name);
	}
	report_add(report, histogram_quantile(&row->writes, 0.5) / histogram_quantile(&bare->writes, 0.5),
	           "%s.%s.write_p50_ratio_bare", table->name, row->side->name);
}

/* Does the call grow with the memory? */
static void fork_report_growth(struct report *report, const struct table *table, const struct fork_row *row)
{
	char name[96];
	const struct figure *common;

	snprintf(name, sizeof(name), "fork." COMMON_NAME ".%s.call_ns", row->side->name);
	common = report_find(report, name);
	if (common && strcmp(table->name, COMMON_NAME) != 0)
		report_add(report, rounds_median(&row->figures[FORK_CALL_NS]) / common->value, "%s.%s.call_ratio_1g",
		           table->name, row->side->name);
}

static double fork_call_p99(const struct fork_row *row)
{
	static double sorted[ROUNDS_MAX * FORK_CALLS_MAX];
	double half;

	memcpy(sorted, row->calls, row->call_count * sizeof(sorted[0]));
	duel_median(sorted, row->call_count, &half);
	return duel_quantile(sorted, row->call_count, 0.99);
}

static void fork_report(struct report *report, const struct table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct fork_row *row = &table->rows[i];

		for (int figure = 0; figure < FORK_FIGURES; figure++)
			fork_report_figure(report, table, row, (enum fork_figure)figure);
		report_add(report, fork_call_p99(row), "%s.%s.call_p99_ns", table->name, row->side->name);
		fork_report_writes(report, table, row);
		fork_report_bare(report, table, row);
		fork_report_growth(report, table, row);
	}
}

/* -------------------------------------------------------------------------------------------------- the table -- */

/* A median in its unit, and its ratio to fork()'s. */
static void fork_print_figure(const struct table *table, const struct fork_row *row, enum fork_figure figure,
                              double unit)
{
	const struct rounds *rounds = &row->figures[figure];

	if (rounds->count)
		printf(" %9.2f %6.3f", rounds_median(rounds) / unit,
		       rounds_ratio(rounds, &table->rows[0].figures[figure]));
	else
		printf(" %9s %6s", "-", "-");
}

static void fork_print_writes(const struct fork_row *row)
{
	for (size_t i = 0; i < WRITE_FIGURES; i++) {
		if (row->writes.count)
			printf(" %8.2f", histogram_quantile(&row->writes, write_figures[i].quantile) / 1e3);
		else
			printf(" %8s", "-");
	}
}

static void fork_print(const struct table *table)
{
	printf("\n%-12s %9s %6s %9s %6s %9s %8s %8s %8s %9s %6s %9s %6s %9s %6s\n", table->name, "first ms", "/fork",
	       "call ms", "/fork", "p99 ms", "wr p50us", "p99 us", "p99.9 us", "words ms", "/fork", "sums ms", "/fork",
	       "extra MiB", "/fork");
	for (size_t i = 0; i < table->count; i++) {
		const struct fork_row *row = &table->rows[i];

		printf("%-12s", row->side->name);
		fork_print_figure(table, row, FORK_FIRST_CALL_NS, 1e6);
		fork_print_figure(table, row, FORK_CALL_NS, 1e6);
		printf(" %9.2f", fork_call_p99(row) / 1e6);
		fork_print_writes(row);
		fork_print_figure(table, row, FORK_SCAN_WORDS_NS, 1e6);
		fork_print_figure(table, row, FORK_SCAN_SUMS_NS, 1e6);
		fork_print_figure(table, row, FORK_EXTRA_BYTES, 1 << 20);
		printf("\n");
	}
	fflush(stdout);
}

/* ---------------------------------------------------------------------------------------------------- measuring -- */

static struct table table;

/* The sides that are available, fork() first. */
static void fork_find_sides(struct report *report)
{
	unsigned library = 0;

	for (size_t i = 0; i < FORK_SIDES; i++) {
		const char *reason = fork_side_refuses(&fork_sides[i]);

		if (reason && i == FORK_PLAIN)
			bench_die("fork: %s", reason);
		if (reason) {
			report_note(report, fork_sides[i].name, "left out: %s", reason);
			fprintf(stderr, "uffdwp-bench: fork: %s is left out: %s\n", fork_sides[i].name, reason);
			continue;
		}
		library += fork_sides[i].is_library != 0;
		table.rows[table.count++].side = &fork_sides[i];
	}
	if (!library)
		bench_skip("uffdwp_fork() is not available here");
}

static void fork_forget(void)
{
	for (size_t i = 0; i < table.count; i++) {
		const struct fork_side *side = table.rows[i].side;

		memset(&table.rows[i], 0, sizeof(table.rows[i]));
		table.rows[i].side = side;
	}
}

/* 0: this size has to be left out. */
static int fork_has_memory(const struct fork_plan *plan)
{
	uint64_t needed = plan->size_bytes + plan->size_bytes * plan->percent / 100 + SPARE_BYTES;
	uint64_t available = bench_meminfo_bytes("MemAvailable");

	if (needed <= available)
		return 1;
	fprintf(stderr, "uffdwp-bench: fork: %s is left out: it needs %llu MiB of memory, and %llu MiB are available\n",
	        table.name, (unsigned long long)needed >> 20, (unsigned long long)available >> 20);
	return 0;
}

static int fork_measure(struct report *report, const struct settings *settings, const struct fork_plan *plan)
{
	bench_size_name(plan->size_bytes, table.name, sizeof(table.name));
	if (!fork_has_memory(plan))
		return 0;
	fork_forget();
	for (unsigned round = 0; round < plan->rounds; round++) {
		for (size_t i = 0; i < table.count; i++)
			fork_trial(plan, round, &table.rows[round % 2 ? table.count - 1 - i : i]);
	}
	fork_report(report, &table);
	for (size_t i = 0; i < table.count; i++)
		fork_plot_call(table.rows[i].side, plan->size_bytes,
		               rounds_median(&table.rows[i].figures[FORK_CALL_NS]));
	if (!settings->common.json)
		fork_print(&table);
	return 1;
}

/* 1: a bar that was asked for is about this size, or compares with it. */
static int fork_is_asked_for(const struct bench_settings *common, uint64_t size_bytes)
{
	char name[32];
	char prefix[48];

	bench_size_name(size_bytes, name, sizeof(name));
	snprintf(prefix, sizeof(prefix), "fork.%s.", name);
	return !common->bar || !strcmp(name, COMMON_NAME) || report_bars_have(common->bars, common->bar, prefix);
}

static void fork_set_sizes(struct settings *settings)
{
	static const uint64_t sizes_mib[2][3] = {{1024, 4096, 8192}, {256, 1024, 0}};
	const uint64_t *mib = sizes_mib[settings->common.quick != 0];

	for (size_t i = 0; i < 3 && mib[i] && !settings->is_sized; i++) {
		if (fork_is_asked_for(&settings->common, mib[i] << 20))
			settings->sizes[settings->size_count++] = mib[i] << 20;
	}
}

static void fork_add_notes(struct report *report, const struct fork_plan *plan, const char *overcommit)
{
	report_note(report, "rival", "fork() of private anonymous memory, no transparent huge pages");
	report_note(report, "contender", "uffdwp_fork() of a created region of shared memory");
	report_note(report, "overcommit", "vm.overcommit_memory %s%s", overcommit ? "is not 1: " : "is 1",
	            overcommit ? overcommit : "");
	report_note(report, "rounds", "%u of each side, %u children in each, of which the first has %u %% written",
	            plan->rounds, plan->calls, plan->percent);
}

int fork_main(int argc, char **argv)
{
	static struct settings settings;
	struct fork_plan plan = {.percent = 25};
	struct report report;
	const char *overcommit;
	int measured = 0;
	int code;

	settings = (struct settings){.rounds = 3, .calls = 12};
	bench_parse(&argp, argc, argv, &settings);
	fork_set_sizes(&settings);
	plan.rounds = settings.common.quick ? 1 : settings.rounds;
	plan.calls = settings.common.quick ? 4 : settings.calls;
	plan.repeated_writes = settings.common.quick ? 256 : 4096;
	signal(SIGPIPE, SIG_IGN);
	overcommit = overcommit_always();
	report_init(&report, "fork");
	fork_find_sides(&report);
	fork_add_notes(&report, &plan, overcommit);
	if (settings.plot)
		fork_plot_open(settings.plot);
	if (!settings.common.json)
		report_print_notes(&report);
	for (size_t i = 0; i < settings.size_count; i++) {
		plan.size_bytes = settings.sizes[i];
		measured += fork_measure(&report, &settings, &plan);
	}
	if (!measured)
		bench_skip("there is not enough memory for any size");
	fork_plot_close();
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
