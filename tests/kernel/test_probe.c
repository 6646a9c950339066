/* SPDX-License-Identifier: MIT */
/*
 * The probe and its witnesses on the real kernel: what the trials say against what a page does when it is armed and
 * written here, that the ladder is reported whole, and that nothing is left open. Runs on every kernel: what a kernel
 * lacks, the probe has to say.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/probe.h"
#include "scratch.h"
#include "support.h"

#define RUNS 20u
#define PAGES 700u /* more than one read of pagemap brings */

static int uffd = -1;
static uint8_t *base;
static size_t length;

static void begin(void)
{
	enum kernel_access access;
	int errors[KERNEL_ACCESS_COUNT];
	uint64_t features;
	int fd = memfd_create("test", MFD_CLOEXEC);

	length = PAGES * (size_t)getpagesize();
	ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
	base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(base, MAP_FAILED);
	close(fd);
	uffd = kernel_uffd_open(&kernel_real, 0, &access, errors);
	ck_assert_int_ge(uffd, 0);
	close(uffd);
	uffd = kernel_uffd_new(&kernel_real, access, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM, &features);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(kernel_real.uffd_register(uffd, (uintptr_t)base, length, UFFDIO_REGISTER_MODE_WP), 0);
}

static void end(void)
{
	close(uffd);
	munmap(base, length);
}

static void arm(uint64_t mode)
{
	ck_assert_int_eq(kernel_real.uffd_writeprotect(uffd, (uintptr_t)base, length, mode), 0);
}

static uint64_t armed(void)
{
	uint64_t pages;

	ck_assert_int_eq(pagemap_armed(&kernel_real, (uintptr_t)base, length, &pages), 0);
	return pages;
}

static uint64_t present(void)
{
	uint64_t pages;

	ck_assert_int_eq(pagemap_present(&kernel_real, (uintptr_t)base, length, &pages), 0);
	return pages;
}

/* -1: this kernel has no PAGEMAP_SCAN. */
static int64_t written(void)
{
	uint64_t pages;

	return pagemap_written(&kernel_real, (uintptr_t)base, length, &pages) ? -1 : (int64_t)pages;
}

START_TEST(test_witness_counts_wp_bits_on_populated_and_empty_entries)
{
	memset(base, 1, length / 2);
	ck_assert_uint_eq(armed(), 0);
	ck_assert_uint_eq(present(), PAGES / 2);
	arm(UFFDIO_WRITEPROTECT_MODE_WP);
	ck_assert_uint_eq(armed(), PAGES);
	arm(0);
	ck_assert_uint_eq(armed(), 0);
}
END_TEST

START_TEST(test_two_witnesses_agree_on_single_pages)
{
	uint64_t page_bytes = (uint64_t)getpagesize();
	uint64_t open_pages = 0;

	memset(base, 1, length);
	if (written() < 0) {
		support_note("test_two_witnesses_agree_on_single_pages", "no PAGEMAP_SCAN");
		return;
	}
	ck_assert_int_eq(written(), PAGES);
	arm(UFFDIO_WRITEPROTECT_MODE_WP);
	ck_assert_int_eq(written(), 0);
	for (size_t page = 0; page < PAGES; page += 3) {
		uint8_t *address = base + page * page_bytes;

		ck_assert_int_eq(kernel_real.uffd_writeprotect(uffd, (uintptr_t)address, page_bytes, 0), 0);
		*address = 2;
		open_pages++;
	}
	ck_assert_int_eq(written(), (int64_t)open_pages);
	ck_assert_uint_eq(armed(), PAGES - open_pages);
}
END_TEST

START_TEST(test_system_call_that_writes_into_an_armed_page_is_reported)
{
	memset(base, 1, length);
	ck_assert_int_eq(kernel_real.try_write(base), 0);
	arm(UFFDIO_WRITEPROTECT_MODE_WP);
	ck_assert_int_eq(kernel_real.try_write(base), -EFAULT);
	arm(0);
	ck_assert_int_eq(kernel_real.try_write(base), 0);
}
END_TEST

/* KERNEL_ACCESS_COUNT: there is none. */
static enum kernel_access any_access(void)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];
	int fd = kernel_uffd_open(&kernel_real, 0, &access, errors);

	if (fd >= 0) {
		close(fd);
	}
	return access;
}

static struct probe_memory probe(enum kernel_access access, enum uffdwp_memory memory)
{
	struct probe_memory found;

	ck_assert_int_eq(probe_memory(&kernel_real, access, 0, memory, &found), 0);
	return found;
}

/* INV-TRIED: the probe's answer is what happens. */
START_TEST(test_chosen_mechanism_was_seen_to_work)
{
	struct probe_memory found = probe(any_access(), (enum uffdwp_memory)_i);

	ck_assert_int_ne(found.reason[0], '\0');
	if (found.mechanism == UFFDWP_MECHANISM_AUTO) {
		support_note(__func__, found.reason);
		return;
	}
	ck_assert_uint_eq(found.rungs[found.mechanism].works, 1);
	ck_assert_uint_eq(found.rungs[found.mechanism].inline_works, found.inline_works);
	for (uint32_t better = UFFDWP_MECHANISM_MARKER; better < found.mechanism; better++) {
		ck_assert_uint_eq(found.rungs[better].works, 0);
	}
}
END_TEST

START_TEST(test_marker_works_only_where_wp_bits_are_kept)
{
	struct probe_memory found = probe(any_access(), (enum uffdwp_memory)_i);

	if (!found.rungs[UFFDWP_MECHANISM_MARKER].works) {
		support_note(__func__, found.rungs[UFFDWP_MECHANISM_MARKER].reason);
		return;
	}
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_KEPT);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_UNPOPULATED], UFFDWP_ANSWER_KEPT);
	for (int trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++) {
		int says = found.reasons[trial][0] != '\0';
		uint32_t answer = found.answers[trial];

		ck_assert_int_eq(says, answer == UFFDWP_ANSWER_UNTRIED || answer == UFFDWP_ANSWER_FAILED);
	}
}
END_TEST

START_TEST(test_every_rung_says_why)
{
	struct probe_memory found = probe(any_access(), (enum uffdwp_memory)_i);

	for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_COUNT; mechanism++) {
		const struct probe_rung *rung = &found.rungs[mechanism];

		ck_assert_int_ne(rung->reason[0], '\0');
		uint32_t stops = mechanism < UFFDWP_MECHANISM_REGION_COUNT ? rung->works : 0;

		ck_assert_uint_eq(rung->inline_works, stops);
		ck_assert_uint_eq(rung->thread_works, mechanism == UFFDWP_MECHANISM_MPROTECT ? 0 : stops);
	}
}
END_TEST

/* Wp bits that are kept need markers; where there are any, filling with the wp bit set works as well. */
START_TEST(test_rearm_works_where_wp_bits_are_kept)
{
	struct probe_memory found = probe(any_access(), (enum uffdwp_memory)_i);

	if (!found.rungs[UFFDWP_MECHANISM_MARKER].works) {
		support_note(__func__, found.rungs[UFFDWP_MECHANISM_MARKER].reason);
		return;
	}
	ck_assert_msg(found.rungs[UFFDWP_MECHANISM_REARM].works == 1, "%s", found.rungs[UFFDWP_MECHANISM_REARM].reason);
	ck_assert_int_ne(found.fills & UFFDWP_PROBE_FILL_COPY_WP, 0);
}
END_TEST

START_TEST(test_swap_is_tried_where_there_is_swap)
{
	enum uffdwp_memory memory = _i ? UFFDWP_MEMORY_ANON : UFFDWP_MEMORY_SHMEM;
	struct probe_memory found = probe(any_access(), memory);

	if (!support_has_swap() || found.registered != 0) {
		support_note(__func__, found.registered ? found.reason : "no swap");
		return;
	}
	ck_assert_uint_ne(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_UNTRIED);
	if (found.rungs[UFFDWP_MECHANISM_MARKER].works) {
		ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_KEPT);
	}
}
END_TEST

START_TEST(test_user_mode_is_enough_for_the_probe)
{
	int fd = kernel_uffd_open_by(&kernel_real, KERNEL_ACCESS_USER_MODE);

	if (fd < 0) {
		support_note(__func__, "no userfaultfd(UFFD_USER_MODE_ONLY)");
		return;
	}
	close(fd);
	ck_assert_uint_eq(probe(KERNEL_ACCESS_USER_MODE, (enum uffdwp_memory)_i).mechanism,
	                  probe(any_access(), (enum uffdwp_memory)_i).mechanism);
}
END_TEST

START_TEST(test_mprotect_is_there_without_a_userfaultfd)
{
	struct probe_memory found = probe(KERNEL_ACCESS_COUNT, (enum uffdwp_memory)_i);

	for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_MPROTECT; mechanism++) {
		ck_assert_uint_eq(found.rungs[mechanism].works, 0);
	}
	if (_i == UFFDWP_MEMORY_HUGETLB && !support_has_huge_pages()) {
		support_note(__func__, "no huge pages");
		return;
	}
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MPROTECT);
}
END_TEST

static size_t mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	size_t lines = 0;
	int byte;

	ck_assert_ptr_nonnull(file);
	while ((byte = getc(file)) != EOF) {
		lines += byte == '\n';
	}
	(void)fclose(file);
	return lines;
}

START_TEST(test_probe_leaves_no_descriptor_and_no_mapping)
{
	struct probe_report report = {0};
	size_t files = scratch_open_files();
	size_t before;

	/* The first thread of a process leaves its stack for the next one. */
	ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	before = mappings();
	for (size_t i = 0; i < RUNS; i++) {
		ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	}
	ck_assert_uint_eq(scratch_open_files(), files);
	if (SUPPORT_THREAD_SANITIZER) {
		support_note(__func__, "mappings are not counted: the thread sanitizer makes its own for each thread");
		return;
	}
	/* One left by each run would show; what a sanitizer keeps for a thread does not matter. */
	ck_assert_uint_lt(mappings(), before + RUNS);
}
END_TEST

static void add_witness(TCase *witness)
{
	tcase_add_checked_fixture(witness, begin, end);
	tcase_add_test(witness, test_witness_counts_wp_bits_on_populated_and_empty_entries);
	tcase_add_test(witness, test_two_witnesses_agree_on_single_pages);
	tcase_add_test(witness, test_system_call_that_writes_into_an_armed_page_is_reported);
}

static void add_probe(TCase *tests)
{
	tcase_add_loop_test(tests, test_chosen_mechanism_was_seen_to_work, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_marker_works_only_where_wp_bits_are_kept, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_every_rung_says_why, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_rearm_works_where_wp_bits_are_kept, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_swap_is_tried_where_there_is_swap, 0, 2);
	tcase_add_loop_test(tests, test_user_mode_is_enough_for_the_probe, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_mprotect_is_there_without_a_userfaultfd, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_probe_leaves_no_descriptor_and_no_mapping);
}

/* The witnesses are of wp bits on shared memory. */
static int shows_wp_here(void)
{
	struct probe_memory found;

	(void)probe_memory(&kernel_real, any_access(), 0, UFFDWP_MEMORY_SHMEM, &found);
	if (!found.rungs[UFFDWP_MECHANISM_MARKER].works) {
		support_note("witness", found.rungs[UFFDWP_MECHANISM_MARKER].reason);
	}
	return found.rungs[UFFDWP_MECHANISM_MARKER].works != 0;
}

int main(void)
{
	Suite *suite = suite_create("probe");
	TCase *tests = tcase_create("probe");

	support_begin("test_probe", &(struct support_needs){.huge_pages = 2, .swap = 1});
	if (any_access() == KERNEL_ACCESS_COUNT) {
		return support_skip("no userfaultfd is available");
	}
	if (shows_wp_here()) {
		TCase *witness = tcase_create("witness");

		add_witness(witness);
		suite_add_tcase(suite, witness);
	}
	tcase_set_timeout(tests, 60);
	add_probe(tests);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
