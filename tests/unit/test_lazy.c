/* SPDX-License-Identifier: MIT */
/*
 * The table of a lazy restore (region/lazy.h), without a kernel: what is asked for, claimed and counted. And where an
 * image is known to be zeros.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "chain.h"
#include "chance.h"
#include "image/chain.h"
#include "region/lazy.h"
#include "support.h"

#define PAGES 20000
#define THREADS 4

static struct lazy *lazy;

static void setup(void)
{
	lazy = lazy_new(&kernel_real, PAGES);
	ck_assert_ptr_nonnull(lazy);
}

static void teardown(void)
{
	lazy_free(&kernel_real, lazy);
}

START_TEST(test_a_new_table_has_all_pages_absent)
{
	ck_assert_int_eq(lazy_is_absent(lazy, 0), 1);
	ck_assert_int_eq(lazy_is_absent(lazy, PAGES - 1), 1);
	ck_assert_int_eq(lazy_is_absent(lazy, PAGES), 0); /* not the restore's */
	ck_assert_uint_eq(atomic_load(&lazy->left), PAGES);
	ck_assert_uint_eq(atomic_load(&lazy->ended), 0);
	uint64_t page = 7;
	ck_assert_int_eq(lazy_take_wanted(lazy, &page), 0);
	ck_assert_uint_eq(page, 7);
	struct lazy *empty = lazy_new(&kernel_real, 1);
	lazy_settle(empty, 0, 1, 0);
	ck_assert_uint_eq(atomic_load(&empty->ended), 1);
	lazy_free(&kernel_real, empty);
}
END_TEST

START_TEST(test_what_is_wanted_is_taken_once)
{
	uint64_t page = 0;
	lazy_want(lazy, 12345);
	lazy_want(lazy, 12345);
	ck_assert_uint_eq(lazy_state(lazy, 12345), LAZY_WANTED);
	ck_assert_int_eq(lazy_take_wanted(lazy, &page), 1);
	ck_assert_uint_eq(page, 12345);
	ck_assert_uint_eq(lazy_state(lazy, page), LAZY_FETCHING);
	lazy_want(lazy, page);
	ck_assert_int_eq(lazy_take_wanted(lazy, &page), 0);
	ck_assert_int_eq(lazy_claim(lazy, 12345), 0);
	lazy_want(lazy, 5);
	ck_assert_int_eq(lazy_claim(lazy, 5), 1); /* by another call: the bit is stale */
	ck_assert_int_eq(lazy_take_wanted(lazy, &page), 0);
	ck_assert_uint_eq(atomic_load(&lazy->demanded), 2);
}
END_TEST

START_TEST(test_what_failed_says_why_until_it_is_forgotten)
{
	int failed = 0;
	ck_assert_int_eq(lazy_claim(lazy, 3), 1);
	ck_assert_int_eq(lazy_forget(lazy, 3, &failed), 0); /* it is being fetched */
	lazy_settle(lazy, 3, 4, -EBADMSG);
	ck_assert_int_eq(lazy_page_error(lazy, 3), -EBADMSG);
	ck_assert_int_eq(lazy_is_absent(lazy, 3), 0);
	ck_assert_int_eq(atomic_load(&lazy->error), -EBADMSG);
	ck_assert_uint_eq(atomic_load(&lazy->error_page), 3);
	ck_assert_uint_eq(atomic_load(&lazy->failed), 1);
	ck_assert_int_eq(lazy_forget(lazy, 4, &failed), 1);
	ck_assert_int_eq(failed, 0);
	ck_assert_int_eq(lazy_forget(lazy, 3, &failed), 1);
	ck_assert_int_eq(failed, 1);
	ck_assert_uint_eq(lazy_state(lazy, 3), LAZY_DONE);
	ck_assert_uint_eq(atomic_load(&lazy->failed), 0);
	ck_assert_uint_eq(atomic_load(&lazy->left), PAGES - 2);
	lazy_stop(lazy, -ECANCELED);
	lazy_stop(lazy, -ESTALE);
	ck_assert_int_eq(atomic_load(&lazy->stop), -ECANCELED);
	lazy_fail_rest(lazy, -EOWNERDEAD); /* the largest errno that may come */
	ck_assert_int_eq(lazy_page_error(lazy, 9), -EOWNERDEAD);
	ck_assert_uint_eq(atomic_load(&lazy->failed), PAGES - 2);
	ck_assert_uint_eq(atomic_load(&lazy->ended), 1);
	ck_assert_int_eq(atomic_load(&lazy->error), -EBADMSG); /* the first */
}
END_TEST

/* --- many threads --------------------------------------------------------------------------------------------------
 */

static _Atomic uint8_t taken[PAGES];

static void *want_all(void *salt)
{
	struct chance chance = chance_new(*(const size_t *)salt);
	size_t start = chance_below(&chance, PAGES);
	for (size_t i = 0; i < PAGES; i++) {
		lazy_want(lazy, (start + i * 7) % PAGES);
	}
	return NULL;
}

static void *take_all(void *unused)
{
	uint64_t page;
	while (!atomic_load(&lazy->ended)) {
		uint32_t seen = atomic_load(&lazy->kicks);
		if (!lazy_take_wanted(lazy, &page)) {
			if (!atomic_load(&lazy->ended)) {
				lazy_idle(lazy, seen);
			}
			continue;
		}
		must(atomic_fetch_add(&taken[page], 1) == 0);
		lazy_settle(lazy, page, page + 1, 0);
	}
	return unused;
}

START_TEST(test_threads_take_every_page_once_and_wake_for_it)
{
	pthread_t takers[THREADS];
	pthread_t askers[THREADS];
	size_t salts[THREADS];
	for (size_t i = 0; i < THREADS; i++) {
		salts[i] = i;
		takers[i] = thread_start(take_all, NULL);
		askers[i] = thread_start(want_all, &salts[i]);
	}
	for (size_t i = 0; i < THREADS; i++) {
		thread_join(askers[i]);
		thread_join(takers[i]);
	}
	for (size_t page = 0; page < PAGES; page++) {
		ck_assert_uint_eq(taken[page], 1);
	}
	ck_assert_uint_eq(atomic_load(&lazy->demanded), PAGES);
	ck_assert_uint_eq(atomic_load(&lazy->left), 0);
}
END_TEST

/* --- zeros of an image ---------------------------------------------------------------------------------------------
 */

static void expect_skips(const struct test_chain *chain, struct uffdwp_image *image, uint64_t offset)
{
	uint64_t next = chain_skip_zeros(image, offset, UINT64_MAX);
	ck_assert(next >= offset && next <= chain->length);
	for (uint64_t at = offset; at < next; at++) {
		ck_assert_msg(chain->shadow[at] == 0, "byte %llu was skipped", (unsigned long long)at);
	}
}

START_TEST(test_only_zeros_are_skipped)
{
	struct test_chain chain;
	struct uffdwp_image *image = NULL;
	uint64_t skipped = 0;
	test_chain_begin(&chain, 4096, 900001, 70);
	for (int step = 0; step < 4; step++) {
		ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
		for (int i = 0; i < 300; i++) {
			expect_skips(&chain, image, chance_below(&chain.chance, chain.length));
		}
		for (uint64_t at = 0; at < chain.length; at += 4096) {
			skipped += chain_skip_zeros(image, at, UINT64_MAX) - at;
		}
		ck_assert_uint_eq(chain_skip_zeros(image, chain.length, UINT64_MAX), chain.length);
		ck_assert_int_eq(uffdwp_image_close(image), 0);
		test_chain_step(&chain, step % 2 ? 3 : 0, step == 1 ? 300000 : 900001);
	}
	ck_assert_uint_gt(skipped, 0);
	test_chain_end(&chain);
}
END_TEST

int main(void)
{
	support_begin("test_lazy", &(struct support_needs){.huge_pages = 0, .swap = 0});
	Suite *suite = suite_create("lazy");
	TCase *tests = tcase_create("lazy");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_a_new_table_has_all_pages_absent);
	tcase_add_test(tests, test_what_is_wanted_is_taken_once);
	tcase_add_test(tests, test_what_failed_says_why_until_it_is_forgotten);
	tcase_add_test(tests, test_threads_take_every_page_once_and_wake_for_it);
	tcase_add_test(tests, test_only_zeros_are_skipped);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
