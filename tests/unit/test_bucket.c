/* SPDX-License-Identifier: MIT */
/* The bound on bytes per second (base/bucket.h), by a clock of the test's own. */
#include <stdio.h>

#include "base/bucket.h"
#include "chance.h"
#include "support.h"

#define SECOND_NS 1000000000ull
#define START_NS (1000 * SECOND_NS)

/* Sends pieces as soon as it may; how long that took. */
static uint64_t send_at_rate(struct bucket *bucket, uint64_t piece, uint64_t now_ns, unsigned pieces)
{
	uint64_t start_ns = now_ns;
	for (unsigned i = 0; i < pieces; i++) {
		now_ns += bucket_wait_ns(bucket, now_ns);
		ck_assert_uint_eq(bucket_wait_ns(bucket, now_ns), 0);
		bucket_take(bucket, piece, now_ns);
	}
	return now_ns - start_ns;
}

/* Ten seconds' worth: what the slack makes up for, and the first piece, go at once. */
START_TEST(test_rate_is_kept)
{
	struct bucket bucket;
	bucket_init(&bucket, 1000);
	ck_assert_uint_eq(send_at_rate(&bucket, 10, START_NS, 1000),
	                  10 * SECOND_NS - BUCKET_SLACK_NS - SECOND_NS / 100);
}
END_TEST

START_TEST(test_what_was_not_used_long_ago_is_lost)
{
	struct bucket bucket;
	bucket_init(&bucket, 1000);
	send_at_rate(&bucket, 10, START_NS, 1);
	ck_assert_uint_eq(send_at_rate(&bucket, 10, 2 * START_NS, 1000),
	                  10 * SECOND_NS - BUCKET_SLACK_NS - SECOND_NS / 100);
}
END_TEST

START_TEST(test_a_sender_that_does_not_wait_is_late_for_longer)
{
	struct bucket bucket;
	bucket_init(&bucket, 1000);
	bucket_take(&bucket, 5000, START_NS);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, START_NS), 5 * SECOND_NS - BUCKET_SLACK_NS);
	bucket_take(&bucket, 5000, START_NS + SECOND_NS);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, START_NS + SECOND_NS), 9 * SECOND_NS - BUCKET_SLACK_NS);
}
END_TEST

/* Pieces and pauses at random: the bound holds over every stretch. */
START_TEST(test_bound_holds_over_any_stretch)
{
	enum { PIECES = 300 };
	static uint64_t at_ns[PIECES];
	static uint64_t bytes[PIECES];
	struct chance chance = chance_new(1);
	uint64_t now_ns = START_NS;
	struct bucket bucket;
	bucket_init(&bucket, 1 << 20);
	for (unsigned i = 0; i < PIECES; i++) {
		now_ns += chance_below(&chance, 4) == 0 ? chance_below(&chance, SECOND_NS) : 0;
		now_ns += bucket_wait_ns(&bucket, now_ns);
		at_ns[i] = now_ns;
		bytes[i] = chance_below(&chance, 1 << 20);
		bucket_take(&bucket, bytes[i], now_ns);
	}
	for (unsigned first = 0; first < PIECES; first++) {
		double before_last = 0;
		for (unsigned last = first; last < PIECES; last++) {
			double most = (double)(at_ns[last] - at_ns[first] + BUCKET_SLACK_NS + PIECES) / 1e9 * (1 << 20);
			ck_assert_double_le(before_last, most);
			before_last += (double)bytes[last];
		}
	}
}
END_TEST

START_TEST(test_extreme_numbers)
{
	struct bucket bucket;
	bucket_init(&bucket, 0);
	bucket_take(&bucket, UINT64_MAX, 5);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 5), 0);
	bucket_init(&bucket, 1);
	bucket_take(&bucket, UINT64_MAX, 5);
	bucket_take(&bucket, 1, 5);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 5), UINT64_MAX - 5);
	bucket_init(&bucket, UINT64_MAX);
	bucket_take(&bucket, UINT64_MAX, 5);
	ck_assert_uint_le(bucket_wait_ns(&bucket, 5), SECOND_NS);
}
END_TEST

int main(void)
{
	support_begin("test_bucket", &(struct support_needs){.huge_pages = 0, .swap = 0});
	Suite *suite = suite_create("bucket");
	TCase *tests = tcase_create("bucket");
	tcase_add_test(tests, test_rate_is_kept);
	tcase_add_test(tests, test_what_was_not_used_long_ago_is_lost);
	tcase_add_test(tests, test_a_sender_that_does_not_wait_is_late_for_longer);
	tcase_add_test(tests, test_bound_holds_over_any_stretch);
	tcase_add_test(tests, test_extreme_numbers);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
