/* SPDX-License-Identifier: MIT */
/*
 * The assertions of the named invariants: they are in the library that is tested, they count, and a broken one ends the
 * process. INV-LOCK, INV-PHASE and INV-LEDGER have no other test of their own than that they are never broken in any.
 */
#include <signal.h>

#include "base/epoch.h"
#include "base/invariant.h"
#include "base/lock.h"
#include "fault/phase.h"
#include "kernel/pages.h"
#include "region/ledger.h"
#include "support.h"

START_TEST(test_each_invariant_is_counted_by_its_name)
{
	ck_assert_str_eq(invariant_name(INVARIANT_CLAIM), "INV-CLAIM");
	ck_assert_str_eq(invariant_name(INVARIANT_LEDGER), "INV-LEDGER");
	uint64_t before = invariant_checked(INVARIANT_LOCK);
	struct lock lock = LOCK_INIT;

	ck_assert(!invariant_holds(&lock));
	lock_take(&lock);
	ck_assert(invariant_holds(&lock));
	lock_give(&lock);
	ck_assert(!invariant_holds(&lock));
	ck_assert_uint_gt(invariant_checked(INVARIANT_LOCK), before);
}
END_TEST

START_TEST(test_locks_are_given_back_in_any_order)
{
	/* More than are noted; of the thread sanitizer a thread may hold 64. */
	const int count = SUPPORT_THREAD_SANITIZER ? 50 : 300;
	struct lock locks[300];

	for (int i = 0; i < count; i++) {
		lock_init(&locks[i]);
		lock_take(&locks[i]);
		ck_assert(invariant_holds(&locks[i]));
	}
	for (int i = 0; i < count; i++)
		lock_give(&locks[i]);
	for (int i = 0; i < count; i++)
		ck_assert(!invariant_holds(&locks[i]));
}
END_TEST

/* INV-LOCK */
START_TEST(test_a_lock_that_is_not_held_is_not_given_back)
{
	struct lock lock = LOCK_INIT;

	lock_give(&lock);
}
END_TEST

/* INV-PHASE, INV-LOCK */
START_TEST(test_faults_are_not_stalled_without_the_lock)
{
	static struct uffdwp_region region;

	phase_stall_begin(&region);
}
END_TEST

START_TEST(test_faults_are_not_stalled_twice)
{
	static struct uffdwp_region region;
	sigset_t before;

	lock_init(&region.lock);
	lock_take(&region.lock);
	signals_block(&before);
	ck_assert_int_eq(phase_stall_begin(&region), PHASE_IDLE);
	phase_stall_begin(&region);
}
END_TEST

/* INV-WAKE */
START_TEST(test_nobody_is_woken_while_faults_are_stalled)
{
	static struct uffdwp_region region = {.k = &kernel_real, .phase = PHASE_STALL};

	phase_wake(&region);
}
END_TEST

/* INV-EPOCH */
START_TEST(test_no_thread_waits_for_an_epoch_that_it_is_inside_of)
{
	static struct epoch epoch;

	epoch_init(&epoch);
	epoch_enter(&epoch);
	epoch_wait(&epoch);
}
END_TEST

static void open_ledger(struct ledger *ledger, enum ledger_state state)
{
	ledger->pages = pages_new(&kernel_real, LEDGER_TOUCHED_PAGES);
	ledger->touched = pages_new(&kernel_real, sizeof(uint64_t));
	ledger->count = LEDGER_TOUCHED_PAGES;
	ledger_set_range(ledger, 0, 1, state);
}

/* INV-LEDGER: each test makes one change of state that is not in the table. */
START_TEST(test_no_page_changes_its_state_against_the_table)
{
	enum ledger_state from = (enum ledger_state)(_i / 8);
	enum ledger_state to = (enum ledger_state)(_i % 8);
	struct ledger ledger;

	open_ledger(&ledger, from);
	if (ledger_may_become(from, to)) {
		ledger_set(&ledger, 0, to);
		ck_assert_int_eq(ledger_get(&ledger, 0), to);
		raise(SIGABRT); /* as all others */
	}
	ledger_set(&ledger, 0, to);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create(TEST_NAME);

	support_begin(TEST_NAME, &(struct support_needs){0});
	TCase *tests = tcase_create("invariants");

	tcase_add_test(tests, test_each_invariant_is_counted_by_its_name);
	tcase_add_test(tests, test_locks_are_given_back_in_any_order);
	tcase_add_test_raise_signal(tests, test_a_lock_that_is_not_held_is_not_given_back, SIGABRT);
	tcase_add_test_raise_signal(tests, test_faults_are_not_stalled_without_the_lock, SIGABRT);
	tcase_add_test_raise_signal(tests, test_faults_are_not_stalled_twice, SIGABRT);
	tcase_add_test_raise_signal(tests, test_nobody_is_woken_while_faults_are_stalled, SIGABRT);
	tcase_add_test_raise_signal(tests, test_no_thread_waits_for_an_epoch_that_it_is_inside_of, SIGABRT);
	tcase_add_loop_test_raise_signal(tests, test_no_page_changes_its_state_against_the_table, SIGABRT, 0, 64);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
