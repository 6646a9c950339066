/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * children, which have an instant of regions in another process. */
#ifndef UFFDWP_CHILD_H
#define UFFDWP_CHILD_H

#include <sys/types.h>

#include "snapshot.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * fork(2) without the page tables of regions. The child has the regions at the same addresses, with all that they held
 * at the cut, private and writable; everything else it inherits as from fork(). The price of the call does not grow
 * with the regions: their page tables are moved away in the parent (UFFDWP_ARMING_MOVE), and the child gets a private
 * mapping of each region's file. From then on, until the child has ended, the first write of the parent to each page
 * costs a fault, in which the page is broken off the child: the child gets a copy of its own. So a child takes memory
 * for what either of the two writes, as after fork().
 *
 * Several children may live at a time, of different cuts, beside views, tracks and snapshots: snapshots may begin and
 * end while children live, and a child may be made while a snapshot runs. Beside a snapshot whose page tables were
 * moved away the call waits until that has noted which pages had content, tens of milliseconds a GiB from its begin on.
 * A region with a child cannot be restored (-EBUSY). A child's end is noticed whatever ends it, an execve(2) too; it is
 * the program that waits for it (waitpid(2)), as for any child.
 *
 * In the child the regions are plain memory, and where they could grow to (capacity_bytes) its addresses are reserved,
 * without rights: the library's handles of the parent must not be used (-ECHILD). The child may fork again, by fork()
 * or by this call: before that fork it copies all that it still shares with its parent, which takes as long as copying
 * all regions, and the memory. vfork(3), posix_spawn(3) and system(3) in the child take nothing.
 *
 * A child may unmap parts of the regions, map other memory over them and change their protection. It must not move them
 * (mremap(2)): what was moved would show what the parent writes later. Nor may it discard them (madvise(2) with
 * MADV_DONTNEED, MADV_FREE or MADV_GUARD_INSTALL, as allocators do): what was discarded shows what the parent has
 * there; anonymous memory mapped over it (mmap(2) with MAP_FIXED) reads as zeros instead. It must not call fallocate(2)
 * or MADV_REMOVE: that memory is the parent's. libuffdwp-fork.so sees to all of that for an allocator's heap.
 *
 * Not seen are the writes listed at the top of uffdwp.h; content that is discarded outside of the library (not by
 * uffdwp_region_punch()) changes in a child, too. Memory that the child made read-only is broken off as well (where
 * proc_mem.force_override of the kernel forbids that, the child is ended as below). What the child pinned for devices
 * (O_DIRECT, io_uring fixed buffers) may be the parent's live page, and torn.
 *
 * The parent must be allowed to trace its child, as a process may trace its own children by default: it is not where
 * Yama's ptrace_scope is 2 or more without CAP_SYS_PTRACE, nor a child that changed its user or made itself
 * undumpable, unless the parent has CAP_SYS_PTRACE. It is tried with the first call of a runtime; a child that becomes
 * so later is ended by SIGKILL at the next write to a page that it still shares, before that write lands. The same
 * happens where the kernel has no memory for the child's page, where a child's first thread has ended while others go
 * on, and where the parent has closed the library's descriptors. A parent that gave up the right to end its child waits
 * in such a write until the child ends by itself.
 *
 * A write of the parent waits while the child is inside of a system call that has its memory locked (its own fork(2),
 * the end of its old memory at an execve(2)), and, with fork(3)'s handlers, until the child has run for the first time:
 * a debugger that stops it there stops the parent's writers, too.
 */
struct uffdwp_child;

/*
 * No handlers of pthread_atfork(3) run, and the C library does nothing of its own, as with _Fork(3): the caller's
 * business. Only where the caller knows that its child can live with that, or does what is needed itself.
 */
#define UFFDWP_FORK_BARE (1u << 0)

/* Regions of one call. */
#define UFFDWP_FORK_REGIONS_MAX 64

struct uffdwp_fork_options {
	size_t sz;       /* sizeof(struct uffdwp_fork_options) */
	uint32_t flags;  /* UFFDWP_FORK_* */
	uint32_t arming; /* enum uffdwp_arming, as of snapshots; AUTO is MOVE also where a region is protected
	                  * already */
	uint32_t policy; /* enum uffdwp_policy: what happens to the first write beyond private_bytes: it waits until
	                  * a child has ended, for wait_ns, after which the child is ended by SIGKILL; or the child
	                  * is ended at once. The write lands when the child is gone */
	uint32_t region_count; /* of `regions`; 0: all created regions of shared memory that the runtime has */
	struct uffdwp_region *const *regions; /* those that the child has */
	uint64_t private_bytes; /* bound on the memory of pages that were broken off this child, which each thread that
	                         * writes may exceed by up to 64 pages; 0: none */
	uint64_t wait_ns;       /* UFFDWP_POLICY_WAIT; 0: 10 s */

	/* The caller's boundary, as of snapshots: both or none. cut_enter may refuse by a negative errno. cut_leave
	 * runs in the parent and in the child, which have both what cut_enter took. One thread at a time is in
	 * uffdwp_fork(): a thread that has what cut_enter takes must not call it. */
	int (*cut_enter)(void *cut_user);
	void (*cut_leave)(void *cut_user);
	void *cut_user;

	/* Most pages that one write breaks off, 1 to 64; 0: 1, and a child takes memory for nothing but what was
	 * written. With more: where writers fault without a pause, and have written a sixteenth of an aligned block of
	 * 512 pages, each write there breaks off up to so many neighbours along, no more than 256 KiB at a time, and
	 * the child's thread in the parent the rest of the block: a tenth of the faults, for memory that the child
	 * would have taken later. Not while half of private_bytes is taken, nor while a view is open, a track watches
	 * or increments are kept. */
	uint32_t window_max;
	uint32_t reserved; /* 0 */
};
#define UFFDWP_FORK_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_fork_options)

/*
 * Makes a child without a copy of page tables. Returns its process id in the parent, 0 in the child, or a negative
 * errno, and then there is no child. In the parent *child (unless `child` is NULL) is a handle for uffdwp_child_info(),
 * to be freed by uffdwp_child_free(); in the child, and where there is none, it is NULL.
 *
 * Handlers of pthread_atfork(3) run as with fork(3): the cut is made after the last prepare handler, and the child has
 * its regions before its first handler. That holds for handlers that were added after this library was loaded; one that
 * was added before, and touches a region or takes a lock that a thread holds while it writes to one, waits for ever:
 * load the library first. Functions that the library calls (on_loss) must not wait for a lock that a prepare handler
 * takes. A signal handler that forks while they run makes a child as of fork(2). Where something that stands before the
 * C library's fork(3) takes more than 1 KiB of stack they run twice at the first call.
 *
 * In a child of this call or of fork() it is fork(3), after a copy of what is still shared was taken. Not in a signal
 * handler. Errors, nothing changed: -EINVAL, -E2BIG, -ENOENT (the runtime has no created region of shared memory),
 * -EOPNOTSUPP (a region is of another kind, or by a mechanism that has no views; the parent may not trace its child, or
 * a sandbox forbids what is done to it or by it, or this thread has descriptors of its own (CLONE_FILES): it is tried
 * at each call; `arming` by name, as of snapshots), -EBUSY (a restore of a region has not been freed or has failed, or
 * another cut of it is being prepared: a snapshot, a view), -EMFILE (UFFDWP_CHILDREN_MAX children live, or there are no
 * descriptors), what cut_enter refused with, -ESTALE, -EDEADLK, -EMLINK, -ENOMEM, -EAGAIN (limits of processes, as of
 * fork()). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT pid_t uffdwp_fork(struct uffdwp *runtime, const struct uffdwp_fork_options *options,
                                                  struct uffdwp_child **child);

/* Children of one region that may live at a time. Each of them has its own instant, so the first write to a page breaks
 * it off one after the other. */
#define UFFDWP_CHILDREN_MAX 64

enum uffdwp_child_state {
	UFFDWP_CHILD_STATE_RUNNING = 0,
	UFFDWP_CHILD_STATE_ENDED = 1, /* it ended, or went on as another program: nothing is broken off it any more */
	UFFDWP_CHILD_STATE_KILLED = 2 /* the library has ended it by SIGKILL; `error` says why */
};

struct uffdwp_child_info {
	size_t sz;              /* set by the caller */
	uint32_t state;         /* enum uffdwp_child_state */
	int32_t pid;            /* its process id */
	uint64_t private_bytes; /* of the child: pages that the parent has broken off it */
	uint64_t pause_ns;      /* from when faults began to wait until they went on, with the fork */
	uint64_t fork_ns;       /* of that, the fork of everything else */
	uint64_t call_ns;       /* of the whole call, without handlers of pthread_atfork() */
	int32_t error;          /* KILLED: -ENOBUFS (private_bytes), -ETIME (after wait_ns), or what the kernel answered
	                         * when a page was to be broken off */
	uint32_t arming;        /* UFFDWP_ARMING_MOVE: all regions were armed so; else UFFDWP_ARMING_ROUNDS */
};

/* Looks at a child. -EINVAL (sz too small), -ECHILD. Since 0.1. */
UFFDWP_EXPORT int uffdwp_child_info(const struct uffdwp_child *child, struct uffdwp_child_info *info);

/* Gives the handle of a child back: the child lives on, and regions serve it. NULL is ignored. Since 0.1. */
UFFDWP_EXPORT int uffdwp_child_free(struct uffdwp_child *child);

#ifdef __cplusplus
}
#endif

#endif
