/* SPDX-License-Identifier: MIT */
/*
 * The trial of arming by a move of page tables, on the real kernel and on kernels that differ from it in one call: what
 * it answers where entries are copied instead of moved, where an access would pass, and where the kernel refuses.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/probe.h"
#include "support.h"

#define TABLES 64u

static enum kernel_access access_here = KERNEL_ACCESS_COUNT;
static struct kernel_ops ops;
static int refusal;

static struct probe_arming probe(enum uffdwp_memory memory)
{
	struct probe_arming found;

	ck_assert_int_eq(probe_move(&ops, access_here, memory, &found), 0);
	ck_assert_int_ne(found.reason[0], '\0');
	return found;
}

static void expect_part(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
}

/* 0, and says so: this kernel has nothing of which something could be taken. */
static int works_here(const char *test)
{
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	if (!found.works) {
		support_note(test, found.reason);
	}
	return found.works != 0;
}

START_TEST(test_only_shared_memory_is_armed_by_a_move)
{
	struct probe_arming found = probe((enum uffdwp_memory)_i);

	if (_i != UFFDWP_MEMORY_SHMEM) {
		ck_assert_uint_eq(found.works, 0);
	}
	ck_assert_int_eq(found.error, 0);
}
END_TEST

/* A kernel that fills entries write-protected in one step (Linux 6.4) also moves page tables (5.13). */
START_TEST(test_move_works_where_minor_faults_are_filled_write_protected)
{
	struct probe_report report = {0};

	ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	if (!(report.memory[UFFDWP_MEMORY_SHMEM].fills & UFFDWP_PROBE_FILL_CONTINUE_WP)) {
		support_note(__func__, "no UFFDIO_CONTINUE_MODE_WP");
		return;
	}
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	ck_assert_msg(found.works == 1, "%s", found.reason);
}
END_TEST

/* As many page-table pages come as a move entry by entry needs. */
static void *copying_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t step = page / sizeof(uint64_t) * page;
	char *extra =
	        mmap(NULL, TABLES * step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (unsigned i = 0; i < TABLES && extra != MAP_FAILED; i++) {
		extra[i * step] = 1;
	}
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

START_TEST(test_copied_entries_are_no_move)
{
	if (!works_here(__func__)) {
		return;
	}
	ops.mremap = copying_mremap;
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	ck_assert_uint_eq(found.works, 0);
	expect_part(found.reason, "copied");
	ck_assert_int_eq(found.error, 0);
}
END_TEST

static int register_for_writes_only(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	return kernel_real.uffd_register(uffd, start, length, mode & UFFDIO_REGISTER_MODE_WP);
}

START_TEST(test_access_that_passes_is_seen)
{
	if (!works_here(__func__)) {
		return;
	}
	ops.uffd_register = register_for_writes_only;
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	ck_assert_uint_eq(found.works, 0);
	expect_part(found.reason, "unseen");
}
END_TEST

static void *refused_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	(void)address;
	(void)old_length;
	(void)new_length;
	(void)flags;
	(void)target;
	*error = refusal;
	return NULL;
}

START_TEST(test_refusal_of_the_kernel_is_the_reason)
{
	if (!works_here(__func__)) {
		return;
	}
	ops.mremap = refused_mremap;
	refusal = -EINVAL;
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	ck_assert_uint_eq(found.works, 0);
	ck_assert_int_eq(found.error, 0);
	expect_part(found.reason, "MREMAP_DONTUNMAP");
	expect_part(found.reason, "EINVAL");
}
END_TEST

START_TEST(test_want_of_memory_is_no_answer)
{
	if (!works_here(__func__)) {
		return;
	}
	ops.mremap = refused_mremap;
	refusal = -ENOMEM;
	struct probe_arming found = probe(UFFDWP_MEMORY_SHMEM);

	ck_assert_uint_eq(found.works, 0);
	ck_assert_int_eq(found.error, -ENOMEM);
}
END_TEST

START_TEST(test_without_a_userfaultfd_there_is_no_move)
{
	struct probe_arming found;

	ck_assert_int_eq(probe_move(&kernel_real, KERNEL_ACCESS_COUNT, UFFDWP_MEMORY_SHMEM, &found), 0);
	ck_assert_uint_eq(found.works, 0);
	expect_part(found.reason, "userfaultfd");
	ck_assert_int_eq(probe_move(&kernel_real, KERNEL_ACCESS_COUNT, UFFDWP_MEMORY_COUNT, &found), -EINVAL);
}
END_TEST

static void begin(void)
{
	ops = kernel_real;
}

int main(void)
{
	Suite *suite = suite_create("probe_move");
	TCase *tests = tcase_create("probe_move");
	int errors[KERNEL_ACCESS_COUNT];

	support_begin("test_probe_move", &(struct support_needs){0});
	int fd = kernel_uffd_open(&kernel_real, 0, &access_here, errors);

	if (fd < 0) {
		return support_skip("no userfaultfd is available");
	}
	close(fd);
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, begin, NULL);
	tcase_add_loop_test(tests, test_only_shared_memory_is_armed_by_a_move, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_move_works_where_minor_faults_are_filled_write_protected);
	tcase_add_test(tests, test_copied_entries_are_no_move);
	tcase_add_test(tests, test_access_that_passes_is_seen);
	tcase_add_test(tests, test_refusal_of_the_kernel_is_the_reason);
	tcase_add_test(tests, test_want_of_memory_is_no_answer);
	tcase_add_test(tests, test_without_a_userfaultfd_there_is_no_move);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
