/* SPDX-License-Identifier: MIT */
/*
 * What the figures stand on: the histogram against sorted values, the choice of pages, duels whose outcome is known,
 * the arithmetic of windows and due times, programs that are run, and the bars against known figures. test_load.c has
 * the writers.
 */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "child.h"
#include "duel.h"
#include "histogram.h"
#include "pages.h"
#include "report.h"
#include "rounds.h"
#include "window.h"

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

/* ------------------------------------------------------------------------------------------------------- pages -- */

START_TEST(test_share_is_rounded_and_never_nothing_by_mistake)
{
	ck_assert_uint_eq(pages_share(1000, 0), 0);
	ck_assert_uint_eq(pages_share(1000, 1), 1);
	ck_assert_uint_eq(pages_share(1000, 1000), 1000);
	ck_assert_uint_eq(pages_share(262144, 1), 262);
	ck_assert_uint_eq(pages_share(262144, 120), 31457);
	ck_assert_uint_eq(pages_share(10, 1), 1);
}
END_TEST

static void check_choice(const struct pages *pages, size_t count)
{
	size_t chosen = 0;

	ck_assert_uint_eq(pages->count, count);
	for (size_t page = 0; page < pages->total; page++)
		chosen += pages->bits[page / 64] >> page % 64 & 1;
	ck_assert_uint_eq(chosen, count);
	for (size_t i = 0; i < count; i++) {
		ck_assert_uint_lt(pages->list[i], pages->total);
		ck_assert(pages->bits[pages->list[i] / 64] >> pages->list[i] % 64 & 1);
		ck_assert(i == 0 || pages->list[i - 1] < pages->list[i]);
	}
}

START_TEST(test_choice_has_as_many_different_pages_as_were_asked_for)
{
	static const size_t totals[] = {1, 63, 64, 1000, 4097};
	uint64_t seed = seed_of_run();

	for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
		struct pages pages;

		pages_init(&pages, totals[i]);
		for (size_t count = 0; count <= totals[i]; count += 1 + totals[i] / 9) {
			pages_choose(&pages, count, PAGES_SCATTERED, seed + count);
			check_choice(&pages, count);
			pages_choose(&pages, count, PAGES_CLUSTERED, seed + count);
			check_choice(&pages, count);
		}
		pages_choose(&pages, totals[i], PAGES_CLUSTERED, seed);
		check_choice(&pages, totals[i]);
		ck_assert_uint_eq(pages_runs(&pages), 1);
		pages_fini(&pages);
	}
}
END_TEST

START_TEST(test_choice_follows_from_its_seed)
{
	struct pages a;
	struct pages b;
	uint64_t seed = seed_of_run();

	pages_init(&a, 10000);
	pages_init(&b, 10000);
	pages_choose(&a, 100, PAGES_SCATTERED, seed);
	pages_choose(&b, 100, PAGES_SCATTERED, seed);
	ck_assert_mem_eq(a.bits, b.bits, a.bits_bytes);
	pages_choose(&b, 100, PAGES_SCATTERED, seed + 1);
	ck_assert_mem_ne(a.bits, b.bits, a.bits_bytes);
	pages_fini(&a);
	pages_fini(&b);
}
END_TEST

/* Whole blocks, of which some may touch, and one that is cut. */
START_TEST(test_clustered_pages_come_in_blocks_and_scattered_ones_do_not)
{
	struct pages pages;
	uint64_t seed = seed_of_run();

	pages_init(&pages, 100 * PAGES_BLOCK);
	pages_choose(&pages, 10 * PAGES_BLOCK + 1, PAGES_CLUSTERED, seed);
	ck_assert_uint_le(pages_runs(&pages), 11);
	for (size_t i = 1; i < pages.count; i++) {
		if (pages.list[i] != pages.list[i - 1] + 1)
			ck_assert_uint_eq(pages.list[i] % PAGES_BLOCK, 0);
	}
	pages_choose(&pages, 10 * PAGES_BLOCK, PAGES_SCATTERED, seed);
	ck_assert_uint_gt(pages_runs(&pages), 6 * PAGES_BLOCK);
	pages_fini(&pages);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- duels -- */

START_TEST(test_quantile_of_values_is_the_one_of_that_rank)
{
	const double values[] = {1, 2, 3, 4};

	ck_assert_double_eq(duel_quantile(values, 4, 0.5), 2.5);
	ck_assert_double_eq(duel_quantile(values, 3, 0.5), 2);
	ck_assert_double_eq(duel_quantile(values, 4, 0.25), 1);
	ck_assert_double_eq(duel_quantile(values, 4, 0.75), 3);
	ck_assert_double_eq(duel_quantile(values, 4, 0.99), 4);
	ck_assert_double_eq(duel_quantile(values, 4, 0), 1);
	ck_assert_double_eq(duel_quantile(values, 1, 0.99), 1);
}
END_TEST

START_TEST(test_interval_of_the_median_is_the_notch)
{
	double values[] = {4, 1, 3, 2};
	double half;

	ck_assert_double_eq(duel_median(values, 4, &half), 2.5);
	ck_assert_double_eq_tol(half, 1.57 * (3 - 1) / 2, 1e-9);
}
END_TEST

/* Three places, each of its own speed; the sides go round. Equal sides must come out equal, though no turn says so. */
START_TEST(test_places_cancel_in_the_ratio)
{
	static const double places[] = {100, 120, 170};
	double a[DUEL_TURNS * 5];
	double b[DUEL_TURNS * 5];
	struct duel_ratio ratio;

	for (size_t i = 0; i < DUEL_TURNS * 5; i++) {
		a[i] = places[i / 5];
		b[i] = places[(i / 5 + 1) % 3];
	}
	ratio = duel_compare(a, b, 5);
	ck_assert_double_eq_tol(ratio.value, 1, 1e-9);
	ck_assert_double_eq_tol(ratio.low, 120.0 / 170, 1e-9);
	ck_assert_double_eq_tol(ratio.high, 170.0 / 100, 1e-9);
	ck_assert_double_eq_tol(duel_noise(ratio), 0, 1e-9);
	for (size_t i = 0; i < DUEL_TURNS * 5; i++)
		a[i] *= 1.5;
	ck_assert_double_eq_tol(duel_compare(a, b, 5).value, 1.5, 1e-9);
}
END_TEST

START_TEST(test_noise_is_the_far_end_of_the_interval)
{
	ck_assert_double_eq_tol(duel_noise((struct duel_ratio){.value = 0.97, .half = 0.05}), 0.08, 1e-9);
	ck_assert_double_eq_tol(duel_noise((struct duel_ratio){.value = 1.02, .half = 0.01}), 0.03, 1e-9);
}
END_TEST

/* A side that says what it takes, and remembers how often it was tried in which place of a round. */
struct actor {
	uint64_t takes_ns;
	unsigned disturbed; /* the next so many trials */
	unsigned trials;
	unsigned places[3];
};

static unsigned place; /* of the next trial in the round */

static void begin_round(void *user, uint64_t seed)
{
	uint64_t *last = user;

	ck_assert_uint_ne(*last, seed);
	*last = seed;
	place = 0;
}

static uint64_t act(void *self, int *disturbed)
{
	struct actor *actor = self;

	actor->trials++;
	if (actor->disturbed) {
		actor->disturbed--;
		*disturbed = 1;
		return 1000000;
	}
	actor->places[place++]++;
	return actor->takes_ns;
}

static void fight(struct duel *duel, struct actor *actors, double tolerance)
{
	static const char *const names[] = {"x", "bare", "bare_again"};
	static uint64_t last_seed;

	memset(duel, 0, sizeof(*duel));
	duel->count = 3;
	duel->bare = 1;
	duel->again = 2;
	duel->tolerance = tolerance;
	duel->rounds_min = 60;
	duel->retry_until_ns = UINT64_MAX;
	duel->before_round = begin_round;
	duel->user = &last_seed;
	for (size_t i = 0; i < 3; i++)
		duel->sides[i] = (struct duel_side){names[i], &actors[i], act};
	while (duel_turn(duel))
		;
}

START_TEST(test_duel_of_a_quiet_machine_is_fought_once)
{
	static struct duel duel;
	struct actor actors[3] = {{.takes_ns = 105}, {.takes_ns = 100}, {.takes_ns = 101}};
	struct report report;

	fight(&duel, actors, 0.10);
	ck_assert_uint_eq(duel.attempts, 1);
	ck_assert_uint_eq(duel.rounds, 60);
	ck_assert_double_eq_tol(duel.noise, 0.01, 1e-9);
	report_init(&report, "track");
	duel_report(&duel, &report, "p");
	ck_assert_double_eq_tol(report_find(&report, "track.p.x.ratio_bare")->value, 1.05, 1e-9);
	ck_assert_double_eq_tol(report_find(&report, "track.p.bare_again.ratio_bare")->value, 1.01, 1e-9);
	ck_assert_double_eq_tol(report_find(&report, "track.p.x.p50_ns")->value, 105, 1e-9);
	ck_assert_double_eq_tol(report_find(&report, "track.p.noise")->value, 0.01, 1e-9);
	report_fini(&report);
}
END_TEST

START_TEST(test_duel_whose_twins_differ_is_fought_three_times_and_no_more)
{
	static struct duel duel;
	struct actor actors[3] = {{.takes_ns = 100}, {.takes_ns = 100}, {.takes_ns = 120}};

	fight(&duel, actors, 0.10);
	ck_assert_uint_eq(duel.attempts, DUEL_ATTEMPTS);
	ck_assert_double_eq_tol(duel.noise, 0.2, 1e-9);
	fight(&duel, actors, 0.25);
	ck_assert_uint_eq(duel.attempts, 1);
}
END_TEST

START_TEST(test_each_side_has_each_place_of_a_round_as_often)
{
	static struct duel duel;
	struct actor actors[3] = {{.takes_ns = 100}, {.takes_ns = 100}, {.takes_ns = 100}};

	fight(&duel, actors, 0.10);
	for (size_t i = 0; i < 3; i++) {
		for (size_t k = 0; k < 3; k++) {
			ck_assert_uint_ge(actors[i].places[k], 60);
			ck_assert_uint_le(actors[i].places[k], 60 + 9); /* rounds that warm up */
		}
	}
}
END_TEST

START_TEST(test_disturbed_trial_is_made_again)
{
	static struct duel duel;
	struct actor actors[3] = {{.takes_ns = 100, .disturbed = 3}, {.takes_ns = 100}, {.takes_ns = 100}};

	fight(&duel, actors, 0.10);
	ck_assert_uint_eq(actors[0].trials, actors[1].trials + 2); /* one was in a round that warms up */
	for (size_t i = 0; i < DUEL_TURNS * 60; i++)
		ck_assert_double_eq(duel.times_ns[0][i], 100);
}
END_TEST

START_TEST(test_trials_that_are_always_disturbed_come_to_an_end)
{
	static struct duel duel;
	struct actor actors[3] = {{.takes_ns = 100, .disturbed = UINT_MAX}, {.takes_ns = 100}, {.takes_ns = 100}};

	fight(&duel, actors, 0.10);
	ck_assert_uint_gt(actors[0].trials, actors[1].trials);
	ck_assert_uint_lt(actors[0].trials, 2 * actors[1].trials);
}
END_TEST

/* ----------------------------------------------------------------------------------------------------- windows -- */

START_TEST(test_window_is_a_quarter_longer_than_a_snapshot_by_fork)
{
	ck_assert_uint_eq(window_length_ns(4e9), 5000000000u);
	ck_assert_uint_eq(window_length_ns(800e6), WINDOW_MIN_NS);
	ck_assert_uint_eq(window_length_ns(0), WINDOW_MIN_NS);
}
END_TEST

START_TEST(test_window_holds_its_first_moment_and_not_its_end)
{
	ck_assert_int_eq(window_holds(100, 200, 99), 0);
	ck_assert_int_eq(window_holds(100, 200, 100), 1);
	ck_assert_int_eq(window_holds(100, 200, 199), 1);
	ck_assert_int_eq(window_holds(100, 200, 200), 0);
	ck_assert_int_eq(window_holds(100, 100, 100), 0);
}
END_TEST

/* One bound is written before the other: a writer that sees an old one of them finds no window. */
START_TEST(test_window_that_is_half_set_holds_nothing)
{
	ck_assert_int_eq(window_holds(UINT64_MAX, 200, 150), 0);
	ck_assert_int_eq(window_holds(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0);
	ck_assert_int_eq(window_holds(100, 0, 150), 0);
	ck_assert_int_eq(window_holds(300, 200, 250), 0);
}
END_TEST

START_TEST(test_lost_writes_are_a_share_of_the_undisturbed_ones)
{
	ck_assert_double_eq_tol(window_lost_share(750, 1000), 0.25, 1e-12);
	ck_assert_double_eq_tol(window_lost_share(1000, 1000), 0, 1e-12);
	ck_assert_double_eq_tol(window_lost_share(0, 1000), 1, 1e-12);
	ck_assert_double_eq_tol(window_lost_share(1010, 1000), -0.01, 1e-12);
	ck_assert(isnan(window_lost_share(10, 0)));
}
END_TEST

/* Rates say that the second method is the better one; the writes that a user gets done say that the first one is. */
START_TEST(test_method_that_is_done_sooner_loses_less_than_one_that_drags_on)
{
	const double per_s = 1000000;
	double soon = window_lost_share((uint64_t)(0.5 * 0.2 * per_s + 4.5 * per_s), (uint64_t)(5 * per_s));
	double late = window_lost_share((uint64_t)(4.0 * 0.6 * per_s + 1.0 * per_s), (uint64_t)(5 * per_s));

	ck_assert_double_eq_tol(soon, 0.08, 1e-9);
	ck_assert_double_eq_tol(late, 0.32, 1e-9);
	ck_assert_double_eq_tol(window_lost_ratio(soon, late), 0.25, 1e-9);
}
END_TEST

/* A ratio of 0 would hold every bar. */
START_TEST(test_there_is_no_ratio_to_what_lost_nothing)
{
	ck_assert_double_eq_tol(window_lost_ratio(-0.01, 0.2), -0.05, 1e-12);
	ck_assert(isnan(window_lost_ratio(0.1, 0)));
	ck_assert(isnan(window_lost_ratio(0.1, -0.2)));
	ck_assert(isnan(window_lost_ratio(0.1, (double)NAN)));
}
END_TEST

START_TEST(test_due_times_follow_the_rate_and_no_error_adds_up)
{
	ck_assert_uint_eq(window_due_ns(7, 0, 20000), 7);
	ck_assert_uint_eq(window_due_ns(7, 1, 20000), 50007);
	ck_assert_uint_eq(window_due_ns(7, 20000 * 3600ull, 20000), 3600000000007ull);
	ck_assert_uint_eq(window_due_ns(0, 1, 3), 333333333);
	ck_assert_uint_eq(window_due_ns(0, 2, 3), 666666666);
	ck_assert_uint_eq(window_due_ns(0, 3000000003ull, 3), 1000000001ull * 1000000000ull);
}
END_TEST

/* The second witness is the due time of each write. */
START_TEST(test_count_of_due_writes_is_that_of_their_times)
{
	static const uint64_t rates[] = {3, 20000, 100000, 999983};
	uint64_t seed = seed_of_run();

	for (size_t i = 0; i < 1000; i++) {
		uint64_t rate = rates[i % 4];
		uint64_t origin = bench_random(&seed) % 1000000007u;
		uint64_t until = origin + bench_random(&seed) % 4000000000u;
		uint64_t count = window_due_count(origin, until, rate);

		ck_assert_uint_ge(window_due_ns(origin, count, rate), until);
		if (count)
			ck_assert_uint_lt(window_due_ns(origin, count - 1, rate), until);
	}
	ck_assert_uint_eq(window_due_count(10, 10, 20000), 0);
	ck_assert_uint_eq(window_due_count(10, 9, 20000), 0);
	ck_assert_uint_eq(window_due_count(10, 11, 20000), 1);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- programs -- */

static int run_shell(const char *script, unsigned timeout_s, char *output, size_t size)
{
	char shell[] = "/bin/sh";
	char option[] = "-c";
	char command[256];
	char *argv[] = {shell, option, command, NULL};

	snprintf(command, sizeof(command), "%s", script);
	return child_run(argv, timeout_s, output, size);
}

START_TEST(test_program_is_run_to_its_end_and_heard)
{
	char output[16];
	char nothing[] = "/nonexistent/program";
	char *argv[] = {nothing, NULL};

	ck_assert_int_eq(run_shell("printf abc; exit 3", 60, output, sizeof(output)), 3);
	ck_assert_str_eq(output, "abc");
	ck_assert_int_eq(run_shell("printf 12345678901234567890", 60, output, sizeof(output)), 0);
	ck_assert_str_eq(output, "123456789012345");
	ck_assert_int_eq(run_shell("kill -9 $$", 60, output, sizeof(output)), 128 + 9);
	ck_assert_int_eq(run_shell("cat", 60, output, sizeof(output)), 0);
	ck_assert_int_eq(child_run(argv, 60, output, sizeof(output)), -ENOENT);
}
END_TEST

START_TEST(test_program_that_does_not_end_is_killed)
{
	char output[16];

	ck_assert_int_eq(run_shell("exec sleep 1000", 1, output, sizeof(output)), -ETIMEDOUT);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- bars -- */

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

START_TEST(test_bars_that_a_pattern_leaves_out_are_passed_over)
{
	static char text[] = "faults.x <= 0.5 missed\nfaults.y.p50 <= 1 not measured\n";
	struct report report;
	char said[256] = "";
	FILE *in = fmemopen(text, strlen(text), "r");
	FILE *out = fmemopen(said, sizeof(said), "w");

	report_init(&report, "faults");
	report_add(&report, 1.0, "x");
	report.bar = "faults.*.p50";
	ck_assert_int_eq(report_check(&report, in, out), BENCH_EXIT_ERROR);
	rewind(in);
	report.bar = "faults.x";
	ck_assert_int_eq(report_check(&report, in, out), BENCH_EXIT_MISSED);
	rewind(in);
	report.bar = "faults.z";
	ck_assert_int_eq(report_check(&report, in, out), 0);
	report_fini(&report);
	fclose(in);
	fclose(out);
}
END_TEST

START_TEST(test_bars_are_found_by_the_start_of_their_figure)
{
	const char *path = UFFDWP_BENCH_BARS;

	ck_assert_int_eq(report_bars_have(path, NULL, "snapshot.uniform.inline."), 1);
	ck_assert_int_eq(report_bars_have(path, "*.pause_ratio_fork", "snapshot.uniform.inline."), 1);
	ck_assert_int_eq(report_bars_have(path, "*.no_such_figure", "snapshot.uniform.inline."), 0);
	ck_assert_int_eq(report_bars_have(path, NULL, "snapshot.uniform.fork."), 0);
}
END_TEST

START_TEST(test_bars_of_the_project_can_all_be_read)
{
	struct report report;
	FILE *in = fopen(UFFDWP_BENCH_BARS, "re");
	char said[256] = "";
	FILE *out = fmemopen(said, sizeof(said), "w");

	ck_assert_ptr_nonnull(in);
	ck_assert_ptr_nonnull(out);
	report_init(&report, "none");
	ck_assert_int_eq(report_check(&report, in, out), 0);
	report_fini(&report);
	fclose(in);
	fclose(out);
	ck_assert_str_eq(said, "");
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

START_TEST(test_sizes_have_names)
{
	char name[32];

	bench_size_name(UINT64_C(8) << 30, name, sizeof(name));
	ck_assert_str_eq(name, "8g");
	bench_size_name(UINT64_C(1536) << 20, name, sizeof(name));
	ck_assert_str_eq(name, "1536m");
	bench_size_name(4096, name, sizeof(name));
	ck_assert_str_eq(name, "4096b");
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ rounds -- */

START_TEST(test_rounds_are_compared_pair_by_pair)
{
	const struct rounds ours = {{1, 30, 5}, 3};
	const struct rounds other = {{10, 100, 10}, 3};
	struct rounds ratios;

	ck_assert_double_eq_tol(rounds_median(&ours), 5, 1e-9);
	ck_assert_double_eq_tol(rounds_ratio(&ours, &other), 0.3, 1e-9);
	rounds_over(&ours, &other, &ratios);
	ck_assert_uint_eq(ratios.count, 3);
	ck_assert_double_eq_tol(ratios.values[2], 0.5, 1e-9);
}
END_TEST

START_TEST(test_round_without_a_partner_is_not_compared)
{
	const struct rounds ours = {{1, 30, 5}, 3};
	const struct rounds other = {{0, 100}, 2};
	const struct rounds none = {.count = 0};

	ck_assert_double_eq_tol(rounds_ratio(&ours, &other), 0.3, 1e-9);
	ck_assert_double_eq_tol(rounds_ratio(&ours, &none), 0, 1e-9);
	ck_assert_double_eq_tol(rounds_median(&none), 0, 1e-9);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("bench");
	TCase *histogram = tcase_create("histogram");
	TCase *pages = tcase_create("pages");
	TCase *duel = tcase_create("duel");
	TCase *window = tcase_create("window");
	TCase *child = tcase_create("child");
	TCase *report = tcase_create("report");

	tcase_add_test(histogram, test_buckets_follow_each_other_without_a_gap);
	tcase_add_test(histogram, test_value_beyond_the_limit_lands_in_the_last_bucket);
	tcase_add_test(histogram, test_quantile_is_within_a_hundredth_of_the_sorted_value);
	tcase_add_test(histogram, test_merged_histogram_has_the_values_of_both);
	tcase_add_test(histogram, test_empty_histogram_has_quantile_zero);
	suite_add_tcase(suite, histogram);
	tcase_add_test(pages, test_share_is_rounded_and_never_nothing_by_mistake);
	tcase_add_test(pages, test_choice_has_as_many_different_pages_as_were_asked_for);
	tcase_add_test(pages, test_choice_follows_from_its_seed);
	tcase_add_test(pages, test_clustered_pages_come_in_blocks_and_scattered_ones_do_not);
	suite_add_tcase(suite, pages);
	tcase_add_test(duel, test_quantile_of_values_is_the_one_of_that_rank);
	tcase_add_test(duel, test_interval_of_the_median_is_the_notch);
	tcase_add_test(duel, test_places_cancel_in_the_ratio);
	tcase_add_test(duel, test_noise_is_the_far_end_of_the_interval);
	tcase_add_test(duel, test_duel_of_a_quiet_machine_is_fought_once);
	tcase_add_test(duel, test_duel_whose_twins_differ_is_fought_three_times_and_no_more);
	tcase_add_test(duel, test_each_side_has_each_place_of_a_round_as_often);
	tcase_add_test(duel, test_disturbed_trial_is_made_again);
	tcase_add_test(duel, test_trials_that_are_always_disturbed_come_to_an_end);
	suite_add_tcase(suite, duel);
	tcase_add_test(window, test_window_is_a_quarter_longer_than_a_snapshot_by_fork);
	tcase_add_test(window, test_window_holds_its_first_moment_and_not_its_end);
	tcase_add_test(window, test_window_that_is_half_set_holds_nothing);
	tcase_add_test(window, test_lost_writes_are_a_share_of_the_undisturbed_ones);
	tcase_add_test(window, test_method_that_is_done_sooner_loses_less_than_one_that_drags_on);
	tcase_add_test(window, test_there_is_no_ratio_to_what_lost_nothing);
	tcase_add_test(window, test_due_times_follow_the_rate_and_no_error_adds_up);
	tcase_add_test(window, test_count_of_due_writes_is_that_of_their_times);
	suite_add_tcase(suite, window);
	tcase_add_test(child, test_program_is_run_to_its_end_and_heard);
	tcase_add_test(child, test_program_that_does_not_end_is_killed);
	tcase_set_timeout(child, 120);
	suite_add_tcase(suite, child);
	tcase_add_test(report, test_bar_that_holds_is_silent);
	tcase_add_test(report, test_missed_bar_names_figure_bar_and_relation);
	tcase_add_test(report, test_bar_of_an_unknown_figure_is_an_error);
	tcase_add_test(report, test_bars_of_other_questions_are_passed_over);
	tcase_add_test(report, test_bar_without_a_reason_or_relation_is_an_error);
	tcase_add_test(report, test_bars_that_a_pattern_leaves_out_are_passed_over);
	tcase_add_test(report, test_bars_are_found_by_the_start_of_their_figure);
	tcase_add_test(report, test_bars_of_the_project_can_all_be_read);
	tcase_add_test(report, test_median_of_runs_keeps_their_range);
	tcase_add_test(report, test_sizes_are_read_with_their_units);
	tcase_add_test(report, test_sizes_have_names);
	tcase_add_test(report, test_rounds_are_compared_pair_by_pair);
	tcase_add_test(report, test_round_without_a_partner_is_not_compared);
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
