/* SPDX-License-Identifier: MIT */
/*
 * The kernel layer: which access to a userfaultfd is taken and what is asked of it, against a kernel of one page that
 * can refuse; numbers of /proc; and that the real operations leave errno alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/order.h"
#include "kernel/own.h"
#include "kernel/pagemap.h"
#include "kernel/pages.h"
#include "kernel/procfs.h"
#include "onepage.h"
#include "support.h"

/* -------------------------------------------------------------------------------------------------------access -- */

static int open_access(int user_mode_only, enum kernel_access *access, int errors[KERNEL_ACCESS_COUNT])
{
	int uffd = kernel_uffd_open(&onepage_ops, user_mode_only, access, errors);

	if (uffd >= 0) {
		onepage_ops.close(uffd);
	}
	return uffd;
}

START_TEST(test_system_call_is_the_first_access)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	ck_assert_int_ge(open_access(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_SYSCALL);
	ck_assert_uint_eq(onepage.calls, 1);
}
END_TEST

START_TEST(test_device_is_taken_where_the_system_call_is_refused)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	onepage.system_call = -EPERM;
	ck_assert_int_ge(open_access(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_DEVICE);
	ck_assert_int_eq(errors[KERNEL_ACCESS_SYSCALL], -EPERM);
}
END_TEST

START_TEST(test_user_mode_is_the_last_access)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	onepage.system_call = -EPERM;
	onepage.device = -EACCES;
	ck_assert_int_ge(open_access(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_USER_MODE);
	ck_assert_int_eq(errors[KERNEL_ACCESS_DEVICE], -EACCES);
}
END_TEST

START_TEST(test_user_mode_only_tries_nothing_else)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	ck_assert_int_ge(open_access(1, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_USER_MODE);
	ck_assert_uint_eq(onepage.calls, 1);
	onepage.user_mode = -EINVAL;
	ck_assert_int_eq(open_access(1, &access, errors), -EINVAL);
}
END_TEST

START_TEST(test_refusal_of_all_accesses_gives_the_useful_error)
{
	static const struct {
		int system_call;
		int device;
		int reported;
	} cases[] = {{-ENOSYS, -ENOENT, -ENOSYS},
	             {-EPERM, -ENOENT, -EPERM},
	             {-EPERM, -EACCES, -EACCES},
	             {-EMFILE, -EACCES, -EMFILE}};
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	onepage.system_call = cases[_i].system_call;
	onepage.device = cases[_i].device;
	onepage.user_mode = cases[_i].system_call;
	ck_assert_int_eq(open_access(0, &access, errors), cases[_i].reported);
	ck_assert_int_eq(access, KERNEL_ACCESS_COUNT);
	ck_assert_int_eq(errors[KERNEL_ACCESS_SYSCALL], cases[_i].system_call);
	ck_assert_int_eq(errors[KERNEL_ACCESS_DEVICE], cases[_i].device);
	ck_assert_int_eq(errors[KERNEL_ACCESS_USER_MODE], cases[_i].system_call);
}
END_TEST

START_TEST(test_features_that_the_kernel_lacks_are_left_out)
{
	uint64_t granted = 0;
	int uffd;

	onepage.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS;
	uffd = kernel_uffd_new(&onepage_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_UNPOPULATED,
	                       &granted);
	ck_assert_int_ge(uffd, 0);
	ck_assert_uint_eq(granted, UFFD_FEATURE_SIGBUS);
	onepage_ops.close(uffd);
}
END_TEST

START_TEST(test_fork_event_is_left_out_without_the_right_to_it)
{
	uint64_t granted = 0;
	int uffd;

	onepage.may_watch_forks = _i;
	uffd = kernel_uffd_new(&onepage_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP,
	                       &granted);
	ck_assert_int_ge(uffd, 0);
	ck_assert_uint_eq(granted, UFFD_FEATURE_EVENT_REMAP | (_i ? UFFD_FEATURE_EVENT_FORK : 0u));
	onepage_ops.close(uffd);
}
END_TEST

START_TEST(test_failed_negotiation_leaves_outputs_alone)
{
	uint64_t granted = 77;

	onepage.refused_call = (uint64_t)_i;
	ck_assert_int_lt(kernel_uffd_new(&onepage_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_SIGBUS, &granted), 0);
	ck_assert_uint_eq(granted, 77);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- small -- */

START_TEST(test_numbers_of_proc_are_found_by_their_key)
{
	uint64_t number = 77;

	ck_assert_int_eq(procfs_number(&onepage_ops, "/proc/self/status", "Seccomp:", &number), 0);
	ck_assert_uint_eq(number, 2);
	ck_assert_int_eq(procfs_number(&onepage_ops, "/proc/self/status", "Name:", &number), -ENODATA);
	ck_assert_int_eq(procfs_number(&onepage_ops, "/proc/self/status", "Missing:", &number), -ENODATA);
	ck_assert_uint_eq(number, 2);
}
END_TEST

START_TEST(test_real_operations_keep_errno)
{
	uint8_t byte;
	int error = 0;

	errno = 77;
	ck_assert_int_eq(kernel_real.close(-1), -EBADF);
	ck_assert_int_eq(kernel_real.open("/nowhere/at/all", O_RDONLY, 0), -ENOENT);
	ck_assert_ptr_null(kernel_real.mmap(NULL, 0, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &error));
	ck_assert_int_eq(error, -EINVAL);
	ssize_t got = kernel_real.read_self(&byte, (void *)8, 1);
	ck_assert(got == -EFAULT || got == -ENOSYS); /* -ENOSYS: an emulator of user programs */
	ck_assert_int_eq(kernel_real.try_write((void *)8), -EFAULT);
	ck_assert_int_eq(kernel_real.poll(-1, 0, 0), 0);
	ck_assert_int_eq(errno, 77);
}
END_TEST

/* ---- descriptors, orders, the pagemap ---- */

static int writes_refused;

static ssize_t write_refusing(int fd, const void *bytes, size_t length)
{
	return writes_refused && writes_refused-- > 0 ? -EINTR : kernel_real.write(fd, bytes, length);
}

START_TEST(test_a_kick_is_repeated_but_not_for_ever_and_hits_no_foreign_file)
{
	struct kernel_ops k = kernel_real;
	uint64_t kicks = 0;
	int tag = own_new();
	int fd = own_eventfd(&k, tag);

	k.write = write_refusing;
	ck_assert_int_ge(fd, 0);
	writes_refused = 3;
	ck_assert_int_eq(own_kick(&k, fd, tag), 0);
	ck_assert_int_eq(k.read(fd, &kicks, sizeof(kicks)), sizeof(kicks));
	ck_assert_uint_eq(kicks, 1);
	writes_refused = INT_MAX;
	ck_assert_int_eq(own_kick(&k, fd, tag), -EINTR);
	writes_refused = 0;
	own_close(&k, fd, tag);
	ck_assert_int_eq(own_kick(&k, fd, tag), -EBADF);
}
END_TEST

struct waiting {
	struct order order;
	int goes;
};

static void *wait_for_order(void *argument)
{
	struct waiting *waiting = argument;

	waiting->goes = order_await(&waiting->order, &kernel_real);
	return NULL;
}

START_TEST(test_threads_go_or_end_as_they_are_asked)
{
	for (int goes = 0; goes < 2; goes++) {
		struct waiting waiting[2] = {{.goes = -1}, {.goes = -1}};
		pthread_t threads[2];

		for (int i = 0; i < 2; i++)
			ck_assert_int_eq(pthread_create(&threads[i], NULL, wait_for_order, &waiting[i]), 0);
		for (int i = 0; i < 2; i++) {
			order_give(&waiting[i].order, &kernel_real, goes ? ORDER_GO : ORDER_FORGET);
			pthread_join(threads[i], NULL);
			ck_assert_int_eq(waiting[i].goes, goes);
		}
	}
}
END_TEST

static ssize_t pread_half(int fd, void *to, size_t length, uint64_t at)
{
	return kernel_real.pread(fd, to, length / 2, at);
}

START_TEST(test_a_pagemap_is_read_whole_or_not_at_all)
{
	struct kernel_ops k = kernel_real;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned char *memory = pages_new(&k, 4 * page);
	uint64_t entries[4];
	int fd = pagemap_open(&k);

	ck_assert_int_ge(fd, 0);
	memory[2 * page] = 1;
	ck_assert_int_eq(pagemap_read(&k, fd, (uintptr_t)memory, 4, entries), 0);
	ck_assert_uint_eq(entries[0] & PAGEMAP_PRESENT, 0);
	ck_assert_uint_ne(entries[2] & PAGEMAP_PRESENT, 0);
	ck_assert_int_eq(pagemap_read(&k, fd, (uintptr_t)memory + 2 * page, 1, entries), 0);
	ck_assert_uint_ne(entries[0] & PAGEMAP_PRESENT, 0);
	k.pread = pread_half;
	ck_assert_int_eq(pagemap_read(&k, fd, (uintptr_t)memory, 4, entries), -EIO);
	ck_assert_int_eq(pagemap_read(&k, -1, (uintptr_t)memory, 4, entries), -EBADF);
	k.close(fd);
	pages_free(&k, memory, 4 * page);
}
END_TEST

START_TEST(test_time_goes_forward)
{
	uint64_t before = kernel_now_ns();

	ck_assert_uint_ge(kernel_now_ns(), before);
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
	TCase *tests = tcase_create(name);

	tcase_add_checked_fixture(tests, onepage_begin, onepage_end);
	suite_add_tcase(suite, tests);
	return tests;
}

static void add_access(TCase *tests)
{
	tcase_add_test(tests, test_system_call_is_the_first_access);
	tcase_add_test(tests, test_device_is_taken_where_the_system_call_is_refused);
	tcase_add_test(tests, test_user_mode_is_the_last_access);
	tcase_add_test(tests, test_user_mode_only_tries_nothing_else);
	tcase_add_loop_test(tests, test_refusal_of_all_accesses_gives_the_useful_error, 0, 4);
	tcase_add_test(tests, test_features_that_the_kernel_lacks_are_left_out);
	tcase_add_loop_test(tests, test_fork_event_is_left_out_without_the_right_to_it, 0, 2);
	tcase_add_loop_test(tests, test_failed_negotiation_leaves_outputs_alone, 1, 5);
}

static void add_small(TCase *tests)
{
	tcase_add_test(tests, test_numbers_of_proc_are_found_by_their_key);
	tcase_add_test(tests, test_real_operations_keep_errno);
	tcase_add_test(tests, test_time_goes_forward);
	tcase_add_test(tests, test_a_kick_is_repeated_but_not_for_ever_and_hits_no_foreign_file);
	tcase_add_test(tests, test_threads_go_or_end_as_they_are_asked);
	tcase_add_test(tests, test_a_pagemap_is_read_whole_or_not_at_all);
}

int main(void)
{
	Suite *suite = suite_create("kernel");

	support_begin("test_kernel", &(struct support_needs){0});
	add_access(add_case(suite, "access"));
	add_small(add_case(suite, "small"));
	return support_run(suite);
}
