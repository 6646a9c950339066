/* SPDX-License-Identifier: MIT */
/*
 * The fault path: what happens when a thread is about to write to an armed page. Both deliveries, the explicit barrier
 * and the punch come through fault_resolve(); it is the only place that claims pages besides the sweep.
 *
 * This is a place with rules: nothing in the files of the fault path allocates, logs, takes a lock, or waits while
 * inside the epoch (tests/fault-path-symbols.txt lists the files, and what they may call).
 *
 * The fault path goes down only:
 *
 *   inline.c, handler.c   deliver: by a signal in the writer, by a thread
 *   resolve.c             what does this fault mean?
 *   absent.c, empty.c     the page is not fetched yet; the entry is empty
 *   preserve.c             claim, copy, set SAVED, unprotect        window.c  what a fault takes along
 *   fill.c, fail.c        an entry was filled, or could not be; the snapshot fails
 *   phase.c               the phase                               pool.c    pre-images
 *   wake.c                wakes, and the sleep of threads that wait for one
 *
 * INV-EPOCH: a thread that looks at a region's phase and acts on it (claims, copies, disarms) does so inside
 * fault_epoch; a thread that moves the phase calls epoch_wait() before it relies on the move. So a fault that began
 * under the former phase has ended, and cannot disarm a page that the new phase has armed.
 *
 * INV-CUT: no write that depends on an excluded write is included. While the pages of a snapshot are being armed
 * (PHASE_STALL) no fault is resolved; hence a thread that wrote to a page armed already is still asleep in that write
 * when the last page is armed, and no thread can have seen its effect. Where page tables are moved away at once the
 * move keeps it (cut/move.c), and PHASE_STALL is for the faults that began before.
 *
 * INV-WAKE: no thread sleeps for ever. A writer whose fault the handler left alone sleeps until (a) the claimant of its
 * page disarms it, or (b) all of the region are woken: when the phase moves (stalled), when pool memory was freed
 * (starved), when the snapshot fails, when the region closes. Both flags are raised before the condition is looked at
 * again, and lowered after it was made true: one of the two sides always sees the other.
 *
 * Inline writers and barriers wait on one futex word of the process, fault_change: it is moved at each of (a) and (b).
 */
#ifndef UFFDWP_FAULT_FAULT_H
#define UFFDWP_FAULT_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

#include "fault/pool.h"
#include "region/region.h"
#include "region/registry.h"

#define FAULT_WINDOW_MAX 64

/* What the fault path needs of a running snapshot; owned by snapshot/, published as region->preserve. */
struct preserve {
	const struct kernel_ops *k;
	struct pool pool;
	_Atomic uint32_t *slot_of; /* by page: its slot, valid while the page is SAVED or OPEN */
	uint64_t end_page;         /* pages [0, end_page) belong to the snapshot */
	_Atomic uint64_t *content; /* a bit for each page that is known to have had content at the cut */
	struct ring hot;           /* pages saved by faults, oldest first: hints for the sweep, may be incomplete */
	struct ring_cell *hot_cells;
	uint32_t hot_count;
	uint32_t window_max;
	_Atomic int keeps;   /* what is saved stays protected, WATCHED, because others want it: tracks since before the
	                      * cut, children also since a later one. Looked at inside the epoch where that may come */
	_Atomic int looks;   /* what had content at the cut is not known yet: no other may show the file's pages */
	_Atomic int hurries; /* and one waits to */
	int pagemap;         /* /proc/self/pagemap, where it shows wp bits: a page without one was lost; else -1 */
	uint32_t policy;     /* enum uffdwp_policy */
	uint64_t wait_ns;
	_Atomic int error; /* first failure, negative errno; the sweep looks at it */
	_Atomic uint64_t error_page;
	_Atomic uint64_t faults;
	_Atomic uint64_t pages_fault;
	_Atomic uint64_t pages_prepare;
	_Atomic uint64_t waits;
};

enum fault_by {
	FAULT_BY_HANDLER, /* a handler thread: reads the page by system calls, never waits */
	FAULT_BY_WRITER,  /* the faulting thread, in its signal handler */
	FAULT_BY_BARRIER, /* uffdwp_prepare_write() */
	FAULT_BY_READER,  /* uffdwp_prepare_read() */
	FAULT_BY_PUNCH,   /* uffdwp_region_punch(): reads by system calls, so that holes stay holes */
};

/* What an access met. */
enum fault_access {
	FAULT_WRITE,       /* the protection of a page */
	FAULT_WRITE_EMPTY, /* an entry that is empty, as far as is known: a write */
	FAULT_READ_EMPTY,  /* the same, surely a read */
};

/* One fault, from where it was met to where it is resolved. */
struct fault {
	struct uffdwp_region *region;
	uint64_t page;
	uint64_t limit; /* neighbours in [page, limit) may be resolved with it */
	enum fault_by by;
	enum fault_access access;
	int was_armed;          /* empty.c: the page was armed when the empty entry was met */
	enum uffdwp_loss cause; /* empty.c: why the entry is empty, should the file have the page */
	unsigned refusals;      /* of a writer: how often in a row the kernel has refused to unprotect the page */
	uint64_t until_ns;      /* of threads that sleep: when the snapshot fails for want of pool memory; 0 at first */
	uint32_t counted;       /* afterwards: how often it was counted as a fault of the region */
	uint32_t brake_ns;      /* afterwards: its thread shall sleep so long, see fault_brake() */
};

enum fault_verdict {
	FAULT_DONE,   /* the access may go on, its waiters are awake */
	FAULT_BUSY,   /* another thread is saving it, and will disarm it and wake */
	FAULT_ABSENT, /* a restore has not fetched it yet: it was asked for, and the thread that fetches it will wake */
	FAULT_STALLED, /* faults wait for the phase to move */
	FAULT_STARVED, /* no pool memory */
	FAULT_AGAIN,   /* the kernel wants an event to be read first */
	FAULT_REFUSED, /* the kernel has no page for this entry, or a restore could not fetch it: not our fault */
};

/* How long the starved writers of a region may go on to wait, by its handler; the snapshot fails when that is
 * over. UINT64_MAX: for ever, or there are none. */
uint64_t fault_starving_left_ns(struct uffdwp_region *region);

/* The word that inline writers and barriers sleep on. */
extern _Atomic uint32_t fault_change;

/* Resolves a fault. Inside the epoch. (signal) */
enum fault_verdict fault_resolve(struct fault *fault);

/* The same for a thread that will come back after a sleep: spins for a claimant, and fails the snapshot when the pool
 * has had no memory for too long. Inside the epoch. (signal) */
enum fault_verdict fault_resolve_with_retry(struct fault *fault);

/* Sleeps until what the verdict waits for may have come: fault_change is no longer `seen`, or a short time has passed.
 * Outside the epoch. (signal) */
void fault_sleep(const struct kernel_ops *k, enum fault_verdict verdict, uint32_t seen);

/* Before a cut writers are braked where they dirty memory faster than it can be armed: a thread that resolved a fault
 * sleeps. Outside the epoch. (signal) */
void fault_brake(const struct kernel_ops *k, uint32_t brake_ns);

/* For threads with a handle: resolves `page` and possibly more in [page, limit), sleeping as long as it takes. Fills
 * its entry where the region wants that (region_populates()). (signal) */
void fault_barrier(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by);

/* absent.c: 1: a lazy restore has something to say of the page: the verdict is in *verdict. */
int fault_meets_restore(struct fault *fault, enum phase phase, enum fault_verdict *verdict);

/* absent.c: asks for pages [first, end) and sleeps until all are there, or *stop is not 0 (NULL: never). 0, the
 * negative errno of the first page that a restore could not fetch (it is in *at, unless that is NULL), or *stop. It
 * costs nothing for a region without a restore. Not inside the epoch. (signal) */
int fault_await(struct uffdwp_region *region, uint64_t first, uint64_t end, const _Atomic int *stop, uint64_t *at);

/* absent.c: the region loses its handler: what was not fetched shall raise SIGBUS all the same (SIGSEGV where the
 * kernel has no poison). */
void fault_seal(struct uffdwp_region *region);

/* The same of pages [first, end), which lie at `address`: they were moved there. */
void fault_seal_at(struct uffdwp_region *region, uint64_t first, uint64_t end, uintptr_t address);

/* Filled at a stretch, inside the epoch: a cut waits so long. */
#define FAULT_SUPPLY_PAGES 16

/* supply.c: fills pages [first, end), FETCHING by the caller, with `bytes`; *until: where it stopped. 0; -EBUSY or
 * -EAGAIN: once more, after a sleep; -ENOENT, -ESRCH: not registered there any more; else the kernel has no memory.
 * Wakes no thread. */
int fault_supply(struct uffdwp_region *region, uint64_t first, uint64_t end, const unsigned char *bytes,
                 uint64_t *until);

/* supply.c: pages [first, end) are there now, or failed with `error`: says so and wakes. */
void fault_settle(struct uffdwp_region *region, struct lazy *lazy, uint64_t first, uint64_t end, int error);

/* gate.c: copies pages [first, end), FETCHING by the caller, into private memory of another process, but what that has
 * dropped. As uffd_copy(); -EBUSY: its handler is reading; -EEXIST: a page of several was dropped. Inside the epoch. */
int fault_copy_gated(struct uffdwp_region *region, uint64_t first, uint64_t end, const void *from, uint64_t mode);

/* gate.c: returns when no thread fills such memory, nor will while events_in_hand is raised. By its handler. */
void fault_close_gate(struct uffdwp_region *region);

/* gate.c: the mapper of such a region has discarded pages [first, end): they are zeros from now on. By its handler,
 * while the gate is closed. */
void fault_drop(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* supply.c: pages [first, end) will be discarded, with the region's lock held: nothing is fetched there any more, and
 * failed ones are forgiven. What a running snapshot needs is fetched first. */
void fault_begin_punch(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* supply.c: what became of that discard: if it failed, so have the pages whose content was given up. */
void fault_end_punch(struct uffdwp_region *region, uint64_t first, uint64_t end, int error);

/* 1: some thread sleeps on fault_change. (signal) */
int fault_has_sleepers(void);

/* Moves fault_change and wakes its sleepers. (signal) */
void fault_announce(const struct kernel_ops *k);

/* Wakes every writer of the region that sleeps in the kernel: a writer with a page that is still armed faults again.
 * (signal) */
void fault_wake_region(struct uffdwp_region *region);

/* By the handler, where a thread was refused to resume others: 0, or why it cannot be done. */
int fault_wake_again(struct uffdwp_region *region);

/* Writes to the region are stalled no more for the sake of a child (region/view.h): wakes the threads that wait for
 * that. */
void fault_wake_stalled(struct uffdwp_region *region);

/* Pool memory was freed: wakes the threads that wait for it. */
void fault_wake_starved(struct uffdwp_region *region);

/* preserve.c, for empty.c: what is done to a page that is written to; `phase` is what the fault began with. */
enum fault_verdict fault_unprotect(struct fault *fault, enum phase phase);

/* empty.c: an access to an empty entry. */
enum fault_verdict fault_empty(struct fault *fault, enum phase phase);

/* fill.c: fills the entries of those of the up to 64 pages [first, end) that are in `wanted` (bit n is page first + n)
 * and protected, write-protected, as far as they are empty and the file has content: under claims, so that no thread
 * saves or unprotects them meanwhile, and wakes. Where UFFDIO_CONTINUE_MODE_WP is available. Inside the epoch, or while
 * the region is sure to stay. (signal) */
void fault_fill_protected(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t wanted);

/* Wakes the threads that wait at one of pages [first, end): a thread with a page that is still protected faults again.
 * (signal) */
void fault_wake_pages(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* Counts by a relaxed addition. (signal) */
static inline void fault_count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* Fails the running snapshot once: writers go on at once, the sweep ends. Inside the epoch, or by its owner. (signal)
 */
void fault_fail(struct uffdwp_region *region, struct preserve *preserve, int error, uint64_t page);

/* The error that a snapshot fails with if it needs a page that a lazy restore did not fetch. An aborted restore is no
 * aborted snapshot. */
static inline int fault_unfetched_error(int error)
{
	return error == -ECANCELED ? -ENOLINK : error;
}

/* The same if the page is of the running snapshot; nothing if there is none. Inside the epoch. (signal) */
void fault_fail_page(struct uffdwp_region *region, int error, uint64_t page);

/* The same from outside of the epoch, by a thread whose signals are blocked. */
void fault_fail_running(struct uffdwp_region *region, int error, uint64_t page);

#endif
