/* SPDX-License-Identifier: MIT */
/*
 * A kernel that has no userfaultfd for us: a seccomp filter, in a child, answers the system call and the ioctl of
 * /dev/userfaultfd as container runtimes and old kernels do. Mechanism mprotect is left, and does the work; what else
 * was asked for is refused with a text that says what to change.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "filter.h"
#include "kernel/abi.h"
#include "kernel/probe.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

/* userfaultfd(2), USERFAULTFD_IOC_NEW and io_uring_setup(2) give these errors; 0: none. */
static int refuse_all(int uffd_error, int device_error, int uring_error)
{
	return filter_call(SYS_userfaultfd, filter_errno(uffd_error)) == 0 &&
	       filter_argument(SYS_ioctl, 1, USERFAULTFD_IOC_NEW, filter_errno(device_error)) == 0 &&
	       filter_call(SYS_io_uring_setup, filter_errno(uring_error)) == 0;
}

static struct uffdwp *open_without_userfaultfd(int error)
{
	must(filter_userfaultfd(error) == 0);
	struct uffdwp *runtime = NULL;
	must(uffdwp_open(NULL, &runtime) == 0);
	return runtime;
}

static void expect_text(const char *part)
{
	char text[512] = "";
	must(uffdwp_error_text(text, sizeof(text)) > 20);
	must(strstr(text, part) != NULL);
}

static void expect_probe(void *argument)
{
	int error = *(const int *)argument;
	must(filter_userfaultfd(error) == 0);
	struct probe_report report = {0};
	must(probe_run(&kernel_real, &report) == 0);
	must(report.access_chosen == -1);
	must(report.access[UFFDWP_ACCESS_SYSCALL] == -error);
	must(report.access[UFFDWP_ACCESS_USER_MODE] == -error);
	must(report.seccomp == 2);
	must(report.memory[UFFDWP_MEMORY_SHMEM].mechanism == UFFDWP_MECHANISM_MPROTECT);
	must(report.memory[UFFDWP_MEMORY_ANON].mechanism == UFFDWP_MECHANISM_MPROTECT);
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		must(strstr(report.memory[memory].rungs[UFFDWP_MECHANISM_MARKER].reason, "userfaultfd") != NULL);
		must(report.memory[memory].reason[0] != '\0');
	}
}

START_TEST(test_probe_says_that_mprotect_is_left)
{
	int error = _i == 0 ? EPERM : ENOSYS;
	ck_assert_int_eq(child_run(expect_probe, &error), 0);
}
END_TEST

static void expect_reason(void *argument)
{
	struct uffdwp *runtime = open_without_userfaultfd(*(const int *)argument);
	expect_text("userfaultfd");
	expect_text("mprotect");
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_open_says_why_only_mprotect_is_left)
{
	int error = _i == 0 ? EPERM : ENOSYS;
	ck_assert_int_eq(child_run(expect_reason, &error), 0);
}
END_TEST

static void ask_for_more(void *argument)
{
	struct uffdwp *runtime = open_without_userfaultfd(*(const int *)argument);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;
	options.mechanism = UFFDWP_MECHANISM_MARKER;
	must(uffdwp_region_create(runtime, 1 << 20, &options, &region) == -EOPNOTSUPP);
	expect_text("userfaultfd");
	options.mechanism = UFFDWP_MECHANISM_AUTO;
	options.delivery = UFFDWP_DELIVERY_THREAD;
	must(uffdwp_region_create(runtime, 1 << 20, &options, &region) == -EOPNOTSUPP);
	expect_text("inline");
	must(region == NULL);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_what_needs_a_userfaultfd_is_refused_with_the_reason)
{
	int error = EPERM;
	ck_assert_int_eq(child_run(ask_for_more, &error), 0);
}
END_TEST

static void write_by_mprotect(void *argument)
{
	struct uffdwp *runtime = open_without_userfaultfd(*(const int *)argument);
	struct uffdwp_region *region = NULL;
	must(uffdwp_region_create(runtime, 1 << 20, NULL, &region) == 0);
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	must(uffdwp_region_info(region, &info) == 0);
	must(info.mechanism == UFFDWP_MECHANISM_MPROTECT && info.delivery == UFFDWP_DELIVERY_INLINE);
	must(uffdwp_region_arm(region, 0, 1 << 20) == 0);
	volatile uint8_t *byte = uffdwp_region_base(region);
	*byte = 1;
	must(*byte == 1);
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	must(uffdwp_region_stats(region, &stats) == 0);
	must(stats.faults == 1);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_write_is_caught_without_a_userfaultfd)
{
	int error = _i == 0 ? EPERM : ENOSYS;
	ck_assert_int_eq(child_run(write_by_mprotect, &error), 0);
}
END_TEST

/* The device stays, if there is one. */
static void create_by_user_mode(void *argument)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	options.flags = UFFDWP_OPEN_USER_MODE;
	must(refuse_all(*(const int *)argument, 0, 0));
	must(uffdwp_open(&options, &runtime) == 0);
	must(uffdwp_region_create(runtime, 1 << 20, NULL, &region) == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_runtime_of_user_mode_has_mprotect_left)
{
	int error = _i == 0 ? EPERM : ENOSYS;
	ck_assert_int_eq(child_run(create_by_user_mode, &error), 0);
}
END_TEST

static void work_without_uring(void *argument)
{
	must(refuse_all(0, 0, *(const int *)argument));
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, 1 << 20, NULL, &region) == 0);
	must(uffdwp_region_arm(region, 0, 1 << 20) == 0);
	*(volatile uint8_t *)uffdwp_region_base(region) = 1;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	struct uffdwp_snapshot *snapshot = NULL;
	must(uffdwp_snapshot_begin(region, &options, &snapshot) == 0);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	must(uffdwp_snapshot_wait(snapshot, -1, &progress) == 0);
	must(progress.uring == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_everything_works_where_io_uring_is_refused)
{
	int error = _i == 0 ? EPERM : ENOSYS;
	ck_assert_int_eq(child_run(work_without_uring, &error), 0);
}
END_TEST

int main(void)
{
	support_begin("test_no_kernel", &(struct support_needs){0, 0});
	Suite *suite = suite_create("no kernel");
	TCase *tests = tcase_create("no kernel");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_probe_says_that_mprotect_is_left, 0, 2);
	tcase_add_loop_test(tests, test_open_says_why_only_mprotect_is_left, 0, 2);
	tcase_add_test(tests, test_what_needs_a_userfaultfd_is_refused_with_the_reason);
	tcase_add_loop_test(tests, test_write_is_caught_without_a_userfaultfd, 0, 2);
	tcase_add_loop_test(tests, test_runtime_of_user_mode_has_mprotect_left, 0, 2);
	tcase_add_loop_test(tests, test_everything_works_where_io_uring_is_refused, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
