/* SPDX-License-Identifier: MIT */
/* Times of faults by buckets: none is lost, and what is read from them is right to an eighth. */
#include <string.h>

#include "chance.h"
#include "region/meter.h"
#include "support.h"

#define THREADS 4
#define TIMES 20000

static struct meter meter;

static void setup(void)
{
	memset(&meter, 0, sizeof(meter));
}

START_TEST(test_each_time_lies_in_its_bucket)
{
	struct chance chance = chance_new(3);
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t ns = chance_next(&chance) >> (i % 64);
		unsigned bucket = meter_bucket(ns);
		ck_assert_uint_lt(bucket, METER_BUCKETS);
		ck_assert(ns < meter_bucket_end(bucket) || meter_bucket_end(bucket) == UINT64_MAX);
		ck_assert(bucket == 0 || ns >= meter_bucket_end(bucket - 1));
	}
}
END_TEST

START_TEST(test_a_bucket_is_an_eighth_of_an_octave)
{
	ck_assert_uint_eq(meter_bucket_end(0), 1024);
	for (unsigned bucket = 1; bucket < METER_BUCKETS - 1; bucket++) {
		uint64_t begin = meter_bucket_end(bucket - 1);
		uint64_t end = meter_bucket_end(bucket);
		ck_assert_uint_gt(end, begin);
		ck_assert_uint_le((end - begin) * 8, begin);
		ck_assert_uint_eq(meter_bucket(begin), bucket);
		ck_assert_uint_eq(meter_bucket(end - 1), bucket);
	}
	ck_assert_uint_gt(meter_bucket_end(METER_BUCKETS - 2), 100000000000ull);
}
END_TEST

static int by_size(const void *a, const void *b)
{
	uint64_t first = *(const uint64_t *)a;
	uint64_t second = *(const uint64_t *)b;
	return (first > second) - (first < second);
}

START_TEST(test_percentiles_are_right_to_an_eighth)
{
	static const unsigned shares[] = {1, 500, 900, 990, 999, 1000};
	static uint64_t times[TIMES];
	struct chance chance = chance_new(4);
	struct meter_sum sum = {0};
	uint64_t total = 0;
	for (unsigned i = 0; i < TIMES; i++) {
		times[i] = 1024 + (chance_next(&chance) >> (28 + chance_below(&chance, 20)));
		meter_add(&meter.by_handler, times[i], 1);
		total += times[i];
	}
	qsort(times, TIMES, sizeof(times[0]), by_size);
	meter_read(&meter.by_handler, &sum);
	ck_assert_uint_eq(sum.count, TIMES);
	ck_assert_uint_eq(sum.sum_ns, total);
	ck_assert_uint_eq(sum.max_ns, times[TIMES - 1]);
	for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		uint64_t exact = times[TIMES / 1000 * shares[i] - 1];
		uint64_t found = meter_percentile(&sum, shares[i]);
		ck_assert_uint_ge(found, exact);
		ck_assert_uint_le(found, exact + exact / 8 + 1);
	}
}
END_TEST

START_TEST(test_nothing_has_no_percentile)
{
	struct meter_sum sum = {0};
	meter_read(&meter.by_handler, &sum);
	ck_assert_uint_eq(meter_percentile(&sum, 999), 0);
}
END_TEST

static void *add_many(void *argument)
{
	uint64_t ns = *(const uint64_t *)argument;
	for (unsigned i = 0; i < TIMES; i++)
		meter_add_shared(&meter, ns, 1);
	return NULL;
}

START_TEST(test_writers_lose_no_time_of_each_other)
{
	uint64_t times[THREADS] = {1000, 5000, 5000, 70000};
	pthread_t threads[THREADS];
	struct meter_sum sum = {0};
	for (unsigned i = 0; i < THREADS; i++)
		threads[i] = thread_start(add_many, &times[i]);
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(threads[i]);
	for (unsigned i = 0; i < METER_SHARDS; i++)
		meter_read(&meter.by_writers[i], &sum);
	ck_assert_uint_eq(sum.count, THREADS * TIMES);
	ck_assert_uint_eq(sum.sum_ns, 81000ull * TIMES);
	ck_assert_uint_eq(sum.max_ns, 70000);
	ck_assert_uint_eq(sum.counts[meter_bucket(5000)], 2 * TIMES);
}
END_TEST

int main(void)
{
	support_begin("test_meter", &(struct support_needs){0, 0});
	Suite *suite = suite_create("meter");
	TCase *tests = tcase_create("meter");
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, test_each_time_lies_in_its_bucket);
	tcase_add_test(tests, test_a_bucket_is_an_eighth_of_an_octave);
	tcase_add_test(tests, test_percentiles_are_right_to_an_eighth);
	tcase_add_test(tests, test_nothing_has_no_percentile);
	tcase_add_test(tests, test_writers_lose_no_time_of_each_other);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
