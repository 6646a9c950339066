/* SPDX-License-Identifier: MIT */
/*
 * The border with the kernel: every system call of the library goes through one table of operations, so that unit
 * tests put a fake kernel there and fault-injection tests refuse the n-th call.
 *
 * Contract of all operations: they return what the man page gives on success and -errno on failure; errno is left as it
 * was. None allocates. Those with (signal) are called in the fault path, also inside a signal handler: an
 * implementation must be async-signal-safe.
 */
#ifndef UFFDWP_KERNEL_KERNEL_H
#define UFFDWP_KERNEL_KERNEL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/counts.h"

struct io_uring;
struct pm_scan_arg;
struct stat;
struct uffd_msg;

/* How a process is copied. */
enum kernel_fork {
	KERNEL_FORK_LIBC,  /* fork(3), with what the C library and handlers of pthread_atfork(3) do */
	KERNEL_FORK_BARE,  /* _Fork(3), without */
	KERNEL_FORK_SILENT /* the same, and no signal and no wait(2) of the program's reports its end */
};

struct kernel_ops {
	/* userfaultfd(2): flags as there (O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY). A descriptor, or -errno. */
	int (*uffd_open_syscall)(int flags);
	/* the same through /dev/userfaultfd (6.1); flags without UFFD_USER_MODE_ONLY. */
	int (*uffd_open_device)(int flags);
	/* UFFDIO_API: once a descriptor. *features in: wanted, out: all that the kernel has. */
	int (*uffd_api)(int uffd, uint64_t *features);
	/* UFFDIO_REGISTER. */
	int (*uffd_register)(int uffd, uint64_t start, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_UNREGISTER: also wakes all threads that wait there. */
	int (*uffd_unregister)(int uffd, uint64_t start, uint64_t length);
	/* (signal) UFFDIO_WRITEPROTECT with UFFDIO_WRITEPROTECT_MODE_*: -EAGAIN while an event waits to be read,
	 * -ENOENT where nothing is registered, -ESRCH when the process ends. Without MODE_WP and MODE_DONTWAKE it
	 * wakes. */
	int (*uffd_writeprotect)(int uffd, uint64_t start, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_COPY of pages with UFFDIO_COPY_MODE_*: 0, -EEXIST (the first entry is not empty), -EAGAIN as
	 * above or where only some were filled, -ENOENT where nothing is registered, -ENOMEM, -ENOSPC. */
	int (*uffd_copy)(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_ZEROPAGE, not for hugetlb; errors as above. */
	int (*uffd_zeropage)(int uffd, uint64_t start, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_CONTINUE with UFFDIO_CONTINUE_MODE_*: bytes that were mapped before an entry that was not
	 * empty or a page that is not there, or -EEXIST, -EFAULT for the first; -EAGAIN as above; -EINVAL (unknown
	 * mode). */
	int64_t (*uffd_continue)(int uffd, uint64_t start, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_POISON (6.6) of one page with UFFDIO_POISON_MODE_*: a thread that touches it gets SIGBUS. 0,
	 * -EEXIST (the entry is not empty, or poisoned already), -EAGAIN as above, -ENOENT, -ENOMEM, -EINVAL (unknown).
	 */
	int (*uffd_poison)(int uffd, uint64_t start, uint64_t length, uint64_t mode);
	/* (signal) UFFDIO_WAKE. */
	int (*uffd_wake)(int uffd, uint64_t start, uint64_t length);
	/* read(2) of up to `count` messages from a non-blocking uffd: bytes, or -EAGAIN. */
	ssize_t (*uffd_read)(int uffd, struct uffd_msg *messages, size_t count);
	/* The same of a uffd that another process shares, and may have made to block: preadv2(2) with RWF_NOWAIT
	 * (6.10), else O_NONBLOCK is set before. */
	ssize_t (*uffd_read_shared)(int uffd, struct uffd_msg *messages, size_t count);
	/* ioctl PAGEMAP_SCAN on /proc/self/pagemap (6.7). */
	int (*pagemap_scan)(int pagemap, struct pm_scan_arg *arg);

	/* Memory. */
	void *(*mmap)(void *address, size_t length, int prot, int flags, int fd, uint64_t offset,
	              int *error); /* NULL: see error */
	/* The same at an address of the kernel's choice for memory that is neither locked nor populated, also after
	 * mlockall(MCL_FUTURE). */
	void *(*mmap_unlocked)(size_t length, int prot, int flags, int fd, uint64_t offset, int *error);
	int (*munmap)(void *address, size_t length);
	void *(*mremap)(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error);
	/* (signal) madvise(2). */
	int (*madvise)(void *address, size_t length, int advice);
	/* (signal) mprotect(2). */
	int (*mprotect)(void *address, size_t length, int prot);
	/* (signal) mincore(2): bit 0 of each byte says that the page is in memory; swapped pages and holes look alike.
	 */
	int (*mincore)(void *address, size_t length, unsigned char *pages);
	/* (signal) cachestat(2) of a range of a file (6.5): *cached: pages in memory, *evicted: pages that are swapped
	 * out, also while the swap cache still has them. 0, -ENOSYS, -EPERM: the file is another user's, ... */
	int (*cachestat)(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted);
	int (*mbind)(void *address, size_t length, int mode, uint64_t nodes);
	/* (signal) futex FUTEX_WAIT_PRIVATE with a relative timeout (0: none): 0, -EAGAIN, -ETIMEDOUT, -EINTR. */
	int (*futex_wait)(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
	/* (signal) */
	int (*futex_wake)(const uint32_t *word, int count);

	/* sched_setattr(2) of the calling thread, if it runs by SCHED_OTHER: how long it runs at a time (6.12; before
	 * that nothing changes; 0: the usual). A thread that asks for less runs sooner when it wakes. The slice that it
	 * had, or -errno. */
	int64_t (*sched_slice)(uint64_t slice_ns);

	/* The calling thread, of the default policy, takes the CPU from no thread that runs when it is woken (1:
	 * SCHED_BATCH), or as usual (0). */
	int (*sched_batch)(int on);

	/* Files. */
	int (*memfd_create)(const char *name, unsigned flags);
	int (*open)(const char *path, int flags, unsigned mode);
	int (*openat)(int folder, const char *path, int flags, unsigned mode);
	int (*close)(int fd);
	/* Close-on-exec; of a number from `least` on, if one is free there, else any. */
	int (*dup)(int fd, int least);
	int (*change_flags)(int fd, int on, int off); /* of an open file: O_DIRECT, O_NONBLOCK */
	/* A number from 0 to 64 on an open file (F_SETSIG, which sends nothing without O_ASYNC), and what it is. */
	int (*tag)(int fd, int tag);
	int (*tagged)(int fd);      /* (signal) */
	int (*access_mode)(int fd); /* O_RDONLY, O_WRONLY or O_RDWR */
	int (*fstat)(int fd, struct stat *st);
	/* fstatfs(2): the type of the file system, as in <linux/magic.h>. */
	int64_t (*fs_type)(int fd);
	/* Sizes beyond RLIMIT_FSIZE answer -EFBIG from these two, never a signal. From write and pwrite there is one,
	 * and SIGPIPE from write: for threads that block both, or between signals_hold_io() and signals_release_io().
	 */
	int (*ftruncate)(int fd, uint64_t length);
	int (*fallocate)(int fd, int mode, uint64_t offset, uint64_t length);
	int (*add_seals)(int fd, int seals);
	int (*get_seals)(int fd);
	/* lseek(2) with SEEK_DATA or SEEK_HOLE. */
	int64_t (*seek)(int fd, uint64_t offset, int whence);
	ssize_t (*read)(int fd, void *buffer, size_t length);
	ssize_t (*write)(int fd, const void *buffer, size_t length);
	/* (signal) */
	ssize_t (*pread)(int fd, void *buffer, size_t length, uint64_t offset);
	ssize_t (*pwrite)(int fd, const void *buffer, size_t length, uint64_t offset);
	/* (signal) process_vm_readv(2) of this process: a copy that answers -EFAULT where memcpy() would crash. */
	ssize_t (*read_self)(void *buffer, const void *address, size_t length);
	/* (signal) process_vm_writev(2) into another process. From memory that cannot be read it writes nothing,
	 * answers -EFAULT, and has given that process pages of its own of private mappings: see region/view_child.c. */
	ssize_t (*write_other)(int pid, const void *buffer, uint64_t address, size_t length);
	int (*fsync)(int fd);
	int (*renameat)(int from_folder, const char *from, int to_folder, const char *to);
	int (*unlinkat)(int folder, const char *path);
	/* Bytes of the link, without a terminating zero. */
	ssize_t (*readlinkat)(int folder, const char *path, char *to, size_t size);
	int (*mkdirat)(int folder, const char *path, unsigned mode);

	/* Stream sockets of this machine (unix(7)), which never block and are closed by exec; a path of 107 bytes at
	 * most, else -ENAMETOOLONG. listen: one that listens there, its file with this mode less the umask;
	 * -EADDRINUSE: a file is there. connect: one that is connected to what listens there; -ECONNREFUSED: no process
	 * does. accept: the next client of one that listens, and its effective user at the connect; -EAGAIN: there is
	 * none. */
	int (*listen)(const char *path, unsigned mode);
	int (*connect)(const char *path);
	int (*accept)(int fd, uint32_t *uid);

	/* Two such sockets that are connected: what ends[1] sends ends[0] receives. pair_send: one byte; -EPIPE: no
	 * process has the other end. pair_receive: the process that has sent the next byte, by the number that it has
	 * in the PID namespace of this process; 0: no process has the other end; -EAGAIN: no byte has come yet. */
	int (*pair)(int ends[2]);
	int (*pair_send)(int fd);
	int (*pair_receive)(int fd);

	/* Waiting. */
	int (*poll)(int fd, short events, int timeout_ms); /* revents, 0 at the time-out */
	int (*epoll_create)(void);
	int (*eventfd)(void);
	int (*uring_init)(unsigned entries, struct io_uring *ring, unsigned flags);
	/* What a completion of an io_uring read or write brought: the seam where tests inject errors of the sink. */
	int (*uring_result)(int result);
	int (*uring_polled)(int result); /* the same of a poll: revents, or the error that ended it */

	/* Processes. fork: 0 in the child, its process id, or -errno. */
	int (*fork)(enum kernel_fork how);
	int (*pidfd_open)(int pid); /* pidfd_open(2) (5.3) */
	/* (signal) 1: a child of this process has ended, or is none of its children any more; it stays to be waited
	 * for. */
	int (*exited)(int pid);
	/* (signal) SIGKILL, by the pidfd or, where that is -1, by the process id. */
	int (*kill)(int pidfd, int pid);
	int (*wait)(int pid, enum kernel_fork how); /* for the end of a child that was made so */

	/* (signal) Has the kernel write the 4 bytes at an address (getcpu(2)): 0, or -EFAULT where a system call may
	 * not write. Never a signal; on a uffd without UFFD_FEATURE_SIGBUS it waits as any write would. */
	int (*try_write)(void *address);
};

/* The real one. */
extern const struct kernel_ops kernel_real;

/* Offers of the kernel that decide what a descriptor is asked for. */
enum kernel_access { KERNEL_ACCESS_SYSCALL, KERNEL_ACCESS_DEVICE, KERNEL_ACCESS_USER_MODE, KERNEL_ACCESS_COUNT };

/* Opens a descriptor by one kind of access. */
int kernel_uffd_open_by(const struct kernel_ops *k, enum kernel_access access);

/* Opens by the first access that works: system call, device, user mode. *access says which (written on success). On
 * failure the errno of the system call, or of the device where that says more; errors[] has each. */
int kernel_uffd_open(const struct kernel_ops *k, int user_mode_only, enum kernel_access *access,
                     int errors[KERNEL_ACCESS_COUNT]);

/* Asks a throw-away descriptor which features there are. */
int kernel_uffd_features(const struct kernel_ops *k, enum kernel_access access, uint64_t *features);

/* Opens and negotiates: wanted features that the kernel lacks are left out. *granted: what is on. */
int kernel_uffd_new(const struct kernel_ops *k, enum kernel_access access, uint64_t wanted, uint64_t *granted);

/* madvise(2) with MADV_DONTNEED, of locked memory too (5.18): without its help -EINVAL there. */
int kernel_discard(const struct kernel_ops *k, void *address, size_t length);

/* 1: an error that says something of this moment (descriptors, memory, a signal), and nothing of the kernel or of
 * rights: the same call may be answered otherwise a moment later, so that it is no answer to be remembered. */
static inline int kernel_is_passing(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -EAGAIN || error == -EINTR ||
	       error == -ENOBUFS || error == -ETIMEDOUT;
}

/* Monotonic time. (signal) */
uint64_t kernel_now_ns(void);

/* The calling thread, by the number that the kernel reports faults with. (signal) */
uint32_t kernel_thread_id(void);

/* Sleeps for a while: what is waited for may need this CPU. (signal) */
void kernel_sleep(const struct kernel_ops *k, uint64_t sleep_ns);

#endif
