/* SPDX-License-Identifier: MIT */
/*
 * Whose memory is this? A child of fork() gets an epoch and locks of its own; one that shares the memory of its parent
 * leaves the parent's alone.
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/fault.h"
#include "kernel/process.h"
#include "support.h"
#include "uffdwp.h"

static unsigned inside(void)
{
	unsigned count = 0;
	for (unsigned i = 0; i < EPOCH_SHARDS; i++) {
		count += fault_epoch.shards[i].inside[0] + fault_epoch.shards[i].inside[1];
	}
	return count;
}

static void begin(void)
{
	ck_assert_int_eq(process_begin(), 0);
	ck_assert_int_eq(registry_init(), 1);
}

START_TEST(test_vfork_child_leaves_the_epoch_of_its_parent_alone)
{
	if (SUPPORT_THREAD_SANITIZER) {
		support_note(__func__, "the thread sanitizer replaces vfork() by fork()");
		return;
	}
	begin();
	uint32_t number = process_number();
	epoch_ticket ticket = epoch_enter(&fault_epoch); /* as a thread of ours in the middle of a fault */
	pid_t child = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork): what is tested
	if (child == 0) {
		_exit(uffdwp_region_locate(&child) || !process_is_guest());
	}
	int status;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(inside(), 1);
	epoch_leave(ticket);
	ck_assert_uint_eq(process_number(), number);
	ck_assert(!process_is_guest());
}
END_TEST

static uint32_t parents_number;

static void look_in_child(void *unused)
{
	(void)unused;
	must(registry_init() == 1);
	must(process_number() != parents_number && process_number() != 0);
	must(!process_is_guest());
	must(inside() == 0);
	fault_epoch_wait(); /* for no thread that is in the parent */
}

START_TEST(test_child_of_fork_has_an_epoch_of_its_own)
{
	if (!support_wipes_on_fork()) {
		support_note(__func__, "MADV_WIPEONFORK is taken here and not done");
		return;
	}
	begin();
	parents_number = process_number();
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	ck_assert_int_eq(child_run(look_in_child, NULL), 0);
	epoch_leave(ticket);
}
END_TEST

START_TEST(test_nothing_is_located_before_the_first_runtime)
{
	ck_assert_uint_eq(process_number(), 0);
	ck_assert_ptr_null(uffdwp_region_locate(&parents_number));
	ck_assert_uint_eq(process_number(), 0);
}
END_TEST

int main(void)
{
	support_begin("test_process", &(struct support_needs){0});
	Suite *suite = suite_create("process");
	TCase *tests = tcase_create("process");
	tcase_add_checked_fixture(tests, support_block_signals, NULL);
	tcase_add_test(tests, test_vfork_child_leaves_the_epoch_of_its_parent_alone);
	tcase_add_test(tests, test_child_of_fork_has_an_epoch_of_its_own);
	tcase_add_test(tests, test_nothing_is_located_before_the_first_runtime);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
