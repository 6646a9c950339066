/* SPDX-License-Identifier: MIT */
/*
 * Figures and tables of the question `snapshot`. Figures are medians of the trials, except the largest write and the
 * peak of copies, which are the worst of all; the stall is the median of the largest writes. Extra memory is of a trial
 * of its own.
 */
#include <math.h>
#include <stdio.h>

#include "bench.h"
#include "snapshot.h"
#include "window.h"

static const struct {
	const char *name;
	int worst; /* the worst of the trials stands for them, not the median */
} figures[TRIAL_FIGURES] = {
        [TRIAL_PAUSE_NS] = {"pause_ns", 0},
        [TRIAL_BEGIN_NS] = {"begin_ns", 0},
        [TRIAL_TOTAL_NS] = {"total_ns", 0},
        [TRIAL_DURING_P50_NS] = {"during_p50_ns", 0},
        [TRIAL_DURING_P99_NS] = {"during_p99_ns", 0},
        [TRIAL_DURING_P999_NS] = {"during_p999_ns", 0},
        [TRIAL_DURING_MAX_NS] = {"during_max_ns", 1},
        [TRIAL_WINDOW_P50_NS] = {"write_p50_ns", 0},
        [TRIAL_WINDOW_P99_NS] = {"write_p99_ns", 0},
        [TRIAL_WINDOW_P999_NS] = {"write_p999_ns", 0},
        [TRIAL_WINDOW_MAX_NS] = {"write_max_ns", 1},
        [TRIAL_BEFORE_P50_NS] = {"before_p50_ns", 0},
        [TRIAL_BEFORE_P99_NS] = {"before_p99_ns", 0},
        [TRIAL_BEFORE_P999_NS] = {"before_p999_ns", 0},
        [TRIAL_BEFORE_MAX_NS] = {"before_max_ns", 0},
        [TRIAL_WRITES_PER_S] = {"writes_per_s", 0},
        [TRIAL_WRITES_SHARE] = {"writes_share", 0},
        [TRIAL_AFTER_SHARE] = {"after_share", 0},
        [TRIAL_UNDISTURBED_WRITES] = {"undisturbed_writes", 0},
        [TRIAL_WINDOW_WRITES] = {"window_writes", 0},
        [TRIAL_LOST_SHARE] = {"lost_share", 0},
        [TRIAL_FAULTS] = {"faults", 0},
        [TRIAL_WRITES_PER_FAULT] = {"during_writes_per_fault", 0},
        [TRIAL_PAGES_FAULT] = {"pages_fault", 0},
        [TRIAL_PAGES_PREPARE] = {"pages_prepare", 0},
        [TRIAL_PAGES_SWEEP] = {"pages_sweep", 0},
        [TRIAL_WAITS] = {"waits", 0},
        [TRIAL_PREIMAGE_PEAK_BYTES] = {"preimage_peak_bytes", 1},
        [TRIAL_WRITTEN_BYTES] = {"written_bytes", 0},
        [TRIAL_ROUNDS] = {"rounds", 0},
        [TRIAL_ROUNDS_NS] = {"rounds_ns", 0},
        [TRIAL_BRAKED_NS] = {"braked_ns", 0},
        [TRIAL_PAGES_ROUNDS] = {"pages_rounds", 0},
};

/* What one ratio to fork is called, and which figure it is of. */
static const struct {
	const char *name;
	const char *title;
	enum trial_figure figure;
} ratios[] = {
        {"time_ratio_fork", "total", TRIAL_TOTAL_NS},
        {"pause_ratio_fork", "pause", TRIAL_PAUSE_NS},
        {"begin_ratio_fork", "begin", TRIAL_BEGIN_NS},
        {"lost_ratio_fork", "lost", TRIAL_LOST_SHARE},
        {"write_p999_ratio_fork", "p99.9 in window", TRIAL_WINDOW_P999_NS},
        {"during_p999_ratio_fork", "p99.9 during", TRIAL_DURING_P999_NS},
        {"writes_share_ratio_fork", "writes%", TRIAL_WRITES_SHARE},
};

#define RATIOS (sizeof(ratios) / sizeof(ratios[0]))

static const char *const kind_names[TRIAL_KINDS] = {"first", "repeated", "incremental"};

const char *snapshot_kind_name(enum trial_kind kind)
{
	return kind_names[kind];
}

static void size_name(uint64_t size_bytes, char *name, size_t size)
{
	const char *unit = "kmgt";
	uint64_t value = size_bytes >> 10;

	while (value % 1024 == 0 && unit[1]) {
		value >>= 10;
		unit++;
	}
	snprintf(name, size, ".%llu%c", (unsigned long long)value, *unit);
}

void snapshot_case_name(const struct snapshot_case *one, char *name, size_t size)
{
	char writers[16] = "";
	char bytes[32] = "";

	if (one->writer_count != 1)
		snprintf(writers, sizeof(writers), ".w%u", one->writer_count);
	if (one->size_bytes != SNAPSHOT_COMMON_BYTES)
		size_name(one->size_bytes, bytes, sizeof(bytes));
	snprintf(name, size, "%s%s%s%s%s%s", load_pattern_name(one->pattern), one->kind == TRIAL_FIRST ? "" : ".",
	         one->kind == TRIAL_FIRST ? "" : kind_names[one->kind], writers, bytes, one->ample ? ".ample" : "");
}

const struct snapshot_row *snapshot_find_fork(const struct snapshot_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		if (table->rows[i].method == &trial_fork)
			return &table->rows[i];
	}
	return NULL;
}

static int is_library(const struct snapshot_row *row)
{
	return row->method == &trial_inline || row->method == &trial_thread || trial_moves(row->method);
}

/* ---------------------------------------------------------------------------------------------------- figures -- */

static double gather(const struct snapshot_row *row, int figure, double *values)
{
	double worst = 0;

	for (unsigned i = 0; i < row->count; i++) {
		values[i] = row->trials[i].values[figure];
		worst = values[i] > worst ? values[i] : worst;
	}
	return worst;
}

static int is_measured(const struct snapshot_table *table, const struct snapshot_row *row, int figure)
{
	if (figure >= TRIAL_ROUNDS && figure <= TRIAL_PAGES_ROUNDS)
		return TRIAL_HAS_KEEP && is_library(row);
	if (figure == TRIAL_LOST_SHARE)
		return table->window_ns && !load_pattern_rate(table->one.pattern);
	return 1;
}

static void add_row(struct report *report, const struct snapshot_table *table, struct snapshot_row *row)
{
	double values[SNAPSHOT_TRIALS_MAX];

	for (int figure = 0; figure < TRIAL_FIGURES; figure++) {
		double worst = gather(row, figure, values);

		if (!is_measured(table, row, figure))
			continue;
		row->values[figure] = worst;
		if (figures[figure].worst)
			report_add(report, worst, "%s.%s.%s", table->name, row->method->name, figures[figure].name);
		else
			row->values[figure] = report_add_median(report, values, row->count, "%s.%s.%s", table->name,
			                                        row->method->name, figures[figure].name);
	}
	gather(row, TRIAL_DURING_MAX_NS, values);
	row->stall_ns = report_add_median(report, values, row->count, "%s.%s.stall_ns", table->name, row->method->name);
	for (unsigned i = 0; i < row->count; i++)
		histogram_merge(&row->during, &row->trials[i].during);
}

/* A trial that took longer than the window is compared over another stretch of time than the rest. */
static void add_beyond(struct report *report, const struct snapshot_table *table, struct snapshot_row *row)
{
	for (unsigned i = 0; i < row->count; i++)
		row->beyond += row->trials[i].values[TRIAL_TOTAL_NS] > (double)table->window_ns;
	report_add(report, row->beyond, "%s.%s.trials_beyond_window", table->name, row->method->name);
}

static double share_of(double a, double b)
{
	return b > 0 ? a / b : 0;
}

/* NAN: there is none. */
static double ratio(const struct snapshot_table *table, size_t which, const struct snapshot_row *row,
                    const struct snapshot_row *fork_row)
{
	enum trial_figure figure = ratios[which].figure;

	if (!is_measured(table, row, (int)figure))
		return (double)NAN;
	if (figure == TRIAL_LOST_SHARE)
		return window_lost_ratio(row->values[figure], fork_row->values[figure]);
	return share_of(row->values[figure], fork_row->values[figure]);
}

/* Where fork has lost nothing there is no figure, so that its bar does not hold by mistake. */
static void add_ratios(struct report *report, const struct snapshot_table *table, const struct snapshot_row *row)
{
	const struct snapshot_row *fork_row = snapshot_find_fork(table);

	for (size_t i = 0; fork_row && row != fork_row && i < RATIOS; i++) {
		double value = ratio(table, i, row, fork_row);

		if (!isnan(value))
			report_add(report, value, "%s.%s.%s", table->name, row->method->name, ratios[i].name);
	}
	if (fork_row && row != fork_row)
		report_add(report, share_of(row->stall_ns, fork_row->stall_ns), "%s.%s.stall_ratio_fork", table->name,
		           row->method->name);
}

static void add_memory(struct report *report, const struct snapshot_table *table, const struct snapshot_row *row)
{
	double extra = (double)memory_extra_pss(&row->memory);

	if (!row->memory.count)
		return;
	report_add(report, extra, "%s.%s.extra_bytes", table->name, row->method->name);
	report_add(report, (double)memory_extra_private(&row->memory), "%s.%s.extra_private_bytes", table->name,
	           row->method->name);
	if (is_library(row))
		report_add(report, extra / (double)table->pool_bytes, "%s.%s.extra_ratio_pool", table->name,
		           row->method->name);
}

static void add_faults_per_page(struct report *report, const struct snapshot_table *table,
                                const struct snapshot_row *row)
{
	double pages = row->values[TRIAL_PAGES_FAULT];

	if (pages > 0)
		report_add(report, row->values[TRIAL_FAULTS] / pages, "%s.%s.faults_per_page", table->name,
		           row->method->name);
}

static void add_rounds(struct report *report, const struct snapshot_table *table, const struct snapshot_row *row)
{
	uint64_t size_bytes = table->one.size_bytes;

	if (TRIAL_HAS_KEEP && is_library(row))
		report_add(report,
		           row->values[TRIAL_ROUNDS_NS] / 1e9 * (double)SNAPSHOT_COMMON_BYTES / (double)size_bytes,
		           "%s.%s.rounds_s_per_gib", table->name, row->method->name);
}

/* The same case with 1 GiB must have been measured before. */
static void add_against_common(struct report *report, const struct snapshot_table *table,
                               const struct snapshot_row *row, const char *figure, enum trial_figure number)
{
	struct snapshot_case common = table->one;
	const struct figure *found;
	char prefix[64];
	char name[160];

	common.size_bytes = SNAPSHOT_COMMON_BYTES;
	snapshot_case_name(&common, prefix, sizeof(prefix));
	snprintf(name, sizeof(name), "%s.%s.%s.%s_ns", report->question, prefix, row->method->name, figure);
	found = table->one.size_bytes == SNAPSHOT_COMMON_BYTES ? NULL : report_find(report, name);
	if (found)
		report_add(report, share_of(row->values[number], found->value), "%s.%s.%s_ratio_1g", table->name,
		           row->method->name, figure);
}

void snapshot_add(struct report *report, struct snapshot_table *table)
{
	report_add(report, (double)table->window_ns, "%s.window_ns", table->name);
	for (size_t i = 0; i < table->count; i++) {
		struct snapshot_row *row = &table->rows[i];

		add_row(report, table, row);
		add_beyond(report, table, row);
		add_memory(report, table, row);
		add_faults_per_page(report, table, row);
		add_rounds(report, table, row);
		add_against_common(report, table, row, "pause", TRIAL_PAUSE_NS);
		add_against_common(report, table, row, "begin", TRIAL_BEGIN_NS);
	}
	for (size_t i = 0; i < table->count; i++)
		add_ratios(report, table, &table->rows[i]);
}

/* ----------------------------------------------------------------------------------------------------- tables -- */

static void print_head(const struct snapshot_table *table)
{
	const struct snapshot_case *one = &table->one;

	printf("\n%s: %s writes by %u, %s snapshots of %llu MiB", table->name, load_pattern_name(one->pattern),
	       one->writer_count, kind_names[one->kind], (unsigned long long)one->size_bytes >> 20);
	printf(", window %.3f s", (double)table->window_ns / 1e9);
	printf("\n%-11s %9s %9s %9s | %-52s | %-26s |\n", "", "", "", "", "writes during the snapshot",
	       "in the window");
	printf("%-11s %9s %9s %9s | %7s %7s %8s %8s %9s %8s | %8s %8s %8s | %8s %8s %8s %6s | %7s %7s %7s", "method",
	       "pause ms", "begin ms", "total ms", "p50 us", "p99 us", "p99.9 us", "stall us", "max us", "writes%",
	       "p99.9 us", "max us", "lost%", "faults", "by fault", "by sweep", "waits", "cop MiB", "mem MiB",
	       "out MiB");
	printf("%s\n", TRIAL_HAS_KEEP ? " | rounds      ms  brake ms" : "");
}

static void print_window(const struct snapshot_table *table, const struct snapshot_row *row)
{
	const double *v = row->values;

	printf(" | %8.2f %8.0f", v[TRIAL_WINDOW_P999_NS] / 1e3, v[TRIAL_WINDOW_MAX_NS] / 1e3);
	if (is_measured(table, row, TRIAL_LOST_SHARE))
		printf(" %8.2f |", v[TRIAL_LOST_SHARE] * 100);
	else
		printf(" %8s |", "-");
}

static void print_row(const struct snapshot_table *table, const struct snapshot_row *row)
{
	const double *v = row->values;

	printf("%-11s %9.3f %9.3f %9.1f | %7.2f %7.2f %8.2f %8.0f %9.0f %8.1f", row->method->name,
	       v[TRIAL_PAUSE_NS] / 1e6, v[TRIAL_BEGIN_NS] / 1e6, v[TRIAL_TOTAL_NS] / 1e6, v[TRIAL_DURING_P50_NS] / 1e3,
	       v[TRIAL_DURING_P99_NS] / 1e3, v[TRIAL_DURING_P999_NS] / 1e3, row->stall_ns / 1e3,
	       v[TRIAL_DURING_MAX_NS] / 1e3, v[TRIAL_WRITES_SHARE] * 100);
	print_window(table, row);
	printf(" %8.0f %8.0f %8.0f %6.0f | %7.1f", v[TRIAL_FAULTS], v[TRIAL_PAGES_FAULT], v[TRIAL_PAGES_SWEEP],
	       v[TRIAL_WAITS], v[TRIAL_PREIMAGE_PEAK_BYTES] / (1 << 20));
	if (row->memory.count)
		printf(" %7.1f", (double)memory_extra_pss(&row->memory) / (1 << 20));
	else
		printf(" %7s", "-");
	printf(" %7.1f", v[TRIAL_WRITTEN_BYTES] / (1 << 20));
	if (TRIAL_HAS_KEEP && is_library(row))
		printf(" | %6.0f %7.1f %9.1f", v[TRIAL_ROUNDS], v[TRIAL_ROUNDS_NS] / 1e6, v[TRIAL_BRAKED_NS] / 1e6);
	printf("\n");
}

static void print_ratios(const struct snapshot_table *table, const struct snapshot_row *fork_row)
{
	printf("\n%-12s", "against fork");
	for (size_t k = 0; k < RATIOS; k++)
		printf(" %16s", ratios[k].title);
	printf("\n");
	for (size_t i = 0; i < table->count; i++) {
		const struct snapshot_row *row = &table->rows[i];

		if (row == fork_row)
			continue;
		printf("%-12s", row->method->name);
		for (size_t k = 0; k < RATIOS; k++) {
			double value = ratio(table, k, row, fork_row);

			if (isnan(value))
				printf(" %16s", "-");
			else
				printf(" %16.5f", value);
		}
		printf("\n");
	}
}

void snapshot_print(const struct snapshot_table *table)
{
	const struct snapshot_row *fork_row = snapshot_find_fork(table);

	print_head(table);
	for (size_t i = 0; i < table->count; i++)
		print_row(table, &table->rows[i]);
	if (fork_row && table->count > 1)
		print_ratios(table, fork_row);
}

/* Beside JSON they go to standard error; the figures have them, too. */
void snapshot_print_beyond(FILE *to, const struct snapshot_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct snapshot_row *row = &table->rows[i];

		if (row->beyond)
			fprintf(to, "%s: %u of %u trials took longer than the window; theirs ended when they did\n",
			        row->method->name, row->beyond, row->count);
	}
}
