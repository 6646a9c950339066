/* SPDX-License-Identifier: MIT */
/*
 * The probe and its witnesses on the real kernel: what the trials say against what a page does when it is armed and
 * written here, and that they leave nothing behind.
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

START_TEST(test_witness_counts_marks_on_populated_and_empty_entries)
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

START_TEST(test_system_call_that_writes_into_an_armed_page_is_told)
{
	memset(base, 1, length);
	ck_assert_int_eq(kernel_real.try_write(base), 0);
	arm(UFFDIO_WRITEPROTECT_MODE_WP);
	ck_assert_int_eq(kernel_real.try_write(base), -EFAULT);
	arm(0);
	ck_assert_int_eq(kernel_real.try_write(base), 0);
}
END_TEST

static enum kernel_access any_access(void)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];
	int fd = kernel_uffd_open(&kernel_real, 0, &access, errors);

	ck_assert_int_ge(fd, 0);
	close(fd);
	return access;
}

/* INV-TRIED: the probe's answer is what happens. */
START_TEST(test_chosen_mechanism_was_seen_to_work)
{
	struct uffdwp_probe_memory found;

	ck_assert_int_eq(probe_memory(&kernel_real, any_access(), (enum uffdwp_memory)_i, &found), 0);
	ck_assert_int_ne(found.reason[0], '\0');
	if (found.mechanism == UFFDWP_MECHANISM_AUTO) {
		support_note("test_chosen_mechanism_was_seen_to_work", found.reason);
		return;
	}
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_KEPT);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_UNPOPULATED], UFFDWP_ANSWER_KEPT);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_MREMAP], UFFDWP_ANSWER_KEPT);
	for (int trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++) {
		int says = found.reasons[trial][0] != '\0';
		uint32_t answer = found.answers[trial];

		ck_assert_int_eq(says, answer == UFFDWP_ANSWER_UNTRIED || answer == UFFDWP_ANSWER_FAILED);
	}
}
END_TEST

START_TEST(test_swap_is_tried_where_there_is_swap)
{
	struct uffdwp_probe_memory found;
	enum uffdwp_memory memory = _i ? UFFDWP_MEMORY_ANON : UFFDWP_MEMORY_SHMEM;

	if (!support_has_swap()) {
		support_note("test_swap_is_tried_where_there_is_swap", "no swap");
		return;
	}
	ck_assert_int_eq(probe_memory(&kernel_real, any_access(), memory, &found), 0);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_KEPT);
}
END_TEST

START_TEST(test_user_mode_is_enough_for_the_probe)
{
	struct uffdwp_probe_memory found;

	ck_assert_int_eq(probe_memory(&kernel_real, KERNEL_ACCESS_USER_MODE, UFFDWP_MEMORY_SHMEM, &found), 0);
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MARKER);
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
	struct uffdwp_probe_report report = {.sz = sizeof(report)};
	size_t files = scratch_open_files();
	size_t before;

	/* The first thread of a process leaves its stack for the next one. */
	ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	before = mappings();
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	}
	ck_assert_uint_eq(scratch_open_files(), files);
	if (SUPPORT_THREAD_SANITIZER) {
		support_note(__func__, "mappings are not counted: the thread sanitizer makes its own for each thread");
		return;
	}
	ck_assert_uint_le(mappings(), before + 1);
}
END_TEST

static void add_tests(TCase *witness, TCase *probe)
{
	tcase_add_checked_fixture(witness, begin, end);
	tcase_add_test(witness, test_witness_counts_marks_on_populated_and_empty_entries);
	tcase_add_test(witness, test_two_witnesses_agree_on_single_pages);
	tcase_add_test(witness, test_system_call_that_writes_into_an_armed_page_is_told);
	tcase_add_loop_test(probe, test_chosen_mechanism_was_seen_to_work, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(probe, test_swap_is_tried_where_there_is_swap, 0, 2);
	tcase_add_test(probe, test_user_mode_is_enough_for_the_probe);
	tcase_add_test(probe, test_probe_leaves_no_descriptor_and_no_mapping);
}

int main(void)
{
	struct uffdwp_probe_memory found;
	Suite *suite = suite_create("probe");
	TCase *witness = tcase_create("witness");
	TCase *probe = tcase_create("probe");
	enum kernel_access access = KERNEL_ACCESS_SYSCALL;
	int errors[KERNEL_ACCESS_COUNT];
	int fd;

	support_begin("test_probe", &(struct support_needs){.huge_pages = 2, .swap = 1});
	fd = kernel_uffd_open(&kernel_real, 0, &access, errors);
	if (fd < 0) {
		return support_skip("no userfaultfd is to be had");
	}
	close(fd);
	if (probe_memory(&kernel_real, access, UFFDWP_MEMORY_SHMEM, &found) != 0 || !found.mechanism) {
		return support_skip(found.reason);
	}
	add_tests(witness, probe);
	suite_add_tcase(suite, witness);
	suite_add_tcase(suite, probe);
	return support_run(suite);
}
