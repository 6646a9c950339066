/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp stops the first write to each page of memory just before it lands, and makes of that: snapshots of live
 * memory, mappings and child processes that keep an older instant, lists of dirty pages. It does not call the program
 * back for each write.
 *
 * Words
 * -----
 * region:    memory that the library watches; track: memory of which it only reports what was written, when it is
 *            asked (uffdwp_track_collect(), a collect).
 * mechanism: how writes are caught (enum uffdwp_mechanism); delivery: which thread resolves them (enum
 *            uffdwp_delivery), a handler thread of the library, or the writer itself.
 * armed:     a page is armed while it is write-protected for the library: by the uffd-wp bit of its page-table entry,
 *            or by what the region's mechanism has instead. Its next write is a fault, which the library resolves;
 *            then the page is unprotected (disarmed), and later writes cost nothing.
 * cut:       the instant that a snapshot, a view or a child (of uffdwp_fork()) shows. Either all pages are armed at
 *            once, by a move of the region's page tables; or before it pages are armed in rounds, while writers go on,
 *            and the rest is armed in the pause, for which write faults wait.
 * pre-image: the content that a page had at the cut, copied into the pool before the first write after it.
 *            The pool is memory of the library's, of bounded size.
 * sweep:     what a snapshot's thread does: it saves the pages which no thread has written since the cut, and empties
 *            the pool, to the sink: a file, a stream, a function.
 * raw image: all bytes of a region, as they were at the cut. Delta: a file with what was written since another image,
 *            its parent; a delta, its parent, and so on down to the raw image are a chain. Increment: what was written
 *            since the last snapshot, given to a function. Both need that the last one was kept
 *            (UFFDWP_SNAPSHOT_KEEP): the region stays armed after it.
 * window:    how many pages after the one that was written one fault unprotects along, where a writer goes on in order.
 * lost:      an armed page whose protection went outside of the library: the kernel emptied its page-table entry
 *            (zapped it), for example.
 * ledger:    the library's own table of which pages are armed, one byte a page.
 * dead:      a region whose writes the library cannot see any more: its memory was unmapped or moved, its registration
 *            or the library's descriptors were taken away, or no mapper is left (uffdwp_region_adopt()). Its memory
 *            stays as it is, unprotected; calls answer -ESTALE (-EOWNERDEAD without a mapper). Close it.
 * barrier:   uffdwp_prepare_write(), by which a thread says that it is about to write; uffdwp_prepare_read(), that it
 *            has a system call read. (Neither orders memory accesses.)
 *
 * READ THIS FIRST: what the library cannot see
 * --------------------------------------------
 * Writes are caught in the page tables of this process, for the mapping that was given. The content of a region also
 * changes, without a fault, by
 *
 *  1. write(2), pwrite(2), fallocate(2), ftruncate(2) on the memfd (UFFDWP_REGION_CREATE_SEALED makes the kernel refuse
 *     what would change content);
 *  2. any other mapping of the same memory, in this process or in another (sealed regions forbid new ones; attach
 *     refuses where it sees another writable one in this process, see UFFDWP_REGION_ATTACH_ALIASED);
 *  3. devices that write into pages pinned before they were armed: RDMA, io_uring fixed buffers, vfio, and any read
 *     with O_DIRECT (read(2), libaio, io_uring) that is under way at a cut or a collect: wait for such reads before
 *     that, in cut_enter for example (struct uffdwp_snapshot_options). A read that begins later waits, or fails with
 *     EFAULT, as other system calls do. A buffer that stays pinned does not belong into a region;
 *  4. a child after fork(): its writes are not seen, whatever its copy of the page tables carries. Created regions are
 *     MADV_DONTFORK, so that the child has no such mapping at all, and gets SIGSEGV where it touches one, unless
 *     UFFDWP_REGION_CREATE_INHERIT was asked for, or uffdwp_fork() gives it the region as its own. Attached and
 *     tracked memory is inherited as fork(2) always does it;
 *  5. MADV_REMOVE and hole punches that are not made by the library: use uffdwp_region_punch(), which keeps pre-images
 *     first. A snapshot compares the data extents at its cut with what its sweep finds, and fails if content vanished.
 *     It cannot see a hole that was filled again before the sweep came to it; nor, in memory that was attached without
 *     its fd, what fallocate(2) and ftruncate(2) did (there any madvise(2) that may discard fails the snapshot).
 *     Anonymous memory that was given to MADV_FREE before the cut, and not written since, the kernel may drop during
 *     the snapshot, which fails then (-ENODATA): no event reports it;
 *  6. anything that happens to a mapping under UFFDWP_MECHANISM_MPROTECT, where the kernel sends no events: attached
 *     memory must not be moved or unmapped. Anonymous memory that is discarded by madvise(2) is noticed when it is
 *     saved, but not if another thread discards it at that very moment, or if it was read again before;
 *  7. what takes the protection away: mprotect(2) by the owner under UFFDWP_MECHANISM_MPROTECT, a mapping made over the
 *     memory, another userfaultfd that unregisters it, MADV_GUARD_INSTALL, KSM (anonymous memory is taken out of it by
 *     MADV_UNMERGEABLE before it is armed). A snapshot looks at each page's protection after it has read the page, and
 *     fails (-ENODATA, -ESTALE) where it is gone; a collect looks under mprotect and at anonymous memory;
 *     uffdwp_region_audit() always looks. Not noticed: protection that was taken away and put back between two looks,
 *     and all of it on kernels that cannot show it (before Linux 5.13, under mprotect before 5.14);
 *  8. a debugger: PTRACE_POKEDATA and write(2) to /proc/PID/mem fail with EIO on an armed page, also with a handler
 *     thread; on private memory under UFFDWP_MECHANISM_MPROTECT they write, unseen. While it has stopped all threads it
 *     must not read a page that is not mapped again after a cut by UFFDWP_ARMING_MOVE, or was lost under
 *     UFFDWP_MECHANISM_REARM (/proc/PID/pagemap says): the read waits for a handler thread. A debugger that stops
 *     threads one after the other may stop a handler thread first, and then waits for a thread that is in such a begin,
 *     which waits for that handler. To debug a program during its snapshots: UFFDWP_ARMING_ROUNDS. A core dump lacks
 *     pages that were not mapped again.
 *  9. what the kernel writes for a thread when it ends: the word that pthread_join(3) waits for, and the words of the
 *     robust mutexes that it held. These writes wait for no fault, and are dropped without a word where the page is
 *     armed: the join hangs, EOWNERDEAD never comes. So thread stacks (with glibc and musl a thread's control block is
 *     on its stack), thread-local memory and robust mutexes do not belong into a region.
 *
 * Deliveries (enum uffdwp_delivery) differ for system calls that write into an armed page, such as read(2) into it.
 * Under UFFDWP_DELIVERY_THREAD they simply wait (unless the process may have user-mode faults only,
 * UFFD_USER_MODE_ONLY: `uffdwp-ctl doctor` says so). Under UFFDWP_DELIVERY_INLINE they fail with EFAULT: call
 * uffdwp_prepare_write() on the buffer first. With UFFDWP_MECHANISM_REARM and _MINOR, and while a snapshot by
 * UFFDWP_ARMING_MOVE runs with any, a system call that READS a page which was never touched or is not mapped (write(2)
 * from it) fails with EFAULT where system calls do not wait: uffdwp_prepare_read() makes the page present. A call over
 * several pages may return a short count instead, and what it took from a pipe or a socket before EFAULT is lost: the
 * barrier comes first. Whether system calls wait in a region: `syscalls_wait` of uffdwp_region_info(). Inline it is
 * always where only UFFDWP_MECHANISM_MPROTECT is left.
 *
 * Under inline delivery a thread that blocks SIGBUS (SIGSEGV with UFFDWP_MECHANISM_MPROTECT) must not write to a
 * region, nor read it where reads come to the library (UFFDWP_MECHANISM_REARM, _MINOR, UFFDWP_ARMING_MOVE): the kernel
 * kills the process. (Kernel: Documentation/admin-guide/mm/userfaultfd.rst, UFFD_FEATURE_SIGBUS.)
 *
 * Stacks: a thread that runs on a stack in a region (a coroutine, say) may write there, under inline delivery with an
 * alternate signal stack elsewhere, of 16 KiB at least. It must not call the library: it would wait for itself. Calls
 * that arm or stall faults, uffdwp_region_attach() and uffdwp_prepare_write() answer -EDEADLK where they see that the
 * stack, the thread-local memory or (where a system call cannot wait for a fault) the alternate signal stack of the
 * calling thread lies in the region, or its stack in any other. Nothing can be seen of other threads.
 *
 * Signal handlers: under inline delivery the library has a handler of SIGBUS (of SIGSEGV for
 * UFFDWP_MECHANISM_MPROTECT), which passes on to the handler that was there before all that is not its own. A program
 * installs its handlers before its first region, or has them pass on likewise: to the action that sigaction(2) gave
 * back, with all three arguments. Where another handler is found in front, each call that arms (create and attach,
 * begin, view, fork, arm, restore, track add and collect) puts the library's in front of it again, with a line in the
 * log: it then gets what is not the library's. Between such calls the library does not look: a handler that is
 * installed while pages are armed, and swallows their faults, ends the program. -EMLINK: more than 7 different handlers
 * were found in front of the library's since the process began: have them pass on, or install each once. The library's
 * handler runs on the alternate stack of a thread that has one (SA_ONSTACK), with all signals blocked, and stays to the
 * end of the process. Under thread delivery the library has no handler of any signal.
 *
 * Conventions ----------- Functions return 0 (or a count) or a negative errno. Outputs come last; a handle is written
 * only on success, and which answers are filled on an error, too, their call says. Every option structure starts with
 * its own size in `sz`; all else is 0 by default (`{.sz = sizeof o}`, UFFDWP_INIT(type)). -EINVAL: sz is below 16, sz
 * ends inside of a pointer field, or a flag is unknown. -E2BIG: sz is larger than this library knows, and the extra
 * bytes are not all zero. NULL options mean the defaults. In an answer only sz is read, and it is filled as far as the
 * caller's sz and the library's knowledge go, what lies beyond is left as it is. So programs that were built with an
 * earlier or a later version of these headers run with this library; structures without an sz never grow. A text that
 * says what was wrong and what to do is kept for each thread: uffdwp_error_text(). Handles and outputs must not be
 * NULL, except where a call says so; those that close, free or stop ignore NULL. Offsets and lengths are bytes, of 64
 * bits; ranges are half-open: [start, end), or an offset or address and a length. What options point to (paths, names,
 * arrays) is not used any more when the call has returned, but for functions with their `user`, which must stay until
 * the handle is freed, and descriptors where it is said. All of it may lie in a region; where the kernel writes it for
 * the library (`ranges` of a collect, the buffer of uffdwp_image_read()) a barrier comes first in a region where system
 * calls do not wait. Each call that arms, or stalls faults for a moment, may answer -EDEADLK or -EMLINK, see above;
 * those that close, stop and free never do. Those that wait go on after a signal: none answers -EINTR.
 *
 * Flags: UFFDWP_<NOUN>_<CALL>_<WORD> is for that call of the noun only, UFFDWP_<NOUN>_<WORD> for each call of it that
 * takes flags. No two flags of a noun share a bit, so that the flag of another call is refused like an unknown one.
 *
 * Descriptors: those of the library are its own. A program that closes what it did not open (close_range(3, ~0), as
 * daemons do) does so before uffdwp_open(). If it does so later, writers go on unseen, a running snapshot fails, and
 * calls that begin, create or collect answer -EBADF, or -ESTALE where the number of a descriptor stands for another
 * file by then, which is neither written to nor closed; all that such a program can do is to close its handles. (A
 * restore that runs and an image that is open read whatever file has their number.) All are closed by execve(2).
 *
 * Sandboxes: a seccomp filter may come after uffdwp_open(). The library does without the system calls that it refuses
 * (EPERM, ENOSYS), or answers with the error; but ioctl(2), and mprotect(2) with UFFDWP_MECHANISM_MPROTECT, must stay
 * allowed while anything is armed: without them no page can be unprotected. Inline writers are ended by the signal
 * then; where writers wait for a handler thread the library closes the userfaultfd: they go on unseen, a running
 * snapshot fails, and the region is dead. A filter that kills does so at the first such call. RLIMIT_DATA, lowered
 * below what a program has while anything of private memory is armed by UFFDWP_MECHANISM_MPROTECT, has the same effect:
 * the kernel then refuses to make memory writable again.
 *
 * Processes: after fork() the child must not use its parent's handles: it has none of the threads, and what it asked of
 * the kernel by them would happen to its parent's memory. Calls with them answer -ECHILD there and do nothing, but
 * those that only read: uffdwp_region_base(), _info(), _stats() and _locate(), uffdwp_view_base() and _info(); and but
 * for uffdwp_fork(), which is fork(3) there. An open image may be used in the child as in the parent. The child may
 * open a runtime of its own. In a child of uffdwp_fork() regions are plain memory, which needs no barriers (that they
 * answer -ECHILD is no fault). A child that ends by exit(3) removes nothing of its parent's. vfork(2) and
 * posix_spawn(3) may be called at any time: memory that the child shares with its parent is watched as before.
 *
 * Threads: all functions may be called from any thread unless they say otherwise; a handle must not be used while or
 * after it is closed. None may be called from a signal handler except uffdwp_prepare_write(), uffdwp_prepare_read(),
 * uffdwp_region_locate(), uffdwp_region_base(), uffdwp_restore_check() and, as its text says, uffdwp_image_read(); the
 * barriers may wait there, for memory of the pool and for pages of a lazy restore. The library's threads block all
 * signals but those of faults: the program's handlers do not run in them, and a sink whose reader has gone is an error,
 * no SIGPIPE.
 *
 * Locks: a write fault waits for threads of the library (a handler thread; the snapshot's while the pool is full; those
 * of a lazy restore), for threads that are inside of a call that arms, disarms or ends something, as long as it stalls
 * faults,
 * and for a child's end beyond `private_bytes`. None of these takes a lock of the program's meanwhile, unless a
 * callback does. So a callback that runs in a thread of the library (on_loss, uffdwp_sink_fn) must not take a lock
 * which a thread may hold while it writes to a region, or while it calls the library: with the heap in a region those
 * of malloc(3) and stdio(3) are such locks. Either the caller of a begin holds the lock that its writers take, or
 * cut_enter takes it: both run in the caller's thread, and a writer that holds the lock gets its fault resolved until
 * cut_enter has returned. A program may stop its other threads by signals at any point, as collectors do, and call the
 * library meanwhile: signals are blocked while a thread has a lock of the library or resolves its fault, so that it
 * stops afterwards. (But not uffdwp_fork(), which waits for one that is under way; and calls that start threads, as
 * begins do, may need the C library's allocator, which a stopped thread may hold.)
 *
 * Cancellation: no function is a cancellation point, those that wait neither, and the signal handler of inline delivery
 * is none. A thread that pthread_cancel(3) asked to end gets its answer first, and ends at its next cancellation point
 * after the call; to stop a wait earlier: uffdwp_snapshot_abort(), uffdwp_restore_abort(), a timeout, or the descriptor
 * of uffdwp_snapshot_fd() or uffdwp_restore_fd() in a poll(2) of its own. A cancelled thread frees nothing: what it
 * began stays open. Threads of the type PTHREAD_CANCEL_ASYNCHRONOUS must not call the library, nor write to a region.
 * The threads of the library are not the program's to cancel.
 *
 * Callbacks (cut_enter, cut_leave, sinks, on_loss, of tracks and diffs, of the log) run with cancellation disabled, and
 * leave it so. They end by returning: neither longjmp(3), nor an exception of C++, pthread_exit(3) or exec, and they do
 * not fork(2); else locks of the library stay taken, and threads wait for ever.
 */
#ifndef UFFDWP_H
#define UFFDWP_H

#include "uffdwp/adopt.h"
#include "uffdwp/child.h"
#include "uffdwp/image.h"
#include "uffdwp/probe.h"
#include "uffdwp/region.h"
#include "uffdwp/restore.h"
#include "uffdwp/runtime.h"
#include "uffdwp/snapshot.h"
#include "uffdwp/track.h"
#include "uffdwp/view.h"

#endif /* UFFDWP_H */
