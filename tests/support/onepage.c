/* SPDX-License-Identifier: MIT */
/* See onepage.h. Threads: mremap() is called in one of its own while its caller waits; nothing else is shared. */
#include "onepage.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "support.h"

#define PAGE ONEPAGE_BYTES
#define ADDRESSES ((uint64_t)16 * PAGE)

struct onepage onepage;

static int refused(void)
{
	return ++onepage.calls == onepage.refused_call;
}

static int opened(int error)
{
	if (refused()) {
		return -EMFILE;
	}
	if (error) {
		return error;
	}
	return 100 + onepage.open_files++;
}

static int fake_open_syscall(int flags)
{
	return opened(flags & UFFD_USER_MODE_ONLY ? onepage.user_mode : onepage.system_call);
}

static int fake_open_device(int flags)
{
	ck_assert_int_eq(flags & UFFD_USER_MODE_ONLY, 0);
	return opened(onepage.device);
}

static int fake_api(int uffd, uint64_t *features)
{
	(void)uffd;
	if (refused() || (*features & ~onepage.features)) {
		return -EINVAL;
	}
	if ((*features & UFFD_FEATURE_EVENT_FORK) && !onepage.may_watch_forks) {
		return -EPERM;
	}
	onepage.granted = *features;
	*features = onepage.features;
	return 0;
}

static int register_error(uint64_t modes)
{
	if ((modes & UFFDIO_REGISTER_MODE_WP) && onepage.wp_errors[onepage.memory]) {
		return onepage.wp_errors[onepage.memory];
	}
	return modes & UFFDIO_REGISTER_MODE_MINOR ? onepage.minor_error : 0;
}

static int fake_register(int uffd, uint64_t start, uint64_t length, uint64_t modes)
{
	(void)uffd;
	(void)start;
	if (length != PAGE && length != ONEPAGE_WIDE_BYTES) { /* there is one page: no tables to be moved */
		return -EINVAL;
	}
	ck_assert(onepage.memory != UFFDWP_MEMORY_ANON || !(modes & UFFDIO_REGISTER_MODE_MINOR));
	if (refused()) {
		return -ENOMEM;
	}
	if (register_error(modes)) {
		return register_error(modes);
	}
	onepage.modes = modes;
	return 0;
}

static int arms_empty_entries(void)
{
	int granted = onepage.memory != UFFDWP_MEMORY_ANON || (onepage.granted & UFFD_FEATURE_WP_UNPOPULATED);

	return granted && !onepage.loses[UFFDWP_TRIAL_UNPOPULATED];
}

static int fake_writeprotect(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	(void)uffd;
	(void)start;
	(void)length;
	if (refused()) {
		return -ENOMEM;
	}
	if (!(onepage.modes & UFFDIO_REGISTER_MODE_WP)) {
		return -ENOENT;
	}
	if (mode & UFFDIO_WRITEPROTECT_MODE_WP) {
		onepage.armed = onepage.populated || arms_empty_entries();
	} else if (!onepage.stays_protected) {
		onepage.armed = 0;
	}
	return 0;
}

/* The entry is filled, protected or not. */
static void fill(int wp)
{
	onepage.populated = 1;
	onepage.content = 1;
	onepage.armed = wp && !onepage.forgets_wp_in_fills;
}

static int fake_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	int wp = (mode & UFFDIO_COPY_MODE_WP) != 0;

	(void)uffd;
	ck_assert_uint_eq(to, ADDRESSES);
	ck_assert_uint_eq(length, PAGE);
	ck_assert_ptr_nonnull(from);
	if (refused()) {
		return -ENOMEM;
	}
	if (wp && onepage.copy_wp_error) {
		return onepage.copy_wp_error;
	}
	if (onepage.populated || onepage.content) {
		return -EEXIST;
	}
	fill(wp);
	return 0;
}

static int fake_zeropage(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	(void)uffd;
	(void)start;
	(void)length;
	(void)mode;
	if (refused()) {
		return -ENOMEM;
	}
	if (onepage.memory == UFFDWP_MEMORY_HUGETLB) {
		return -EINVAL;
	}
	if (onepage.populated || onepage.content || (onepage.armed && onepage.memory == UFFDWP_MEMORY_ANON)) {
		return -EEXIST;
	}
	fill(0);
	return 0;
}

static int64_t fake_continue(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	int wp = (mode & UFFDIO_CONTINUE_MODE_WP) != 0;

	(void)uffd;
	(void)start;
	if (refused()) {
		return -ENOMEM;
	}
	if (wp && onepage.continue_wp_error) {
		return onepage.continue_wp_error;
	}
	if (!onepage.content) {
		return -EFAULT;
	}
	if (onepage.populated) {
		return -EEXIST;
	}
	fill(wp);
	return (int64_t)length;
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
	return onepage.scan;
}

/* Addresses that must not be read: the probe must not either. */
static void *fake_mmap(void *address, size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	int scratch = (prot & PROT_WRITE) != 0;

	(void)address;
	(void)offset;
	if (fd < 0 && scratch) {
		onepage.memory = UFFDWP_MEMORY_ANON;
	}
	if (refused() ||
	    (onepage.memory == UFFDWP_MEMORY_HUGETLB && fd >= 0 && !(flags & MAP_NORESERVE) && !onepage.huge_free)) {
		*error = -ENOMEM;
		return NULL;
	}
	onepage.mapped_bytes += length;
	if (scratch) {
		onepage.modes = 0;
		onepage.armed = onepage.populated = onepage.content = onepage.read_only = 0;
	}
	return (void *)(uintptr_t)ADDRESSES;
}

static void *fake_mmap_unlocked(size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	return fake_mmap(NULL, length, prot, flags, fd, offset, error);
}

/* munmap() of what is mapped succeeds, always. */
static int fake_munmap(void *address, size_t length)
{
	(void)address;
	onepage.mapped_bytes -= length;
	return 0;
}

static void *fake_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	(void)address;
	(void)new_length;
	(void)flags;
	/* What was mapped at the target is gone, also where it is refused then. */
	onepage.mapped_bytes -= old_length;
	if (refused()) {
		*error = -ENOMEM;
		return NULL;
	}
	onepage.armed = onepage.armed && !onepage.loses[UFFDWP_TRIAL_MREMAP];
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
	if (advice == MADV_PAGEOUT && onepage.ignores_pageout) {
		return 0;
	}
	onepage.populated = 0;
	if (trial == UFFDWP_TRIAL_DONTNEED && onepage.memory == UFFDWP_MEMORY_ANON) {
		onepage.content = 0;
		onepage.armed = 0;
	}
	if (onepage.loses[trial]) {
		onepage.armed = 0;
	}
	return 0;
}

static int fake_mprotect(void *address, size_t length, int prot)
{
	(void)address;
	(void)length;
	if (refused()) {
		return -ENOMEM;
	}
	onepage.read_only = !(prot & PROT_WRITE) && !onepage.ignores_mprotect;
	return 0;
}

static int fake_memfd_create(const char *name, unsigned flags)
{
	(void)name;
	onepage.memory = flags & MFD_HUGETLB ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM;
	return opened(0);
}

static int fake_open(const char *path, int flags, unsigned mode)
{
	(void)flags;
	(void)mode;
	onepage.text = "";
	if (strcmp(path, "/proc/meminfo") == 0) {
		onepage.text = "MemTotal: 1 kB\nHugePages_Free:  3\nHugepagesize:  4 kB\n";
	} else if (strcmp(path, "/proc/swaps") == 0) {
		onepage.text = onepage.swap_on ? "Filename Type\n/swapfile file\n" : "Filename Type\n";
	} else if (strcmp(path, "/proc/self/status") == 0) {
		onepage.text = "Name: x\nNoSeccomp: 7\nSeccomp:\t2\n";
	} else if (strcmp(path, "/proc/sys/vm/max_map_count") == 0) {
		onepage.text = "65530\n";
	} else if (strcmp(path, "/proc/sys/vm/unprivileged_userfaultfd") == 0) {
		onepage.text = "1\n";
	}
	return opened(0);
}

static int fake_close(int fd)
{
	ck_assert_int_ge(fd, 100);
	onepage.open_files--;
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
	if (onepage.loses[UFFDWP_TRIAL_PUNCH]) {
		onepage.armed = 0;
	}
	onepage.populated = 0;
	onepage.content = 0;
	return 0;
}

/* In small portions: a reader has to go on. */
static ssize_t fake_read(int fd, void *buffer, size_t length)
{
	size_t portion = strnlen(onepage.text, length < 10 ? length : 10);

	(void)fd;
	if (refused()) {
		return -EIO;
	}
	memcpy(buffer, onepage.text, portion);
	onepage.text += portion;
	return (ssize_t)portion;
}

/* Of pagemap: the entry of the scratch page. */
static ssize_t fake_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	uint64_t entry = ((uint64_t)onepage.populated << 63) | (onepage.armed ? PAGEMAP_UFFD_WP : 0);

	(void)fd;
	ck_assert_uint_eq(length, sizeof(entry));
	ck_assert_uint_eq(offset, ADDRESSES / PAGE * sizeof(entry));
	if (refused()) {
		return -EIO;
	}
	memcpy(buffer, &entry, sizeof(entry));
	return (ssize_t)length;
}

/* An access by a system call, on a userfaultfd with UFFD_FEATURE_SIGBUS. */
static int access_error(int write)
{
	uint64_t comes = onepage.content ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING;

	if (write && onepage.read_only) {
		return -EFAULT;
	}
	if (!onepage.populated && (onepage.modes & comes) && !onepage.misses_empty_entries) {
		return -EFAULT;
	}
	onepage.populated = 1;
	onepage.content = 1;
	return write && onepage.armed ? -EFAULT : 0;
}

static ssize_t fake_read_self(void *buffer, const void *address, size_t length)
{
	int error = refused() ? -EPERM : access_error(0);

	(void)buffer;
	(void)address;
	return error ? error : (ssize_t)length;
}

static int fake_poll(int fd, short events, int timeout_ms)
{
	(void)fd;
	(void)events;
	(void)timeout_ms;
	sched_yield();
	return 0;
}

static int fake_uring_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)entries;
	(void)ring;
	(void)flags;
	return onepage.uring;
}

/* No process is made: what is asked of one fails. */
static int fake_fork(enum kernel_fork how)
{
	(void)how;
	return -EAGAIN;
}

static int fake_try_write(void *address)
{
	(void)address;
	return refused() ? -EFAULT : access_error(1);
}

const struct kernel_ops onepage_ops = {
        .uffd_open_syscall = fake_open_syscall,
        .uffd_open_device = fake_open_device,
        .uffd_api = fake_api,
        .uffd_register = fake_register,
        .uffd_writeprotect = fake_writeprotect,
        .uffd_copy = fake_copy,
        .uffd_zeropage = fake_zeropage,
        .uffd_continue = fake_continue,
        .uffd_read = fake_uffd_read,
        .uffd_read_shared = fake_uffd_read,
        .pagemap_scan = fake_pagemap_scan,
        .mmap = fake_mmap,
        .mmap_unlocked = fake_mmap_unlocked,
        .munmap = fake_munmap,
        .mremap = fake_mremap,
        .madvise = fake_madvise,
        .mprotect = fake_mprotect,
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
        .fork = fake_fork,
        .try_write = fake_try_write,
};

void onepage_begin(void)
{
	onepage = (struct onepage){.features = ONEPAGE_FEATURES, .huge_free = 1, .swap_on = 1, .uring = -EPERM};
}

void onepage_end(void)
{
	ck_assert_int_eq(onepage.open_files, 0);
	ck_assert_uint_eq(onepage.mapped_bytes, 0);
}
