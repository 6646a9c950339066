/* SPDX-License-Identifier: MIT */
/* What is on the roster is found by its number, and stays while a thread has taken it. */
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/forks.h"
#include "kernel/process.h"
#include "kernel/roster.h"
#include "support.h"

static struct roster_entry parent;
static struct roster_entry entries[3];
static _Atomic int closed;

static void setup(void)
{
	ck_assert_int_eq(process_begin(), 0);
	roster_begin();
	memset(entries, 0, sizeof(entries));
	memset(&parent, 0, sizeof(parent));
	atomic_store(&closed, 0);
	roster_add(&parent, ROSTER_RUNTIME, &parent, NULL);
	for (int i = 0; i < 3; i++)
		roster_add(&entries[i], ROSTER_REGION, &entries[i], i == 2 ? NULL : &parent);
}

static struct roster_entry *take_and_give(uint64_t from, const struct roster_entry *of)
{
	struct roster_entry *entry = roster_take(ROSTER_REGION, from, of);
	if (entry)
		roster_give(&kernel_real, entry);
	return entry;
}

START_TEST(test_entries_are_found_in_order)
{
	ck_assert_ptr_eq(take_and_give(0, NULL), &entries[0]);
	ck_assert_ptr_eq(take_and_give(entries[0].number + 1, NULL), &entries[1]);
	ck_assert_ptr_eq(take_and_give(entries[1].number + 1, NULL), &entries[2]);
	ck_assert_ptr_null(take_and_give(entries[2].number + 1, NULL));
	ck_assert_ptr_null(take_and_give(entries[1].number + 1, &parent));
}
END_TEST

START_TEST(test_a_hidden_entry_is_taken_by_no_thread)
{
	roster_hide(&kernel_real, &entries[0]);
	ck_assert_ptr_eq(take_and_give(0, NULL), &entries[1]);
	roster_show(&entries[0]);
	ck_assert_ptr_eq(take_and_give(0, NULL), &entries[0]);
	roster_remove(&kernel_real, &entries[0]);
	roster_remove(&kernel_real, &entries[2]);
	ck_assert_int_eq(roster_has(&entries[0]), 0);
	ck_assert_ptr_eq(take_and_give(0, NULL), &entries[1]);
	ck_assert_ptr_null(take_and_give(entries[1].number + 1, NULL));
	struct roster_entry next = {0};
	roster_add(&next, ROSTER_REGION, &next, NULL);
	ck_assert_uint_gt(next.number, entries[2].number);
}
END_TEST

static void *close_first(void *argument)
{
	(void)argument;
	roster_remove(&kernel_real, &entries[0]);
	atomic_store(&closed, 1);
	return NULL;
}

static int is_hidden(void *argument)
{
	(void)argument;
	return take_and_give(0, NULL) != &entries[0];
}

START_TEST(test_a_close_waits_for_those_that_have_taken_it)
{
	struct roster_entry *first = roster_take(ROSTER_REGION, 0, NULL);
	struct roster_entry *again = roster_take(ROSTER_REGION, 0, NULL);
	ck_assert_ptr_eq(first, again);
	pthread_t closer = thread_start(close_first, NULL);
	ck_assert(wait_until(is_hidden, NULL, 20));
	roster_give(&kernel_real, first);
	sleep_us(20000);
	ck_assert_int_eq(atomic_load(&closed), 0);
	roster_give(&kernel_real, again);
	thread_join(closer);
	ck_assert_int_eq(atomic_load(&closed), 1);
}
END_TEST

static void look_as_child(void *argument)
{
	(void)argument;
	must(!take_and_give(0, NULL));
	must(!roster_has(&entries[0]));
	roster_remove(&kernel_real, &entries[0]); /* nothing happens */
	struct roster_entry own = {0};
	roster_add(&own, ROSTER_REGION, &own, NULL);
	must(take_and_give(0, NULL) == &own);
}

START_TEST(test_a_child_begins_without_entries)
{
	if (!support_wipes_on_fork()) {
		support_note(__func__, "MADV_WIPEONFORK is taken here and not done");
		return;
	}
	ck_assert_int_eq(forks_watch(), 0);
	ck_assert_int_eq(child_run(look_as_child, NULL), 0);
	ck_assert_ptr_eq(take_and_give(0, NULL), &entries[0]);
}
END_TEST

int main(void)
{
	support_begin("test_roster", &(struct support_needs){0, 0});
	Suite *suite = suite_create("roster");
	TCase *tests = tcase_create("roster");
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, test_entries_are_found_in_order);
	tcase_add_test(tests, test_a_hidden_entry_is_taken_by_no_thread);
	tcase_add_test(tests, test_a_close_waits_for_those_that_have_taken_it);
	tcase_add_test(tests, test_a_child_begins_without_entries);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
