/* SPDX-License-Identifier: MIT */
/*
 * The table for people, and the same as JSON.
 */
#include "bank.h"

#include <inttypes.h>
#include <stdio.h>

#define MIB (1024.0 * 1024.0)

uint64_t row_elapsed_ns(const struct row *row)
{
	uint64_t elapsed_ns = 0;
	for (size_t i = 0; i < row->count; i++)
		elapsed_ns += row->intervals[i].to_ns - row->intervals[i].from_ns;
	return elapsed_ns;
}

static double bank_report_per_second(const struct row *row)
{
	uint64_t elapsed_ns = row_elapsed_ns(row);
	return elapsed_ns ? (double)row->latencies.count * (double)NS_PER_SECOND / (double)elapsed_ns : 0;
}

/* A number divided by a unit, or a dash. */
static void bank_report_print_cell(int width, uint64_t value, double unit, int digits)
{
	if (value == BANK_NONE)
		printf(" %*s", width, "-");
	else
		printf(" %*.*f", width, digits, (double)value / unit);
}

static void bank_report_print_row(const struct row *row)
{
	const struct latencies *tx = &row->latencies;
	printf("%-18s", row->method);
	bank_report_print_cell(9, row->pause_ns, 1e6, 3);
	bank_report_print_cell(9, row->begin_ns, 1e6, 3);
	bank_report_print_cell(7, row->faults, 1, 0);
	bank_report_print_cell(8, row->prepared, 1, 0);
	bank_report_print_cell(9, tx->p50_ns, 1e6, 3);
	bank_report_print_cell(8, tx->p99_ns, 1e6, 3);
	bank_report_print_cell(8, tx->p999_ns, 1e6, 3);
	bank_report_print_cell(10, tx->max_ns, 1e6, 3);
	printf(" %8.0f", bank_report_per_second(row));
	bank_report_print_cell(8, row->image_bytes, MIB, 1);
	bank_report_print_cell(8, row_elapsed_ns(row), 1e9, 2);
	printf("\n");
}

void report_print(const struct row *rows, size_t count, const struct report_setting *setting)
{
	const struct bank_options *options = setting->options;
	printf("\n%u writers, think time %u us, delivery %s, mechanism %s%s\n", options->threads, options->think_us,
	       setting->bank->delivery, setting->bank->mechanism, options->prepare ? "" : ", writes fault (prepare=0)");
	printf("pause, begin and transactions in ms; longest stall = the slowest transaction of that time\n\n");
	printf("%-18s %9s %9s %7s %8s %9s %8s %8s %10s %8s %8s %8s\n", "", "pause", "begin", "faults", "prepared",
	       "tx p50", "p99", "p99.9", "longest", "tx/s", "image", "time");
	printf("%-18s %9s %9s %7s %8s %9s %8s %8s %10s %8s %8s %8s\n", "", "ms", "ms", "", "pages", "ms", "ms", "ms",
	       "stall ms", "", "MiB", "s");
	for (size_t i = 0; i < count; i++)
		bank_report_print_row(&rows[i]);
	printf("\nThe online backup is one step(-1): step(n) starts again whenever another connection has written.\n");
	printf("region: %s\n\n", setting->stats);
}

static void bank_report_json_figure(const char *key, uint64_t value)
{
	if (value == BANK_NONE)
		printf(",\"%s\":null", key);
	else
		printf(",\"%s\":%" PRIu64, key, value);
}

static void bank_report_json_row(const struct row *row)
{
	printf("{\"method\":\"%s\"", row->method);
	bank_report_json_figure("pause_ns", row->pause_ns);
	bank_report_json_figure("begin_ns", row->begin_ns);
	bank_report_json_figure("faults", row->faults);
	bank_report_json_figure("pages_prepare", row->prepared);
	bank_report_json_figure("transactions", row->latencies.count);
	bank_report_json_figure("p50_ns", row->latencies.p50_ns);
	bank_report_json_figure("p99_ns", row->latencies.p99_ns);
	bank_report_json_figure("p999_ns", row->latencies.p999_ns);
	bank_report_json_figure("max_ns", row->latencies.max_ns);
	bank_report_json_figure("image_bytes", row->image_bytes);
	bank_report_json_figure("elapsed_ns", row_elapsed_ns(row));
	printf("}");
}

void report_json(const struct row *rows, size_t count, const struct report_setting *setting, unsigned verified)
{
	const struct bank_options *options = setting->options;
	printf("{\"threads\":%u,\"think_us\":%u,\"delivery\":\"%s\",\"mechanism\":\"%s\",\"prepare\":%d,\"rows\":[",
	       options->threads, options->think_us, setting->bank->delivery, setting->bank->mechanism,
	       options->prepare);
	for (size_t i = 0; i < count; i++) {
		if (i)
			printf(",");
		bank_report_json_row(&rows[i]);
	}
	printf("],\"stats\":%s,\"snapshots\":%u,\"verified\":%u}\n", setting->stats, options->snapshots, verified);
}
