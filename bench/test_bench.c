/* SPDX-License-Identifier: MIT */
/*
 * What the figures stand on: the histogram against sorted values, the phases of the load, and the bars against known
 * figures.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "histogram.h"
#include "load.h"
#include "report.h"

#define VALUES 20000

static uint64_t seed_of_run(void)
{
	const char *text = getenv("UFFDWP_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : bench_now_ns();

	printf("UFFDWP_SEED=%llu\n", (unsigned long long)seed);
	return seed | 1;
}

static int ascending(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return (*x > *y) - (*x < *y);
}

START_TEST(test_buckets_follow_each_other_without_a_gap)
{
	for (size_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
		ck_assert_uint_eq(histogram_bucket(histogram_floor(bucket)), bucket);
		if (bucket)
			ck_assert_uint_eq(histogram_bucket(histogram_floor(bucket) - 1), bucket - 1);
	}
}
END_TEST

START_TEST(test_value_beyond_the_limit_lands_in_the_last_bucket)
{
	ck_assert_uint_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	ck_assert_uint_eq(histogram_bucket(1ull << HISTOGRAM_LIMIT_BITS), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(test_quantile_is_within_a_hundredth_of_the_sorted_value)
{
	static struct histogram histogram;
	static uint64_t values[VALUES];
	uint64_t state = seed_of_run();

	histogram_clear(&histogram);
	for (size_t i = 0; i < VALUES; i++) {
		values[i] = bench_random(&state) >> (24 + bench_random(&state) % 38);
		histogram_record(&histogram, values[i]);
	}
	qsort(values, VALUES, sizeof(values[0]), ascending);
	for (size_t rank = 1; rank <= VALUES; rank += 7) {
		double value = (double)values[rank - 1];
		double found = histogram_quantile(&histogram, ((double)rank - 0.5) / VALUES);

		ck_assert_double_ge_tol(found, value * 0.99, 1e-6);
		ck_assert_double_le_tol(found, value * 1.01, 1e-6);
	}
	ck_assert_uint_eq(histogram.largest_ns, values[VALUES - 1]);
}
END_TEST

START_TEST(test_merged_histogram_has_the_values_of_both)
{
	static struct histogram a;
	static struct histogram b;

	histogram_clear(&a);
	histogram_clear(&b);
	histogram_record(&a, 10);
	histogram_record(&b, 30);
	histogram_record(&b, 20);
	histogram_merge(&a, &b);
	ck_assert_uint_eq(a.count, 3);
	ck_assert_uint_eq(a.largest_ns, 30);
	ck_assert_double_eq(histogram_quantile(&a, 0.5), 20.0);
}
END_TEST

START_TEST(test_empty_histogram_has_quantile_zero)
{
	static struct histogram histogram;

	histogram_clear(&histogram);
	ck_assert_double_eq(histogram_quantile(&histogram, 0.5), 0.0);
}
END_TEST

/* Lets the writers go in a phase until at least one write of it is kept. How many are kept then. */
static uint64_t write_in(struct load *load, enum load_phase phase)
{
	static struct load_result result;
	struct timespec pause = {0, 1000000};

	do {
		load_phase(load, phase);
		nanosleep(&pause, NULL);
		load_phase(load, LOAD_HOLD);
		load_result(load, phase, &result);
	} while (!result.times.count);
	return result.times.count;
}

START_TEST(test_each_phase_keeps_its_own_writes)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct load load;
	uint64_t counts[LOAD_KEPT];

	load_start(&load, LOAD_UNIFORM, memory, sizeof(memory), 2);
	for (unsigned phase = 0; phase < LOAD_KEPT; phase++)
		counts[phase] = write_in(&load, (enum load_phase)phase);
	load_phase(&load, LOAD_WARM);
	load_stop(&load);
	for (unsigned phase = 0; phase < LOAD_KEPT; phase++) {
		load_result(&load, (enum load_phase)phase, &result);
		ck_assert_uint_eq(result.times.count, counts[phase]);
	}
	load_free(&load);
}
END_TEST

/* Checks one text of bars against the figure faults.x = 1.05; what was said goes to `said`. */
static int check_bars(const char *bars, char *said, size_t size)
{
	struct report report;
	FILE *in = fmemopen((void *)(uintptr_t)bars, strlen(bars), "r");
	FILE *out = fmemopen(said, size, "w");
	int code;

	ck_assert_ptr_nonnull(in);
	ck_assert_ptr_nonnull(out);
	report_init(&report, "faults");
	report_add(&report, 1.05, "x");
	code = report_check(&report, in, out);
	report_fini(&report);
	fclose(in);
	fclose(out);
	return code;
}

START_TEST(test_bar_that_holds_is_silent)
{
	char said[256] = "";

	ck_assert_int_eq(check_bars("# a comment\n\nfaults.x <= 1.10 the loop\nfaults.x > 1 it works\n", said, 256), 0);
	ck_assert_str_eq(said, "");
}
END_TEST

START_TEST(test_missed_bar_names_figure_bar_and_relation)
{
	char said[256] = "";

	ck_assert_int_eq(check_bars("faults.x < 1.05 the loop\n", said, 256), BENCH_EXIT_MISSED);
	ck_assert_str_eq(said, "missed: faults.x is 1.05, bar < 1.05 (the loop)\n");
}
END_TEST

START_TEST(test_bar_of_an_unknown_figure_is_an_error)
{
	char said[256] = "";

	ck_assert_int_eq(check_bars("faults.y <= 1 gone\n", said, 256), BENCH_EXIT_ERROR);
	ck_assert_str_eq(said, "bars, line 1: faults.y was not measured\n");
}
END_TEST

START_TEST(test_bars_of_other_questions_are_passed_over)
{
	char said[256] = "";

	ck_assert_int_eq(check_bars("snapshot.y <= 1 not mine\nfaultsome.x <= 0 neither\n", said, 256), 0);
}
END_TEST

START_TEST(test_bar_without_a_reason_or_relation_is_an_error)
{
	char said[256] = "";

	ck_assert_int_eq(check_bars("faults.x <= 1.10\n", said, 256), BENCH_EXIT_ERROR);
	ck_assert_int_eq(check_bars("faults.x == 1.10 why\n", said, 256), BENCH_EXIT_ERROR);
	ck_assert_int_eq(check_bars("faults.x <= much why\n", said, 256), BENCH_EXIT_ERROR);
}
END_TEST

START_TEST(test_median_of_runs_keeps_their_range)
{
	struct report report;
	double values[] = {5, 1, 9, 3};
	const struct figure *figure;

	report_init(&report, "faults");
	ck_assert_double_eq(report_add_median(&report, values, 4, "m"), 4.0);
	figure = report_find(&report, "faults.m");
	ck_assert_ptr_nonnull(figure);
	ck_assert_double_eq(figure->low, 1.0);
	ck_assert_double_eq(figure->high, 9.0);
	report_fini(&report);
}
END_TEST

START_TEST(test_sizes_are_read_with_their_units)
{
	ck_assert_uint_eq(bench_size("4096"), 4096);
	ck_assert_uint_eq(bench_size("64M"), 64ull << 20);
	ck_assert_uint_eq(bench_size("2G"), 2ull << 30);
}
END_TEST

START_TEST(test_text_that_is_no_size_ends_the_program)
{
	static const char *const texts[] = {"", "x", "-1", "0", "1Q", "1MM", "99999999999T", "M"};

	bench_size(texts[_i]);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("bench");
	TCase *histogram = tcase_create("histogram");
	TCase *load = tcase_create("load");
	TCase *report = tcase_create("report");

	tcase_add_test(histogram, test_buckets_follow_each_other_without_a_gap);
	tcase_add_test(histogram, test_value_beyond_the_limit_lands_in_the_last_bucket);
	tcase_add_test(histogram, test_quantile_is_within_a_hundredth_of_the_sorted_value);
	tcase_add_test(histogram, test_merged_histogram_has_the_values_of_both);
	tcase_add_test(histogram, test_empty_histogram_has_quantile_zero);
	suite_add_tcase(suite, histogram);
	tcase_add_test(load, test_each_phase_keeps_its_own_writes);
	suite_add_tcase(suite, load);
	tcase_add_test(report, test_bar_that_holds_is_silent);
	tcase_add_test(report, test_missed_bar_names_figure_bar_and_relation);
	tcase_add_test(report, test_bar_of_an_unknown_figure_is_an_error);
	tcase_add_test(report, test_bars_of_other_questions_are_passed_over);
	tcase_add_test(report, test_bar_without_a_reason_or_relation_is_an_error);
	tcase_add_test(report, test_median_of_runs_keeps_their_range);
	tcase_add_test(report, test_sizes_are_read_with_their_units);
	tcase_add_loop_exit_test(report, test_text_that_is_no_size_ends_the_program, BENCH_EXIT_ERROR, 0, 8);
	suite_add_tcase(suite, report);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
