/* SPDX-License-Identifier: MIT */
/*
 * Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls.
 * Here: the version, the words that all parts share, and the runtime.
 */
#ifndef UFFDWP_RUNTIME_H
#define UFFDWP_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

/* A structure of options or an answer with its sz set and all else 0, which is the default of each field: the same as
 * `{.sz = sizeof(type)}` where the language has that. An initializer, no expression:
 * `struct uffdwp_collect collect = UFFDWP_INIT(struct uffdwp_collect);` */
#ifdef __cplusplus
template <typename type> inline type uffdwp_sized()
{
	type sized = type();
	sized.sz = sizeof(type);
	return sized;
}
#define UFFDWP_INIT(type) uffdwp_sized<type>()
#else
/* clang-format off */
#define UFFDWP_INIT(type) { .sz = sizeof(type) }
/* clang-format on */
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define UFFDWP_VERSION_MAJOR 0
#define UFFDWP_VERSION_MINOR 1
#define UFFDWP_VERSION_PATCH 0

#if defined(__GNUC__)
#define UFFDWP_EXPORT __attribute__((visibility("default")))
#define UFFDWP_MUST_CHECK __attribute__((warn_unused_result))
#else
#define UFFDWP_EXPORT
#define UFFDWP_MUST_CHECK
#endif

/* Says which version of the library is linked. Returns a text, "major.minor.patch"; never NULL. Since 0.1. */
UFFDWP_EXPORT const char *uffdwp_version(void);

#define UFFDWP_BUILT_URING (1u << 0)   /* io_uring: always; whether it may be used here, uffdwp_probe_system() says */
#define UFFDWP_BUILT_ZSTD (1u << 1)    /* compressed images (libzstd) */
#define UFFDWP_BUILT_NUMA (1u << 2)    /* placement on NUMA nodes (libnuma) */
#define UFFDWP_BUILT_NBD (1u << 3)     /* snapshots to network block devices (libnbd, loaded at first use) */
#define UFFDWP_BUILT_CONTROL (1u << 4) /* control of the live process by a socket (json-c) */

/* Says what the linked library was built with. Returns flags, UFFDWP_BUILT_*. What needs a part that is left out is
 * refused (-EOPNOTSUPP). Since 0.1. */
UFFDWP_EXPORT uint32_t uffdwp_built(void);

/* What a region is made of. */
enum uffdwp_memory {
	UFFDWP_MEMORY_SHMEM = 0,   /* memfd, tmpfs file, MAP_SHARED|MAP_ANONYMOUS */
	UFFDWP_MEMORY_HUGETLB = 1, /* hugetlbfs or MAP_HUGETLB; armed and resolved in whole huge pages */
	UFFDWP_MEMORY_ANON = 2     /* MAP_PRIVATE|MAP_ANONYMOUS */
};

/* How writes are caught: a ladder, the best rung first. */
enum uffdwp_mechanism {
	/* The first rung that a trial on this kernel proved, for this type of memory. */
	UFFDWP_MECHANISM_AUTO = 0,
	/* uffd-wp bits that the kernel keeps when it empties a page-table entry. */
	UFFDWP_MECHANISM_MARKER = 1,
	/* uffd-wp bits that the kernel may clear when it empties a page-table entry. Every access to an empty entry
	 * comes to the library first, which sets the bit again, or keeps the pre-image: nothing passes unseen. First
	 * touches of pages cost a fault each. shmem and hugetlb need the file of the mapping. */
	UFFDWP_MECHANISM_REARM = 2,
	/* Arming empties the page-table entries; the next access of any kind, reads too, counts as a write. shmem and
	 * hugetlb, with the file of the mapping. */
	UFFDWP_MECHANISM_MINOR = 3,
	/* mprotect(2) and SIGSEGV: works where userfaultfd does not. Inline delivery only. */
	UFFDWP_MECHANISM_MPROTECT = 4,
	/* For tracks only: the kernel clears the uffd-wp bit by itself, and PAGEMAP_SCAN collects. */
	UFFDWP_MECHANISM_ASYNC = 5,
	/* For tracks only: the kernel's soft-dirty bits, cleared for the whole process. */
	UFFDWP_MECHANISM_SOFT_DIRTY = 6
};

/* How all of a region comes to be armed for a snapshot. */
enum uffdwp_arming {
	UFFDWP_ARMING_AUTO = 0, /* MOVE or ROUNDS, see struct uffdwp_snapshot_options */
	/* Pages are protected one after the other, in rounds while writers go on: takes as long as the region is large,
	 * and a short pause at the end. Works with every mechanism. */
	UFFDWP_ARMING_ROUNDS = 1,
	/* The region's page tables are moved away at once (mremap(2) with MREMAP_DONTUNMAP), and each next access,
	 * reads too, comes to the library first. Takes the same time at any size. UFFDWP_MEMORY_SHMEM only. */
	UFFDWP_ARMING_MOVE = 2
};

/* Which thread resolves a write fault. */
enum uffdwp_delivery {
	UFFDWP_DELIVERY_AUTO = 0,   /* THREAD where the mechanism can, else INLINE: uffdwp_region_info() says which */
	UFFDWP_DELIVERY_THREAD = 1, /* a handler thread of the runtime; the writer sleeps, and system calls wait, too,
	                             * if `syscalls_wait` of uffdwp_region_info() is 1 */
	UFFDWP_DELIVERY_INLINE = 2  /* the writer itself, in a signal handler: faster, with EFAULT in system calls, see
	                             * the top of uffdwp.h */
};

/* How a page that the library had armed came to be without its protection. */
enum uffdwp_loss {
	UFFDWP_LOSS_HOLE = 0, /* it has no content: punched, truncated, never written */
	UFFDWP_LOSS_SWAP = 1, /* it was swapped out */
	UFFDWP_LOSS_ZAP = 2,  /* its page-table entry was emptied, as by MADV_DONTNEED; the content of anonymous memory
	                       * went with it */
	UFFDWP_LOSS_UNMAPPED = 3, /* its mapping went away or was replaced */
	UFFDWP_LOSS_UNKNOWN = 4   /* found by uffdwp_region_audit(), no event reported it */
};

struct uffdwp;

/* A line of the trace that UFFDWP_DEBUG=1 writes to standard error, without a newline. */
typedef void (*uffdwp_log_fn)(void *user, const char *line);

/*
 * Passes the trace to a function of the program: each line to `log`, and none to standard error; NULL: as the
 * environment says (UFFDWP_DEBUG=1: to standard error). For the whole process, also while runtimes are open: waits
 * until no thread is in the function of before, so that what it uses may go. The function is called in any thread of
 * the program or of the library, in several at a time, also under locks of the library: it must not call the library,
 * nor touch memory of a region, nor wait for a thread that might. Returns 0. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_log_to(uffdwp_log_fn log, void *user);

#define UFFDWP_OPEN_NO_URING (1u << 0)  /* use epoll and pwrite even where io_uring is available */
#define UFFDWP_OPEN_USER_MODE (1u << 1) /* open every uffd UFFD_USER_MODE_ONLY, as an unprivileged process would */
/* Other processes of this user, and of root, may look at the runtime and have things done (uffdwp-ctl list, stat,
 * snapshot, ...), by a Unix socket in a folder that only they may enter; PROTOCOL.md of the documentation says how. One
 * socket a process, which one thread serves (uffdwp-control). It goes with the last such runtime, and at exit(3). A
 * child of fork() has none. How long faults take is counted meanwhile. A snapshot that was begun so holds its region
 * until it has ended (the program's own until they are freed): the program's begin answers -EBUSY; and it ends a chain
 * of the program's as any other snapshot does */
#define UFFDWP_OPEN_CONTROL (1u << 2)

#define UFFDWP_CONTROL_LOOK (1u << 0)     /* may see regions, counters, snapshots, and samples of writes */
#define UFFDWP_CONTROL_SNAPSHOT (1u << 1) /* may begin snapshots to files, abort those, audit */
#define UFFDWP_CONTROL_ARM (1u << 2)      /* may arm and disarm pages, and abort snapshots of the program's */

struct uffdwp_options {
	size_t sz;                /* sizeof(struct uffdwp_options) */
	uint32_t flags;           /* UFFDWP_OPEN_* */
	uint32_t handler_threads; /* 1 to 64; 0: 2, or 1 on one CPU, as was measured (bench/README.md). A region is
	                           * served by one of them; more threads than regions stay idle. Each serves at most
	                           * 1024 regions (-ENFILE) */
	const char *handler_cpus; /* CPUs that handlers may run on, "0-3,8"; NULL: any that the caller may. On these a
	                           * handler follows the thread whose faults it resolves, if nearly all are of one
	                           * (sched_setaffinity(2), and a look into /proc/self/task some times a second) */
	uint64_t numa_nodes;      /* bit n: the handlers run on node n, their stacks lie on the first of these; 0:
	                           * any */
	uint32_t control;         /* OPEN_CONTROL: UFFDWP_CONTROL_*; 0: LOOK and SNAPSHOT. What UFFDWP_CONTROL in the
	                           * environment asks for comes on top (1, or a list of look, snapshot, arm), also
	                           * without the flag; not in a set-user-id program */
	uint32_t reserved;        /* 0 */
	const char *control_path; /* OPEN_CONTROL: the socket's path, absolute, at most 103 bytes; NULL: PID.sock in the
	                           * first folder that is the user's own and closed to others, of
	                           * $XDG_RUNTIME_DIR/uffdwp, /run/user/UID/uffdwp, /run/uffdwp, /tmp/uffdwp-UID */
};
#define UFFDWP_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_options)

/*
 * Opens a runtime: finds out how this process can open a userfaultfd and starts the handler threads. In this order: the
 * system call, which needs CAP_SYS_PTRACE (root has it, in most containers it has not) or
 * vm.unprivileged_userfaultfd=1; /dev/userfaultfd (Linux 6.1), which needs read and write permission on it; the system
 * call for faults of user code only (Linux 5.11), which any process may use, and under which system calls that write
 * into armed pages fail with EFAULT. Where none works (a kernel or a seccomp filter without it) only mechanism mprotect
 * is left: 0 is returned all the same, and uffdwp_error_text() is not empty and says why and what to change;
 * uffdwp_region_info() of each region says which mechanism and delivery it got.
 *
 * Errors: -EINVAL (unknown flag, CPU list, node, bits of `control`), -E2BIG, -EMFILE, -ENFILE, -ENOMEM, -EAGAIN (no
 * thread), -EOPNOTSUPP (`numa_nodes`, and the library was built without libnuma; UFFDWP_OPEN_CONTROL, and it was built
 * without json-c). Of UFFDWP_OPEN_CONTROL, where the socket cannot be made: -EPERM, -EACCES, -ENOENT (no folder),
 * -ENAMETOOLONG, -EADDRINUSE (another process listens there), -EBUSY (the process has one at another path). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_open(const struct uffdwp_options *options, struct uffdwp **out);

/*
 * Closes a runtime and ends its threads. -EBUSY while a region of it is open or a track runs: nothing happened then.
 * -ECHILD. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_close(struct uffdwp *runtime);

/*
 * Gives the text of the last call that failed in this thread: of whatever handle, copied into `buffer`, always
 * terminated. Returns the length of the whole text, as snprintf(3) does; 0, and an empty text, if none failed. What
 * other threads do does not change it, nor do later calls that succeed, but for those that may leave a text although
 * they answer 0, and empty it first: uffdwp_open() (mprotect alone is left), uffdwp_region_create() and
 * uffdwp_region_attach() (the process has given up rights since uffdwp_open(); with UFFDWP_REGION_ATTACH_ALIASED,
 * another mapping was found), uffdwp_track_start() and uffdwp_track_add(). So a text after a 0 of these is of that
 * call. What ends in the background has a text of its own, uffdwp_snapshot_text(), uffdwp_restore_text(), which the
 * wait that answers the error leaves here, too. No text is formed by uffdwp_prepare_write(), uffdwp_restore_check() and
 * uffdwp_image_read(), nor for the -ETIMEDOUT of a wait. `buffer` may be NULL. Since 0.1.
 *
 *     char text[512];
 *     uffdwp_error_text(text, sizeof(text)); // after a call that answered less than 0
 */
UFFDWP_EXPORT size_t uffdwp_error_text(char *buffer, size_t size);

/* A call is so far: `done_bytes` of `total_bytes`. Returns 0, or a negative errno: the call ends with that, and leaves
 * no result. */
typedef int (*uffdwp_progress_fn)(void *user, uint64_t done_bytes, uint64_t total_bytes);

#ifdef __cplusplus
}
#endif

#endif
