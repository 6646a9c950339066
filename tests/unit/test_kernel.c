/* SPDX-License-Identifier: MIT */
/*
 * The kernel layer against a fake kernel: which way to a userfaultfd is taken, what is asked of it, and which mechanism
 * the probe chooses or refuses, with which reason. The fake is one scratch page with a mark, and a list of what takes
 * the mark off. It counts what is open and mapped: nothing may be left behind, whichever call is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/probe.h"
#include "kernel/procfs.h"
#include "support.h"

#define ALL_FEATURES ((UFFD_FEATURE_WP_ASYNC << 1) - 1u)
#define PAGE 4096u
#define ADDRESSES (16 * PAGE)

/* What the fake kernel is like. */
struct fake {
	int system_call; /* errors of the ways, 0: works */
	int device;
	int user_mode;
	uint64_t features;
	int may_watch_forks;
	int register_errors[UFFDWP_MEMORY_COUNT];
	int loses[UFFDWP_TRIAL_COUNT]; /* the mark, by this */
	int ignores_pageout;
	int stays_protected; /* disarming does nothing */
	int huge_free;
	int swap_on;
	int uring;
	int scan;
	uint64_t refused_call; /* this one fails, counted from 1; 0: none */

	/* State. */
	enum uffdwp_memory memory;
	int armed;
	int populated;
	int open_files;
	size_t mapped_bytes;
	uint64_t calls;
	const char *text; /* of the /proc file that is open */
};

static struct fake fake;

static int refused(void)
{
	return ++fake.calls == fake.refused_call;
}

static int opened(int error)
{
	if (refused()) {
		return -EMFILE;
	}
	if (error) {
		return error;
	}
	return 100 + fake.open_files++;
}

static int fake_open_syscall(int flags)
{
	return opened(flags & UFFD_USER_MODE_ONLY ? fake.user_mode : fake.system_call);
}

static int fake_open_device(int flags)
{
	ck_assert_int_eq(flags & UFFD_USER_MODE_ONLY, 0);
	return opened(fake.device);
}

static int fake_api(int uffd, uint64_t *features)
{
	(void)uffd;
	if (refused() || (*features & ~fake.features)) {
		return -EINVAL;
	}
	if ((*features & UFFD_FEATURE_EVENT_FORK) && !fake.may_watch_forks) {
		return -EPERM;
	}
	*features = fake.features;
	return 0;
}

static int fake_register(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	(void)uffd;
	(void)start;
	ck_assert_uint_eq(length, PAGE);
	ck_assert_uint_eq(mode, UFFDIO_REGISTER_MODE_WP);
	return refused() ? -ENOMEM : fake.register_errors[fake.memory];
}

static int fake_writeprotect(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	(void)uffd;
	(void)start;
	(void)length;
	if (refused()) {
		return -ENOMEM;
	}
	if (mode & UFFDIO_WRITEPROTECT_MODE_WP) {
		fake.armed = fake.populated || !fake.loses[UFFDWP_TRIAL_UNPOPULATED];
	} else if (!fake.stays_protected) {
		fake.armed = 0;
	}
	return 0;
}

static ssize_t fake_uffd_read(int uffd, struct uffd_msg *messages, size_t count)
{
	(void)uffd;
	(void)messages;
	(void)count;
	return -EAGAIN;
}

static int fake_pagemap_scan(int pagemap, struct pm_scan_arg *arg)
{
	(void)pagemap;
	if (refused()) {
		return -ENOMEM;
	}
	arg->walk_end = arg->end;
	return fake.scan;
}

/* Addresses that nobody reads: the probe must not. */
static void *fake_mmap(void *address, size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	(void)address;
	(void)offset;
	if (fd < 0 && prot != PROT_NONE) {
		fake.memory = UFFDWP_MEMORY_ANON;
	}
	if (refused() ||
	    (fake.memory == UFFDWP_MEMORY_HUGETLB && fd >= 0 && !(flags & MAP_NORESERVE) && !fake.huge_free)) {
		*error = -ENOMEM;
		return NULL;
	}
	fake.mapped_bytes += length;
	if (prot != PROT_NONE) {
		fake.armed = 0;
		fake.populated = 0;
	}
	return (void *)(uintptr_t)ADDRESSES;
}

/* munmap() of what is mapped succeeds, always. */
static int fake_munmap(void *address, size_t length)
{
	(void)address;
	fake.mapped_bytes -= length;
	return 0;
}

static void *fake_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	(void)address;
	(void)new_length;
	(void)flags;
	if (refused()) {
		*error = -ENOMEM;
		return NULL;
	}
	/* What was mapped at the target is gone. */
	fake.mapped_bytes -= old_length;
	fake.armed = !fake.loses[UFFDWP_TRIAL_MREMAP];
	return target;
}

static int fake_madvise(void *address, size_t length, int advice)
{
	enum uffdwp_trial trial = advice == MADV_PAGEOUT ? UFFDWP_TRIAL_SWAP : UFFDWP_TRIAL_DONTNEED;

	(void)address;
	(void)length;
	if (refused()) {
		return -EINVAL;
	}
	if (advice == MADV_PAGEOUT && fake.ignores_pageout) {
		return 0;
	}
	fake.populated = 0;
	if (fake.loses[trial]) {
		fake.armed = 0;
	}
	return 0;
}

static int fake_memfd_create(const char *name, unsigned flags)
{
	(void)name;
	fake.memory = flags & MFD_HUGETLB ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM;
	return opened(0);
}

static int fake_open(const char *path, int flags, unsigned mode)
{
	(void)flags;
	(void)mode;
	fake.text = "";
	if (strcmp(path, "/proc/meminfo") == 0) {
		fake.text = "MemTotal: 1 kB\nHugePages_Free:  3\nHugepagesize:  4 kB\n";
	} else if (strcmp(path, "/proc/swaps") == 0) {
		fake.text = fake.swap_on ? "Filename Type\n/swapfile file\n" : "Filename Type\n";
	} else if (strcmp(path, "/proc/self/status") == 0) {
		fake.text = "Name: x\nNoSeccomp: 7\nSeccomp:\t2\n";
	} else if (strcmp(path, "/proc/sys/vm/unprivileged_userfaultfd") == 0) {
		fake.text = "1\n";
	}
	return opened(0);
}

static int fake_close(int fd)
{
	ck_assert_int_ge(fd, 100);
	fake.open_files--;
	return 0;
}

static int fake_ftruncate(int fd, uint64_t length)
{
	(void)fd;
	(void)length;
	return refused() ? -ENOSPC : 0;
}

static int fake_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	(void)fd;
	(void)offset;
	(void)length;
	ck_assert_int_eq(mode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	if (refused()) {
		return -EPERM;
	}
	if (fake.loses[UFFDWP_TRIAL_PUNCH]) {
		fake.armed = 0;
	}
	fake.populated = 0;
	return 0;
}

/* In small portions: a reader has to go on. */
static ssize_t fake_read(int fd, void *buffer, size_t length)
{
	size_t portion = strnlen(fake.text, length < 10 ? length : 10);

	(void)fd;
	if (refused()) {
		return -EIO;
	}
	memcpy(buffer, fake.text, portion);
	fake.text += portion;
	return (ssize_t)portion;
}

/* Of pagemap: the entry of the scratch page. */
static ssize_t fake_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	uint64_t entry = ((uint64_t)fake.populated << 63) | (fake.armed ? PAGEMAP_UFFD_WP : 0);

	(void)fd;
	ck_assert_uint_eq(length, sizeof(entry));
	ck_assert_uint_eq(offset, ADDRESSES / PAGE * sizeof(entry));
	if (refused()) {
		return -EIO;
	}
	memcpy(buffer, &entry, sizeof(entry));
	return (ssize_t)length;
}

static ssize_t fake_read_self(void *buffer, const void *address, size_t length)
{
	(void)buffer;
	(void)address;
	return refused() ? -EPERM : (ssize_t)length;
}

static int fake_poll(int fd, short events, int timeout_ms)
{
	(void)fd;
	(void)events;
	(void)timeout_ms;
	usleep(100);
	return 0;
}

static int fake_uring_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)entries;
	(void)ring;
	(void)flags;
	return fake.uring;
}

static int fake_try_write(void *address)
{
	(void)address;
	if (refused() || fake.armed) {
		return -EFAULT;
	}
	fake.populated = 1;
	return 0;
}

static const struct kernel_ops fake_ops = {
        .uffd_open_syscall = fake_open_syscall,
        .uffd_open_device = fake_open_device,
        .uffd_api = fake_api,
        .uffd_register = fake_register,
        .uffd_writeprotect = fake_writeprotect,
        .uffd_read = fake_uffd_read,
        .pagemap_scan = fake_pagemap_scan,
        .mmap = fake_mmap,
        .munmap = fake_munmap,
        .mremap = fake_mremap,
        .madvise = fake_madvise,
        .memfd_create = fake_memfd_create,
        .open = fake_open,
        .close = fake_close,
        .ftruncate = fake_ftruncate,
        .fallocate = fake_fallocate,
        .read = fake_read,
        .pread = fake_pread,
        .read_self = fake_read_self,
        .poll = fake_poll,
        .uring_init = fake_uring_init,
        .try_write = fake_try_write,
};

/* A kernel that can all; anonymous memory is as everywhere: MADV_DONTNEED takes the mark. */
static void fake_begin(void)
{
	fake = (struct fake){.features = ALL_FEATURES, .huge_free = 1, .swap_on = 1, .uring = -EPERM};
}

static void fake_end(void)
{
	ck_assert_int_eq(fake.open_files, 0);
	ck_assert_uint_eq(fake.mapped_bytes, 0);
}

/* --------------------------------------------------------------------------------------------------------- ways -- */

static int open_way(int user_mode_only, enum kernel_access *access, int errors[KERNEL_ACCESS_COUNT])
{
	int uffd = kernel_uffd_open(&fake_ops, user_mode_only, access, errors);

	if (uffd >= 0) {
		fake_close(uffd);
	}
	return uffd;
}

START_TEST(test_system_call_is_the_first_way)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	ck_assert_int_ge(open_way(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_SYSCALL);
	ck_assert_uint_eq(fake.calls, 1);
}
END_TEST

START_TEST(test_device_is_taken_where_the_system_call_is_refused)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	fake.system_call = -EPERM;
	ck_assert_int_ge(open_way(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_DEVICE);
	ck_assert_int_eq(errors[KERNEL_ACCESS_SYSCALL], -EPERM);
}
END_TEST

START_TEST(test_user_mode_is_the_last_way)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	fake.system_call = -EPERM;
	fake.device = -EACCES;
	ck_assert_int_ge(open_way(0, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_USER_MODE);
	ck_assert_int_eq(errors[KERNEL_ACCESS_DEVICE], -EACCES);
}
END_TEST

START_TEST(test_user_mode_only_tries_nothing_else)
{
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	ck_assert_int_ge(open_way(1, &access, errors), 0);
	ck_assert_int_eq(access, KERNEL_ACCESS_USER_MODE);
	ck_assert_uint_eq(fake.calls, 1);
	fake.user_mode = -EINVAL;
	ck_assert_int_eq(open_way(1, &access, errors), -EINVAL);
}
END_TEST

START_TEST(test_refusal_of_all_ways_gives_the_telling_error)
{
	static const struct {
		int system_call;
		int device;
		int told;
	} cases[] = {{-ENOSYS, -ENOENT, -ENOSYS},
	             {-EPERM, -ENOENT, -EPERM},
	             {-EPERM, -EACCES, -EACCES},
	             {-EMFILE, -EACCES, -EMFILE}};
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int errors[KERNEL_ACCESS_COUNT];

	fake.system_call = cases[_i].system_call;
	fake.device = cases[_i].device;
	fake.user_mode = cases[_i].system_call;
	ck_assert_int_eq(open_way(0, &access, errors), cases[_i].told);
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

	fake.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS;
	uffd = kernel_uffd_new(&fake_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_UNPOPULATED,
	                       &granted);
	ck_assert_int_ge(uffd, 0);
	ck_assert_uint_eq(granted, UFFD_FEATURE_SIGBUS);
	fake_close(uffd);
}
END_TEST

START_TEST(test_fork_event_is_left_out_without_the_right_to_it)
{
	uint64_t granted = 0;
	int uffd;

	fake.may_watch_forks = _i;
	uffd = kernel_uffd_new(&fake_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP,
	                       &granted);
	ck_assert_int_ge(uffd, 0);
	ck_assert_uint_eq(granted, UFFD_FEATURE_EVENT_REMAP | (_i ? UFFD_FEATURE_EVENT_FORK : 0u));
	fake_close(uffd);
}
END_TEST

START_TEST(test_failed_negotiation_leaves_outputs_alone)
{
	uint64_t granted = 77;

	fake.refused_call = (uint64_t)_i;
	ck_assert_int_lt(kernel_uffd_new(&fake_ops, KERNEL_ACCESS_SYSCALL, UFFD_FEATURE_SIGBUS, &granted), 0);
	ck_assert_uint_eq(granted, 77);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- probe -- */

static struct uffdwp_probe_memory probe(enum uffdwp_memory memory)
{
	struct uffdwp_probe_memory found;

	ck_assert_int_eq(probe_memory(&fake_ops, KERNEL_ACCESS_SYSCALL, memory, &found), 0);
	return found;
}

static void expect_reason(const struct uffdwp_probe_memory *found, const char *part)
{
	ck_assert_uint_eq(found->mechanism, UFFDWP_MECHANISM_AUTO);
	ck_assert_msg(strstr(found->reason, part) != NULL, "'%s' does not say '%s'", found->reason, part);
}

/* INV-TRIED */
START_TEST(test_full_kernel_gives_markers_for_all_memory)
{
	struct uffdwp_probe_memory found;

	fake.loses[UFFDWP_TRIAL_DONTNEED] = _i == UFFDWP_MEMORY_ANON;
	found = probe((enum uffdwp_memory)_i);
	ck_assert_int_eq(found.registered, 0);
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MARKER);
	ck_assert_uint_eq(found.inline_works, 1);
	ck_assert_uint_eq(found.page_bytes, PAGE);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_KEPT);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_MREMAP], UFFDWP_ANSWER_KEPT);
	ck_assert_int_ne(found.reason[0], '\0');
}
END_TEST

START_TEST(test_kernel_without_markers_refuses_shared_memory_with_a_reason)
{
	struct uffdwp_probe_memory found;

	fake.register_errors[_i] = -EINVAL;
	found = probe((enum uffdwp_memory)_i);
	ck_assert_int_eq(found.registered, -EINVAL);
	expect_reason(&found, "5.19");
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_UNTRIED);
	ck_assert_int_ne(found.reasons[UFFDWP_TRIAL_POPULATED][0], '\0');
}
END_TEST

/* INV-TRIED: accepted by the kernel, seen to lose marks, hence not taken. */
START_TEST(test_mark_that_is_lost_is_not_relied_on)
{
	static const enum uffdwp_trial trials[] = {UFFDWP_TRIAL_UNPOPULATED, UFFDWP_TRIAL_DONTNEED, UFFDWP_TRIAL_PUNCH,
	                                           UFFDWP_TRIAL_SWAP};
	struct uffdwp_probe_memory found;

	fake.loses[trials[_i]] = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[trials[_i]], UFFDWP_ANSWER_LOST);
	expect_reason(&found, "lost");
}
END_TEST

START_TEST(test_anonymous_memory_needs_marks_on_unpopulated_pages)
{
	struct uffdwp_probe_memory found;

	fake.loses[UFFDWP_TRIAL_UNPOPULATED] = 1;
	found = probe(UFFDWP_MEMORY_ANON);
	expect_reason(&found, "touched");
}
END_TEST

START_TEST(test_trial_by_swap_is_left_out_without_swap)
{
	struct uffdwp_probe_memory found;

	fake.swap_on = 0;
	fake.loses[UFFDWP_TRIAL_SWAP] = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_UNTRIED);
	ck_assert_ptr_nonnull(strstr(found.reasons[UFFDWP_TRIAL_SWAP], "swapon"));
	ck_assert_uint_eq(found.mechanism, UFFDWP_MECHANISM_MARKER);
}
END_TEST

START_TEST(test_page_that_stays_in_memory_proves_nothing_about_swap)
{
	struct uffdwp_probe_memory found;

	fake.ignores_pageout = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_SWAP], UFFDWP_ANSWER_UNTRIED);
	ck_assert_int_ne(found.reasons[UFFDWP_TRIAL_SWAP][0], '\0');
}
END_TEST

START_TEST(test_missing_huge_pages_are_a_reason_that_says_how)
{
	struct uffdwp_probe_memory found;

	fake.huge_free = 0;
	found = probe(UFFDWP_MEMORY_HUGETLB);
	ck_assert_int_eq(found.registered, 0);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_UNTRIED);
	expect_reason(&found, "/proc/sys/vm/nr_hugepages");
}
END_TEST

START_TEST(test_nothing_is_tried_that_could_hang)
{
	struct uffdwp_probe_memory found;

	fake.features &= ~(uint64_t)UFFD_FEATURE_SIGBUS;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.inline_works, 0);
	expect_reason(&found, "SIGBUS");
}
END_TEST

/* EFAULT alone does not prove a mark. */
START_TEST(test_page_that_cannot_be_disarmed_is_a_failed_trial)
{
	struct uffdwp_probe_memory found;

	fake.stays_protected = 1;
	found = probe(UFFDWP_MEMORY_SHMEM);
	ck_assert_uint_eq(found.answers[UFFDWP_TRIAL_POPULATED], UFFDWP_ANSWER_FAILED);
	ck_assert_uint_eq(found.inline_works, 0);
	expect_reason(&found, "failed");
}
END_TEST

START_TEST(test_no_userfaultfd_is_an_answer_and_not_an_error)
{
	struct uffdwp_probe_report report = {.sz = sizeof(report)};

	fake.system_call = fake.user_mode = -ENOSYS;
	fake.device = -ENOENT;
	ck_assert_int_eq(probe_run(&fake_ops, &report), 0);
	ck_assert_uint_eq(report.sz, sizeof(report));
	ck_assert_int_eq(report.access_chosen, -1);
	ck_assert_int_eq(report.access[UFFDWP_ACCESS_DEVICE], -ENOENT);
	for (int memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		ck_assert_int_eq(report.memory[memory].registered, -ENOSYS);
		expect_reason(&report.memory[memory], "userfaultfd");
	}
}
END_TEST

START_TEST(test_report_tells_what_stands_around)
{
	struct uffdwp_probe_report report = {.sz = sizeof(report)};

	fake.scan = -ENOTTY;
	fake.device = -EACCES;
	ck_assert_int_eq(probe_run(&fake_ops, &report), 0);
	ck_assert_int_eq(report.access_chosen, UFFDWP_ACCESS_SYSCALL);
	ck_assert_int_eq(report.access[UFFDWP_ACCESS_DEVICE], -EACCES);
	ck_assert_uint_eq(report.features, ALL_FEATURES);
	ck_assert_int_eq(report.sysctl_unprivileged, 1);
	ck_assert_int_eq(report.seccomp, 2);
	ck_assert_int_eq(report.uring, -EPERM);
	ck_assert_int_eq(report.pagemap_scan, -ENOTTY);
	ck_assert_int_eq(report.pagemap_bit57, 1);
	ck_assert_uint_eq(report.swap_on, 1);
	ck_assert_uint_eq(report.huge_pages_free, 3);
}
END_TEST

START_TEST(test_unknown_memory_is_refused)
{
	struct uffdwp_probe_memory found = {.page_bytes = 77};

	ck_assert_int_eq(probe_memory(&fake_ops, KERNEL_ACCESS_SYSCALL, UFFDWP_MEMORY_COUNT, &found), -EINVAL);
	ck_assert_uint_eq(found.page_bytes, 77);
}
END_TEST

START_TEST(test_probe_leaves_nothing_behind_whichever_call_is_refused)
{
	struct uffdwp_probe_report report = {.sz = sizeof(report)};
	uint64_t calls;

	ck_assert_int_eq(probe_run(&fake_ops, &report), 0);
	calls = fake.calls;
	for (uint64_t call = 1; call <= calls; call++) {
		fake_begin();
		fake.refused_call = call;
		ck_assert_int_eq(probe_run(&fake_ops, &report), 0);
		fake_end();
	}
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- small -- */

START_TEST(test_numbers_of_proc_are_found_by_their_key)
{
	uint64_t number = 77;

	ck_assert_int_eq(procfs_number(&fake_ops, "/proc/self/status", "Seccomp:", &number), 0);
	ck_assert_uint_eq(number, 2);
	ck_assert_int_eq(procfs_number(&fake_ops, "/proc/self/status", "Name:", &number), -ENODATA);
	ck_assert_int_eq(procfs_number(&fake_ops, "/proc/self/status", "Missing:", &number), -ENODATA);
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
	ck_assert_int_eq((int)kernel_real.read_self(&byte, (void *)8, 1), -EFAULT);
	ck_assert_int_eq(kernel_real.try_write((void *)8), -EFAULT);
	ck_assert_int_eq(kernel_real.poll(-1, 0, 0), 0);
	ck_assert_int_eq(errno, 77);
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

	tcase_add_checked_fixture(tests, fake_begin, fake_end);
	suite_add_tcase(suite, tests);
	return tests;
}

static void add_access(TCase *tests)
{
	tcase_add_test(tests, test_system_call_is_the_first_way);
	tcase_add_test(tests, test_device_is_taken_where_the_system_call_is_refused);
	tcase_add_test(tests, test_user_mode_is_the_last_way);
	tcase_add_test(tests, test_user_mode_only_tries_nothing_else);
	tcase_add_loop_test(tests, test_refusal_of_all_ways_gives_the_telling_error, 0, 4);
	tcase_add_test(tests, test_features_that_the_kernel_lacks_are_left_out);
	tcase_add_loop_test(tests, test_fork_event_is_left_out_without_the_right_to_it, 0, 2);
	tcase_add_loop_test(tests, test_failed_negotiation_leaves_outputs_alone, 1, 5);
}

static void add_probe(TCase *tests)
{
	tcase_add_loop_test(tests, test_full_kernel_gives_markers_for_all_memory, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_kernel_without_markers_refuses_shared_memory_with_a_reason, 0,
	                    UFFDWP_MEMORY_ANON);
	tcase_add_loop_test(tests, test_mark_that_is_lost_is_not_relied_on, 0, 4);
	tcase_add_test(tests, test_anonymous_memory_needs_marks_on_unpopulated_pages);
	tcase_add_test(tests, test_trial_by_swap_is_left_out_without_swap);
	tcase_add_test(tests, test_page_that_stays_in_memory_proves_nothing_about_swap);
	tcase_add_test(tests, test_missing_huge_pages_are_a_reason_that_says_how);
	tcase_add_test(tests, test_nothing_is_tried_that_could_hang);
	tcase_add_test(tests, test_page_that_cannot_be_disarmed_is_a_failed_trial);
	tcase_add_test(tests, test_no_userfaultfd_is_an_answer_and_not_an_error);
	tcase_add_test(tests, test_report_tells_what_stands_around);
	tcase_add_test(tests, test_unknown_memory_is_refused);
	tcase_add_test(tests, test_probe_leaves_nothing_behind_whichever_call_is_refused);
}

static void add_small(TCase *tests)
{
	tcase_add_test(tests, test_numbers_of_proc_are_found_by_their_key);
	tcase_add_test(tests, test_real_operations_keep_errno);
	tcase_add_test(tests, test_time_goes_forward);
}

int main(void)
{
	Suite *suite = suite_create("kernel");

	support_begin("test_kernel", &(struct support_needs){0});
	add_access(add_case(suite, "access"));
	add_probe(add_case(suite, "probe"));
	add_small(add_case(suite, "small"));
	return support_run(suite);
}
