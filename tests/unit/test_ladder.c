/* SPDX-License-Identifier: MIT */
/*
 * The probe against kernels of one page: which rungs of the ladder work there, which one is taken, and with which
 * reason the others are not.
 */
#include <errno.h>
#include <string.h>

#include "kernel/probe.h"
#include "onepage.h"
#include "support.h"

static struct probe_memory probe(enum uffdwp_memory memory)
{
	struct probe_memory found;

	ck_assert_int_eq(probe_memory(&onepage_ops, KERNEL_ACCESS_SYSCALL, 0, memory, &found), 0);
	return found;
}

static void expect_part(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
}

/* This rung is taken, and the reason says so much. */
static void expect_taken(const struct probe_memory *found, enum uffdwp_mechanism mechanism, const char *part)
{
	ck_assert_uint_eq(found->mechanism, mechanism);
	expect_part(found->reason, part);
}

static void expect_refused(const struct probe_memory *found, enum uffdwp_mechanism mechanism, const char *part)
{
	const struct probe_rung *rung = &found->rungs[mechanism];

	ck_assert_uint_eq(rung->works, 0);
	ck_assert_uint_eq(rung->thread_works, 0);
	ck_assert_uint_eq(rung->inline_works, 0);
	expect_part(rung->reason, part);
}

static void expect_works(const struct probe_memory *found, enum uffdwp_mechanism mechanism)
{
	const struct probe_rung *rung = &found->rungs[mechanism];

	ck_assert_msg(rung->works == 1, "mechanism %d: %s", (int)mechanism, rung->reason);
	ck_assert_uint_eq(rung->thread_works, mechanism != UFFDWP_MECHANISM_MPROTECT);
	ck_assert_uint_eq(rung->inline_works, 1);
	ck_assert_int_ne(rung->reason[0], '\0');
}

/* -------------------------------------------------------------------------------------------------- whole ladders --
 */

/* INV-TRIED */
START_TEST(test_full_kernel_gives_markers_for_all_memory)
{
	struct probe_memory found = probe((enum uffdwp_memory)_i);

	ck_assert_int_eq(found.registered, 0);
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MARKER);
	ck_assert_uint_eq(found.inline_works, 1);
	ck_assert_uint_eq(found.page_bytes, ONEPAGE_BYTES);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_KEPT);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_MREMAP], UFFDWP_ANSWER_KEPT);
	ck_assert_int_ne(found.reason[0], '\0');
}
END_TEST

START_TEST(test_full_kernel_has_every_rung)
{
	struct probe_memory found = probe((enum uffdwp_memory)_i);
	int has_file = _i != UFFDWP_MEMORY_ANON;

	expect_works(&found, UFFDWP_MECHANISM_MARKER);
	expect_works(&found, UFFDWP_MECHANISM_REARM);
	expect_works(&found, UFFDWP_MECHANISM_MPROTECT);
	if (has_file) {
		expect_works(&found, UFFDWP_MECHANISM_MINOR);
	} else {
		expect_refused(&found, UFFDWP_MECHANISM_MINOR, "file");
	}
	ck_assert_uint_eq(found.fills, UFFDWP_PROBE_FILL_COPY_WP | (has_file ? UFFDWP_PROBE_FILL_CONTINUE_WP : 0u));
	ck_assert_int_eq(found.rungs[UFFDWP_MECHANISM_AUTO].reason[0], '\0');
}
END_TEST

/* INV-TRIED: accepted by the kernel, seen to lose wp bits, hence not taken; what it loses, the next rung notices. */
START_TEST(test_wp_bit_that_is_lost_is_not_relied_on)
{
	static const enum uffdwp_trial trials[] = {UFFDWP_TRIAL_UNPOPULATED, UFFDWP_TRIAL_DONTNEED, UFFDWP_TRIAL_PUNCH,
	                                           UFFDWP_TRIAL_SWAP};
	struct probe_memory found;

	onepage.loses[trials[_i]] = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[trials[_i]], UFFDWP_ANSWER_LOST);
	expect_refused(&found, UFFDWP_MECHANISM_MARKER, "lost");
	expect_works(&found, UFFDWP_MECHANISM_REARM);
	expect_taken(&found, UFFDWP_MECHANISM_REARM, "lost");
	ck_assert_uint_eq(found.inline_works, 1);
}
END_TEST

START_TEST(test_kernel_without_markers_rearms)
{
	struct probe_memory found;

	onepage.loses[UFFDWP_TRIAL_UNPOPULATED] = onepage.loses[UFFDWP_TRIAL_DONTNEED] = 1;
	onepage.loses[UFFDWP_TRIAL_PUNCH] = 1;
	/* The swap entry of an anonymous page carries its wp bit, on every kernel. */
	onepage.loses[UFFDWP_TRIAL_SWAP] = _i != UFFDWP_MEMORY_ANON;
	found = probe((enum uffdwp_memory)_i);
	expect_taken(&found, UFFDWP_MECHANISM_REARM, "touched");
	ck_assert_int_ne(found.fills & UFFDWP_PROBE_FILL_COPY_WP, 0);
}
END_TEST

START_TEST(test_shared_memory_without_write_protection_takes_minor_faults)
{
	struct probe_memory found;

	onepage.wp_errors[_i] = -EINVAL;
	found = probe((enum uffdwp_memory)_i);
	ck_assert_int_eq(found.registered, -EINVAL);
	expect_refused(&found, UFFDWP_MECHANISM_MARKER, "refused: EINVAL");
	expect_refused(&found, UFFDWP_MECHANISM_MARKER, "5.19");
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "refused: EINVAL");
	expect_works(&found, UFFDWP_MECHANISM_MINOR);
	expect_taken(&found, UFFDWP_MECHANISM_MINOR, "refused: EINVAL");
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_UNTRIED);
	ck_assert_int_ne(found.reasons[UFFDWP_TRIAL_POPULATED][0], '\0');
}
END_TEST

START_TEST(test_shared_memory_without_any_fault_is_left_to_mprotect)
{
	struct probe_memory found;

	onepage.wp_errors[_i] = onepage.minor_error = -EINVAL;
	found = probe((enum uffdwp_memory)_i);
	expect_refused(&found, UFFDWP_MECHANISM_MINOR, _i == UFFDWP_MEMORY_SHMEM ? "5.14" : "5.18");
	expect_works(&found, UFFDWP_MECHANISM_MPROTECT);
	expect_taken(&found, UFFDWP_MECHANISM_MPROTECT, "refused: EINVAL");
	ck_assert_uint_eq(found.inline_works, 1);
}
END_TEST

START_TEST(test_nothing_but_mprotect_needs_no_userfaultfd)
{
	struct probe_memory found;

	onepage.system_call = onepage.user_mode = -EPERM;
	onepage.device = -ENOENT;
	ck_assert_int_eq(probe_memory(&onepage_ops, KERNEL_ACCESS_COUNT, 0, (enum uffdwp_memory)_i, &found), 0);
	expect_refused(&found, UFFDWP_MECHANISM_MARKER, "userfaultfd is available: EPERM");
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "userfaultfd is available: EPERM");
	expect_works(&found, UFFDWP_MECHANISM_MPROTECT);
	expect_taken(&found, UFFDWP_MECHANISM_MPROTECT, "userfaultfd is available: EPERM");
	ck_assert_uint_eq(found.page_bytes, ONEPAGE_BYTES);
}
END_TEST

/* What others may open does not matter: it is no refusal of the moment. */
START_TEST(test_only_user_mode_counts_where_only_that_is_wanted)
{
	struct probe_memory found;

	onepage.user_mode = -EPERM;
	ck_assert_int_eq(probe_memory(&onepage_ops, KERNEL_ACCESS_COUNT, 1, (enum uffdwp_memory)_i, &found), 0);
	expect_taken(&found, UFFDWP_MECHANISM_MPROTECT, "userfaultfd is available: EPERM");
	ck_assert_int_eq(found.rungs[UFFDWP_MECHANISM_MARKER].error, 0);
}
END_TEST

START_TEST(test_kernel_that_stops_nothing_has_no_mechanism)
{
	struct probe_memory found;

	onepage.system_call = onepage.user_mode = onepage.device = -ENOSYS;
	onepage.ignores_mprotect = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	expect_refused(&found, UFFDWP_MECHANISM_MPROTECT, "read-only");
	expect_taken(&found, UFFDWP_MECHANISM_AUTO, "ENOSYS");
	ck_assert_uint_eq(found.inline_works, 0);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- single rungs -- */

START_TEST(test_anonymous_memory_needs_wp_bits_on_unpopulated_pages)
{
	struct probe_memory found;

	onepage.loses[UFFDWP_TRIAL_UNPOPULATED] = 1;
	found = probe(UFFDWP_MEMORY_ANON);
	expect_taken(&found, UFFDWP_MECHANISM_REARM, "touched");
}
END_TEST

START_TEST(test_reads_count_as_writes_where_content_cannot_be_mapped_protected)
{
	struct probe_memory found;

	onepage.continue_wp_error = -EINVAL;
	found = probe(UFFDWP_MEMORY_SHMEM);
	expect_works(&found, UFFDWP_MECHANISM_REARM);
	expect_part(found.rungs[UFFDWP_MECHANISM_REARM].reason, "UFFDIO_CONTINUE_MODE_WP");
	ck_assert_uint_eq(found.fills, UFFDWP_PROBE_FILL_COPY_WP);
}
END_TEST

START_TEST(test_hole_that_cannot_be_filled_protected_rules_rearm_out)
{
	struct probe_memory found;

	onepage.copy_wp_error = -EINVAL;
	found = probe((enum uffdwp_memory)_i);
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "with the wp bit set: EINVAL");
	ck_assert_int_eq(found.fills & UFFDWP_PROBE_FILL_COPY_WP, 0);
}
END_TEST

START_TEST(test_wp_bit_that_a_fill_forgets_rules_rearm_out)
{
	struct probe_memory found;

	onepage.forgets_wp_in_fills = 1;
	found = probe((enum uffdwp_memory)_i);
	expect_works(&found, UFFDWP_MECHANISM_MARKER);
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "unseen");
	ck_assert_uint_eq(found.fills, 0);
}
END_TEST

START_TEST(test_empty_entry_without_an_event_rules_minor_out)
{
	struct probe_memory found;

	onepage.misses_empty_entries = 1;
	onepage.loses[UFFDWP_TRIAL_DONTNEED] = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "never having been touched"); /* the first that is zapped */
	expect_refused(&found, UFFDWP_MECHANISM_MINOR, "unseen");
	expect_taken(&found, UFFDWP_MECHANISM_MPROTECT, "lost");
}
END_TEST

START_TEST(test_trial_by_swap_is_left_out_without_swap)
{
	struct probe_memory found;

	onepage.swap_on = 0;
	onepage.loses[UFFDWP_TRIAL_SWAP] = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_UNTRIED);
	expect_part(found.reasons[UFFDWP_TRIAL_SWAP], "swapon");
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MARKER);
}
END_TEST

START_TEST(test_page_that_stays_in_memory_proves_nothing_about_swap)
{
	struct probe_memory found;

	onepage.ignores_pageout = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_UNTRIED);
	ck_assert_int_ne(found.reasons[UFFDWP_TRIAL_SWAP][0], '\0');
	expect_works(&found, UFFDWP_MECHANISM_MINOR);
}
END_TEST

START_TEST(test_missing_huge_pages_are_a_reason_that_says_how)
{
	struct probe_memory found;

	onepage.huge_free = 0;
	found = probe(UFFDWP_MEMORY_HUGETLB);
	ck_assert_int_eq(found.registered, 0);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_UNTRIED);
	expect_taken(&found, UFFDWP_MECHANISM_AUTO, "/proc/sys/vm/nr_hugepages");
	for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_REGION_COUNT; mechanism++) {
		expect_refused(&found, (enum uffdwp_mechanism)mechanism, "/proc/sys/vm/nr_hugepages");
	}
}
END_TEST

START_TEST(test_nothing_is_tried_that_could_hang)
{
	struct probe_memory found;

	onepage.features &= ~(uint64_t)UFFD_FEATURE_SIGBUS;
	found = probe(UFFDWP_MEMORY_SHMEM);
	for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_MPROTECT; mechanism++) {
		expect_refused(&found, (enum uffdwp_mechanism)mechanism, "could not be tried: no UFFD_FEATURE_SIGBUS");
	}
	expect_taken(&found, UFFDWP_MECHANISM_MPROTECT, "SIGBUS");
}
END_TEST

/* EFAULT alone does not prove a wp bit. */
START_TEST(test_page_that_cannot_be_disarmed_is_a_failed_trial)
{
	struct probe_memory found;

	onepage.stays_protected = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_FAILED);
	expect_refused(&found, UFFDWP_MECHANISM_MARKER, "failed");
	expect_refused(&found, UFFDWP_MECHANISM_REARM, "failed");
	expect_taken(&found, UFFDWP_MECHANISM_MINOR, "failed");
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- the report -- */

START_TEST(test_no_userfaultfd_is_an_answer_and_not_an_error)
{
	struct probe_report report = {0};

	onepage.system_call = onepage.user_mode = -ENOSYS;
	onepage.device = -ENOENT;
	ck_assert_int_eq(probe_run(&onepage_ops, &report), 0);
	ck_assert_int_eq(report.access_chosen, -1);
	ck_assert_int_eq(report.access[UFFDWP_ACCESS_DEVICE], -ENOENT);
	for (int memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		ck_assert_int_eq(report.memory[memory].registered, -ENOSYS);
		expect_taken(&report.memory[memory], UFFDWP_MECHANISM_MPROTECT, "userfaultfd");
	}
}
END_TEST

START_TEST(test_report_has_what_stands_around)
{
	struct probe_report report = {0};

	onepage.scan = -ENOTTY;
	onepage.device = -EACCES;
	ck_assert_int_eq(probe_run(&onepage_ops, &report), 0);
	ck_assert_int_eq(report.access_chosen, UFFDWP_ACCESS_SYSCALL);
	ck_assert_int_eq(report.access[UFFDWP_ACCESS_DEVICE], -EACCES);
	ck_assert_uint_eq(report.features, ONEPAGE_FEATURES);
	ck_assert_int_eq(report.sysctl_unprivileged, 1);
	ck_assert_int_eq(report.seccomp, 2);
	ck_assert_int_eq(report.uring, -EPERM);
	ck_assert_int_eq(report.pagemap_scan, -ENOTTY);
	ck_assert_int_eq(report.pagemap_bit57, 1);
	ck_assert_uint_eq(report.swap_on, 1);
	ck_assert_uint_eq(report.huge_pages_free, 3);
	ck_assert_uint_eq(report.max_map_count, 65530);
}
END_TEST

START_TEST(test_unknown_memory_is_refused)
{
	struct probe_memory found = {.page_bytes = 77};

	ck_assert_int_eq(probe_memory(&onepage_ops, KERNEL_ACCESS_SYSCALL, 0, UFFDWP_MEMORY_COUNT, &found), -EINVAL);
	ck_assert_uint_eq(found.page_bytes, 77);
}
END_TEST

START_TEST(test_probe_leaves_nothing_open_whichever_call_is_refused)
{
	struct probe_report report = {0};
	uint64_t calls;

	ck_assert_int_eq(probe_run(&onepage_ops, &report), 0);
	calls = onepage.calls;
	for (uint64_t call = 1; call <= calls; call++) {
		onepage_begin();
		onepage.refused_call = call;
		ck_assert_int_eq(probe_run(&onepage_ops, &report), 0);
		onepage_end();
	}
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
	TCase *tests = tcase_create(name);

	tcase_add_checked_fixture(tests, onepage_begin, onepage_end);
	tcase_set_timeout(tests, 60);
	suite_add_tcase(suite, tests);
	return tests;
}

static void add_ladders(TCase *tests)
{
	tcase_add_loop_test(tests, test_full_kernel_gives_markers_for_all_memory, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_full_kernel_has_every_rung, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_wp_bit_that_is_lost_is_not_relied_on, 0, 4);
	tcase_add_loop_test(tests, test_kernel_without_markers_rearms, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_shared_memory_without_write_protection_takes_minor_faults, 0,
	                    UFFDWP_MEMORY_ANON);
	tcase_add_loop_test(tests, test_shared_memory_without_any_fault_is_left_to_mprotect, 0, UFFDWP_MEMORY_ANON);
	tcase_add_loop_test(tests, test_nothing_but_mprotect_needs_no_userfaultfd, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_only_user_mode_counts_where_only_that_is_wanted, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_kernel_that_stops_nothing_has_no_mechanism);
}

static void add_rungs(TCase *tests)
{
	tcase_add_test(tests, test_anonymous_memory_needs_wp_bits_on_unpopulated_pages);
	tcase_add_test(tests, test_reads_count_as_writes_where_content_cannot_be_mapped_protected);
	tcase_add_loop_test(tests, test_hole_that_cannot_be_filled_protected_rules_rearm_out, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_wp_bit_that_a_fill_forgets_rules_rearm_out, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_empty_entry_without_an_event_rules_minor_out);
	tcase_add_test(tests, test_trial_by_swap_is_left_out_without_swap);
	tcase_add_test(tests, test_page_that_stays_in_memory_proves_nothing_about_swap);
	tcase_add_test(tests, test_missing_huge_pages_are_a_reason_that_says_how);
	tcase_add_test(tests, test_nothing_is_tried_that_could_hang);
	tcase_add_test(tests, test_page_that_cannot_be_disarmed_is_a_failed_trial);
}

static void add_report(TCase *tests)
{
	tcase_add_test(tests, test_no_userfaultfd_is_an_answer_and_not_an_error);
	tcase_add_test(tests, test_report_has_what_stands_around);
	tcase_add_test(tests, test_unknown_memory_is_refused);
	tcase_add_test(tests, test_probe_leaves_nothing_open_whichever_call_is_refused);
}

int main(void)
{
	Suite *suite = suite_create("ladder");

	support_begin("test_ladder", &(struct support_needs){0});
	add_ladders(add_case(suite, "ladders"));
	add_rungs(add_case(suite, "rungs"));
	add_report(add_case(suite, "report"));
	return support_run(suite);
}
