/* SPDX-License-Identifier: MIT */
/*
 * The real kernel as struct kernel_ops.
 *
 * Idea: each operation is one system call and nothing more. What glibc would do beside it is unwanted here: its
 * wrappers of blocking calls are cancellation points, and all of them report through errno, which a signal handler
 * must leave alone. So the calls are made by number through one function that keeps errno and answers -errno. The
 * mapping calls (mmap, munmap, mremap) go through glibc, so that sanitizers learn of the memory.
 *
 * Threads: any; there is no state.
 *
 * Never: allocate, retry (an -EINTR is the caller's to judge), log.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/signals.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"

/* File offsets and addresses travel as single registers. */
_Static_assert(sizeof(long) == 8, "a 64-bit kernel interface is assumed");

static long real_answer(long result, int saved_errno)
{
	if (result != -1)
		return result;
	result = -errno;
	errno = saved_errno;
	return result;
}

/* errno is read before the call: the order of an argument list would not promise it. */
#define CALL(...)                                                                                                      \
	({                                                                                                             \
		int call_errno = errno;                                                                                \
		real_answer(syscall(__VA_ARGS__), call_errno);                                                         \
	})

static int real_uffd_open_syscall(int flags)
{
	return (int)CALL(SYS_userfaultfd, flags);
}

static int real_open(const char *path, int flags, unsigned mode)
{
	return (int)CALL(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int real_openat(int folder, const char *path, int flags, unsigned mode)
{
	return (int)CALL(SYS_openat, folder, path, flags, mode);
}

static int real_dup(int fd, int least)
{
	int copy = (int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, least);

	if (least && (copy == -EINVAL || copy == -EMFILE)) /* the limit of descriptors is lower, or reached there */
		copy = (int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
	return copy;
}

static int real_change_flags(int fd, int on, int off)
{
	long flags = CALL(SYS_fcntl, fd, F_GETFL, 0);

	return flags < 0 ? (int)flags : (int)CALL(SYS_fcntl, fd, F_SETFL, (flags | on) & ~(long)off);
}

static int real_access_mode(int fd)
{
	long flags = CALL(SYS_fcntl, fd, F_GETFL);

	return flags < 0 ? (int)flags : (int)(flags & O_ACCMODE);
}

static int real_tag(int fd, int tag)
{
	return (int)CALL(SYS_fcntl, fd, F_SETSIG, tag);
}

static int real_tagged(int fd)
{
	return (int)CALL(SYS_fcntl, fd, F_GETSIG, 0);
}

static int real_close(int fd)
{
	return (int)CALL(SYS_close, fd);
}

static int real_uffd_open_device(int flags)
{
	int device = real_open("/dev/userfaultfd", O_RDWR | O_CLOEXEC, 0);
	int uffd;

	if (device < 0)
		return device;
	uffd = (int)CALL(SYS_ioctl, device, USERFAULTFD_IOC_NEW, (long)flags);
	real_close(device);
	return uffd;
}

static int real_uffd_api(int uffd, uint64_t *features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = *features};
	int error = (int)CALL(SYS_ioctl, uffd, UFFDIO_API, &api);

	if (error == 0)
		*features = api.features;
	return error;
}

static int real_uffd_register(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_register arg = {.range = {.start = start, .len = length}, .mode = mode};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_REGISTER, &arg);
}

static int real_uffd_unregister(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_range arg = {.start = start, .len = length};
	int error = (int)CALL(SYS_ioctl, uffd, UFFDIO_UNREGISTER, &arg);

	/* The kernel wakes threads that wait for missing pages, and leaves those asleep that wait at a wp bit
	 * (fs/userfaultfd.c, userfaultfd_unregister(), seen on Linux 6.18). */
	if (!error)
		(void)CALL(SYS_ioctl, uffd, UFFDIO_WAKE, &arg);
	return error;
}

static int real_uffd_writeprotect(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_writeprotect arg = {.range = {.start = start, .len = length}, .mode = mode};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_WRITEPROTECT, &arg);
}

static int real_uffd_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	struct uffdio_copy arg = {.dst = to, .src = (uintptr_t)from, .len = length, .mode = mode};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_COPY, &arg);
}

static int real_uffd_zeropage(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_zeropage arg = {.range = {.start = start, .len = length}, .mode = mode};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_ZEROPAGE, &arg);
}

static int64_t real_uffd_continue(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_continue arg = {.range = {.start = start, .len = length}, .mode = mode};
	int64_t error = CALL(SYS_ioctl, uffd, UFFDIO_CONTINUE, &arg);

	return error && arg.mapped <= 0 ? error : arg.mapped;
}

static int real_uffd_poison(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffdio_poison arg = {.range = {.start = start, .len = length}, .mode = mode};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_POISON, &arg);
}

static int real_uffd_wake(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_range arg = {.start = start, .len = length};

	return (int)CALL(SYS_ioctl, uffd, UFFDIO_WAKE, &arg);
}

static ssize_t real_read(int fd, void *buffer, size_t length)
{
	return CALL(SYS_read, fd, buffer, length);
}

static ssize_t real_write(int fd, const void *buffer, size_t length)
{
	return CALL(SYS_write, fd, buffer, length);
}

static ssize_t real_uffd_read(int uffd, struct uffd_msg *messages, size_t count)
{
	return real_read(uffd, messages, count * sizeof *messages);
}

/* 1: userfaultfds of this kernel do not know RWF_NOWAIT, or a seccomp filter does not know the call. */
static _Atomic int real_no_nowait;

static ssize_t real_uffd_read_shared(int uffd, struct uffd_msg *messages, size_t count)
{
	struct iovec part = {messages, count * sizeof *messages};
	ssize_t got = -EOPNOTSUPP;

	if (!atomic_load_explicit(&real_no_nowait, memory_order_relaxed))
		got = CALL(SYS_preadv2, uffd, &part, 1L, -1L, -1L, (long)RWF_NOWAIT); /* both halves: no position */
	if (got != -EOPNOTSUPP && got != -ENOSYS && got != -EPERM)
		return got;
	atomic_store_explicit(&real_no_nowait, 1, memory_order_relaxed);
	int error = real_change_flags(uffd, O_NONBLOCK, 0);

	return error < 0 ? error : real_uffd_read(uffd, messages, count);
}

static int real_pagemap_scan(int pagemap, struct pm_scan_arg *arg)
{
	return (int)CALL(SYS_ioctl, pagemap, PAGEMAP_SCAN, arg);
}

static void *real_mapped(void *address, int saved_errno, int *error)
{
	if (address != MAP_FAILED)
		return address;
	*error = -errno;
	errno = saved_errno;
	return NULL;
}

static void *real_mmap(void *address, size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	int saved_errno = errno;

	return real_mapped(mmap(address, length, prot, flags, fd, (off_t)offset), saved_errno, error);
}

/* Nothing is populated where no access is allowed, and what is not locked any more is not when access is given. */
static void *real_mmap_unlocked(size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	int saved_errno = errno;
	void *address = real_mapped(mmap(NULL, length, PROT_NONE, flags, fd, (off_t)offset), saved_errno, error);

	if (!address)
		return NULL;
	CALL(SYS_munlock, address, length);
	*error = prot == PROT_NONE ? 0 : (int)CALL(SYS_mprotect, address, length, prot);
	if (!*error)
		return address;
	munmap(address, length);
	errno = saved_errno;
	/* A filter refuses it, or memory is scarce: the second finds out. */
	return real_mmap(NULL, length, prot, flags, fd, offset, error);
}

static int real_munmap(void *address, size_t length)
{
	int saved_errno = errno;

	return (int)real_answer(munmap(address, length), saved_errno);
}

static void *real_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	int saved_errno = errno;

	return real_mapped(mremap(address, old_length, new_length, flags, target), saved_errno, error);
}

static int real_mincore(void *address, size_t length, unsigned char *pages)
{
	return (int)CALL(SYS_mincore, address, length, pages);
}

static int real_madvise(void *address, size_t length, int advice)
{
	return (int)CALL(SYS_madvise, address, length, advice);
}

static int real_cachestat(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted)
{
	struct cachestat_range_now range = {.off = offset, .len = length};
	struct cachestat_now found = {0};
	int error = (int)CALL(SYS_CACHESTAT_NOW, fd, &range, &found, 0u);

	if (error == 0) {
		*cached = found.nr_cache;
		*evicted = found.nr_evicted;
	}
	return error;
}

static int real_mprotect(void *address, size_t length, int prot)
{
	return (int)CALL(SYS_mprotect, address, length, prot);
}

static int real_mbind(void *address, size_t length, int mode, uint64_t nodes)
{
	/* The kernel takes one bit less than the argument says: get_nodes() in mm/mempolicy.c. */
	return (int)CALL(SYS_mbind, address, length, mode, &nodes, sizeof nodes * 8 + 1, 0);
}

static int real_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
	                           .tv_nsec = (long)(timeout_ns % 1000000000u)};

	return (int)CALL(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns ? &timeout : NULL, NULL, 0);
}

static int real_futex_wake(const uint32_t *word, int count)
{
	return (int)CALL(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static int real_memfd_create(const char *name, unsigned flags)
{
	return (int)CALL(SYS_memfd_create, name, flags);
}

static int real_fstat(int fd, struct stat *st)
{
	int saved_errno = errno;

	return (int)real_answer(fstat(fd, st), saved_errno);
}

static int64_t real_fs_type(int fd)
{
	struct statfs fs;
	long error = CALL(SYS_fstatfs, fd, &fs);

	return error ? error : (int64_t)fs.f_type;
}

static int real_ftruncate(int fd, uint64_t length)
{
	struct signals_held held;

	signals_hold_io(&held);
	int error = (int)CALL(SYS_ftruncate, fd, length);

	signals_release_io(&held, error);
	return error;
}

static int real_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	struct signals_held held;

	signals_hold_io(&held);
	int error = (int)CALL(SYS_fallocate, fd, mode, offset, length);

	signals_release_io(&held, error);
	return error;
}

static int real_add_seals(int fd, int seals)
{
	return (int)CALL(SYS_fcntl, fd, F_ADD_SEALS, seals);
}

static int real_get_seals(int fd)
{
	return (int)CALL(SYS_fcntl, fd, F_GET_SEALS, 0);
}

static int64_t real_seek(int fd, uint64_t offset, int whence)
{
	return CALL(SYS_lseek, fd, offset, whence);
}

static ssize_t real_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	return CALL(SYS_pread64, fd, buffer, length, offset);
}

static ssize_t real_pwrite(int fd, const void *buffer, size_t length, uint64_t offset)
{
	return CALL(SYS_pwrite64, fd, buffer, length, offset);
}

/* The process is asked for each time: a number kept across fork() would name the parent. */
static ssize_t real_self_copy(long number, void *here, const void *there, size_t length)
{
	struct iovec local = {.iov_base = here, .iov_len = length};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)there, .iov_len = length};
	long self = CALL(SYS_getpid);

	return CALL(number, self, &local, 1ul, &remote, 1ul, 0ul);
}

static ssize_t real_read_self(void *buffer, const void *address, size_t length)
{
	return real_self_copy(SYS_process_vm_readv, buffer, address, length);
}

static ssize_t real_write_other(int pid, const void *buffer, uint64_t address, size_t length)
{
	struct iovec local = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = length};

	return CALL(SYS_process_vm_writev, pid, &local, 1ul, &remote, 1ul, 0ul);
}

static int real_fsync(int fd)
{
	return (int)CALL(SYS_fsync, fd);
}

static int real_renameat(int from_folder, const char *from, int to_folder, const char *to)
{
	return (int)CALL(SYS_renameat2, from_folder, from, to_folder, to, 0u);
}

static int real_unlinkat(int folder, const char *path)
{
	return (int)CALL(SYS_unlinkat, folder, path, 0);
}

static ssize_t real_readlinkat(int folder, const char *path, char *to, size_t size)
{
	return CALL(SYS_readlinkat, folder, path, to, size);
}

static int real_poll(int fd, short events, int timeout_ms)
{
	struct pollfd poll = {.fd = fd, .events = events};
	struct timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000l};
	int count = (int)CALL(SYS_ppoll, &poll, 1ul, timeout_ms < 0 ? NULL : &timeout, NULL, 0ul);

	return count > 0 ? poll.revents : count;
}

static int real_epoll_create(void)
{
	return (int)CALL(SYS_epoll_create1, EPOLL_CLOEXEC);
}

static int real_eventfd(void)
{
	return (int)CALL(SYS_eventfd2, 0u, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int real_uring_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	int saved_errno = errno;
	int error = io_uring_queue_init(entries, ring, flags);

	errno = saved_errno;
	return error;
}

/* glibc has neither of the two calls before 2.41. */
static int64_t real_sched_slice(uint64_t slice_ns)
{
	struct thread_attributes attributes = {0};
	int64_t error = CALL(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0);

	if (error || attributes.policy != SCHED_OTHER)
		return error ? error : -EOPNOTSUPP;
	int64_t before_ns = (int64_t)attributes.runtime_ns;

	attributes.runtime_ns = slice_ns;
	error = CALL(SYS_sched_setattr, 0, &attributes, 0);
	return error ? error : before_ns;
}

static int real_sched_batch(int on)
{
	struct thread_attributes attributes = {0};
	int error = (int)CALL(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0);

	if (error || attributes.policy != (on ? SCHED_OTHER : SCHED_BATCH))
		return error ? error : -EOPNOTSUPP;
	attributes.policy = on ? SCHED_BATCH : SCHED_OTHER;
	return (int)CALL(SYS_sched_setattr, 0, &attributes, 0);
}

static int real_uring_result(int result)
{
	return result;
}

/* glibc since 2.34, musl since 1.2.2: keeps what the C library knows of the calling thread right. */
extern pid_t _Fork(void) __attribute__((weak)); /* NOLINT(bugprone-reserved-identifier) */

static int real_fork(enum kernel_fork how)
{
	int saved = errno;
	int pid;

	if (how == KERNEL_FORK_LIBC)
		pid = fork();
	else if (how == KERNEL_FORK_BARE && _Fork)
		pid = _Fork();
	else /* all but the flags are 0, so that no architecture's order of arguments matters */
		return (int)CALL(SYS_clone, how == KERNEL_FORK_SILENT ? 0ul : (unsigned long)SIGCHLD, 0ul, 0ul, 0ul,
		                 0ul);
	int error = pid < 0 ? -errno : pid;

	errno = saved;
	return error;
}

static int real_pidfd_open(int pid)
{
	return (int)CALL(SYS_pidfd_open, pid, 0u);
}

static int real_exited(int pid)
{
	siginfo_t info = {0};
	int error = (int)CALL(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL, NULL);

	return error == -ECHILD || (!error && info.si_pid == pid);
}

static int real_kill(int pidfd, int pid)
{
	return pidfd >= 0 ? (int)CALL(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0u)
	                  : (int)CALL(SYS_kill, pid, SIGKILL);
}

static int real_wait(int pid, enum kernel_fork how)
{
	int answer;

	do
		answer = (int)CALL(SYS_wait4, pid, NULL, how == KERNEL_FORK_SILENT ? __WCLONE : 0, NULL);
	while (answer == -EINTR);
	return answer < 0 ? answer : 0;
}

static int real_try_write(void *address)
{
	return (int)CALL(SYS_getcpu, address, NULL, NULL);
}

static int real_mkdirat(int folder, const char *path, unsigned mode)
{
	return (int)CALL(SYS_mkdirat, folder, path, mode);
}

/* The length of the address, or -ENAMETOOLONG. */
static int real_local_address(const char *path, struct sockaddr_un *address)
{
	size_t length = strlen(path);

	if (length >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, length);
	return (int)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

static int real_socket(void)
{
	return (int)CALL(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* What bind(2) makes has the mode of the socket itself: no moment with another one, and no umask to change. */
static int real_listen(const char *path, unsigned mode)
{
	struct sockaddr_un address;
	int length = real_local_address(path, &address);
	int fd = length < 0 ? length : real_socket();

	if (fd < 0)
		return fd;
	int error = (int)CALL(SYS_fchmod, fd, mode);

	if (!error)
		error = (int)CALL(SYS_bind, fd, &address, length);
	if (!error)
		error = (int)CALL(SYS_listen, fd, 32);
	if (error)
		CALL(SYS_close, fd);
	return error ? error : fd;
}

static int real_connect(const char *path)
{
	struct sockaddr_un address;
	int length = real_local_address(path, &address);
	int fd = length < 0 ? length : real_socket();

	if (fd < 0)
		return fd;
	int error = (int)CALL(SYS_connect, fd, &address, length);

	if (error)
		CALL(SYS_close, fd);
	return error ? error : fd;
}

static int real_accept(int listening, uint32_t *uid)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int fd = (int)CALL(SYS_accept4, listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return fd;
	int error = (int)CALL(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);

	if (error)
		CALL(SYS_close, fd);
	else
		*uid = peer.uid;
	return error ? error : fd;
}

static int real_pair(int ends[2])
{
	const int on = 1;
	int error = (int)CALL(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);

	if (error)
		return error;
	error = (int)CALL(SYS_setsockopt, ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	if (error) {
		CALL(SYS_close, ends[0]);
		CALL(SYS_close, ends[1]);
	}
	return error;
}

static int real_pair_send(int fd)
{
	long sent = CALL(SYS_sendto, fd, "", 1ul, MSG_NOSIGNAL, NULL, 0u);

	return sent < 0 ? (int)sent : 0;
}

static int real_pair_receive(int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct ucred))];
	} control = {0};
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	long got = CALL(SYS_recvmsg, fd, &message, MSG_DONTWAIT);
	struct ucred sender = {0};

	if (got <= 0)
		return (int)got;
	if (control.header.cmsg_type == SCM_CREDENTIALS)
		memcpy(&sender, CMSG_DATA(&control.header), sizeof(sender));
	return sender.pid > 0 ? sender.pid : -ESRCH;
}

const struct kernel_ops kernel_real = {
        .uffd_open_syscall = real_uffd_open_syscall,
        .uffd_open_device = real_uffd_open_device,
        .uffd_api = real_uffd_api,
        .uffd_register = real_uffd_register,
        .uffd_unregister = real_uffd_unregister,
        .uffd_writeprotect = real_uffd_writeprotect,
        .uffd_copy = real_uffd_copy,
        .uffd_zeropage = real_uffd_zeropage,
        .uffd_continue = real_uffd_continue,
        .uffd_poison = real_uffd_poison,
        .uffd_wake = real_uffd_wake,
        .uffd_read = real_uffd_read,
        .uffd_read_shared = real_uffd_read_shared,
        .pagemap_scan = real_pagemap_scan,
        .mmap = real_mmap,
        .mmap_unlocked = real_mmap_unlocked,
        .munmap = real_munmap,
        .mremap = real_mremap,
        .madvise = real_madvise,
        .mprotect = real_mprotect,
        .cachestat = real_cachestat,
        .mincore = real_mincore,
        .mbind = real_mbind,
        .futex_wait = real_futex_wait,
        .futex_wake = real_futex_wake,
        .sched_slice = real_sched_slice,
        .sched_batch = real_sched_batch,
        .memfd_create = real_memfd_create,
        .open = real_open,
        .openat = real_openat,
        .close = real_close,
        .dup = real_dup,
        .tag = real_tag,
        .tagged = real_tagged,
        .change_flags = real_change_flags,
        .access_mode = real_access_mode,
        .fstat = real_fstat,
        .fs_type = real_fs_type,
        .ftruncate = real_ftruncate,
        .fallocate = real_fallocate,
        .add_seals = real_add_seals,
        .get_seals = real_get_seals,
        .seek = real_seek,
        .read = real_read,
        .write = real_write,
        .pread = real_pread,
        .pwrite = real_pwrite,
        .read_self = real_read_self,
        .write_other = real_write_other,
        .fsync = real_fsync,
        .renameat = real_renameat,
        .unlinkat = real_unlinkat,
        .readlinkat = real_readlinkat,
        .mkdirat = real_mkdirat,
        .listen = real_listen,
        .connect = real_connect,
        .accept = real_accept,
        .pair = real_pair,
        .pair_send = real_pair_send,
        .pair_receive = real_pair_receive,
        .poll = real_poll,
        .epoll_create = real_epoll_create,
        .eventfd = real_eventfd,
        .uring_init = real_uring_init,
        .uring_result = real_uring_result,
        .uring_polled = real_uring_result,
        .fork = real_fork,
        .pidfd_open = real_pidfd_open,
        .exited = real_exited,
        .kill = real_kill,
        .wait = real_wait,
        .try_write = real_try_write,
};
