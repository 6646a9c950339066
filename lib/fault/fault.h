/* SPDX-License-Identifier: MIT */
/*
 * The fault path: what happens when somebody is about to write to an armed page. Both deliveries, the explicit barrier
 * and the punch come through fault_resolve(); it is the only place that claims pages besides the sweep.
 *
 * This is a place with rules: nothing in preserve.c, inline.c and pool.c allocates, logs, takes a lock, or waits while
 * inside the epoch (tests/check-fault-path.sh holds the list of what they may call).
 *
 * INV-EPOCH: whoever looks at a region's phase and acts on it (claims, copies, disarms) does so inside fault_epoch;
 * whoever moves the phase calls epoch_wait() before he relies on it. So a fault that began under the former phase has
 * ended, and cannot disarm a page that the new phase has armed.
 *
 * INV-CUT: no write that depends on an excluded write is included. While the pages of a snapshot are being armed
 * (PHASE_HOLD) no fault is resolved; hence a thread that wrote to a page armed already is still asleep in that write
 * when the last page is armed, and nobody can have seen its effect.
 *
 * INV-WAKE: nobody sleeps for ever. A writer whose fault the handler left alone sleeps until (a) the claimant of its
 * page disarms it, or (b) all of the region are woken: when the phase moves (held), when pool memory was freed
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
	struct ring hot;           /* pages saved by faults, oldest first: hints for the sweep, may be incomplete */
	struct ring_cell *hot_cells;
	uint32_t hot_count;
	uint32_t window_max;
	int pagemap;     /* of memory that loses its marks with its content: a page without mark was lost; else -1 */
	uint32_t policy; /* enum uffdwp_policy */
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
	FAULT_BY_PUNCH,   /* uffdwp_region_punch(): reads by system calls, so that holes stay holes */
};

enum fault_verdict {
	FAULT_DONE,    /* the page is not protected any more, its waiters are awake */
	FAULT_BUSY,    /* somebody else is saving it, and will disarm it and wake */
	FAULT_HELD,    /* faults wait for the phase to move */
	FAULT_STARVED, /* no pool memory */
	FAULT_AGAIN,   /* the kernel wants an event to be read first */
};

/* The word that inline writers and barriers sleep on. */
extern _Atomic uint32_t fault_change;

/* Resolves a write to `page`, and may resolve neighbours in [page, limit) with it. Inside the epoch. (signal) */
enum fault_verdict fault_resolve(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by);

/* The same for a thread that will come back after a nap: spins for a claimant, and fails the snapshot when the pool has
 * had no memory until *until_ns (0 at first; the caller's, kept between calls). Inside the epoch. (signal) */
enum fault_verdict fault_resolve_patiently(struct uffdwp_region *region, uint64_t page, uint64_t limit,
                                           enum fault_by by, uint64_t *until_ns);

/* Sleeps until what the verdict waits for may have come: fault_change is no longer `seen`, or a short time has passed.
 * Outside the epoch. (signal) */
void fault_nap(const struct kernel_ops *k, enum fault_verdict verdict, uint32_t seen);

/* For threads with a handle: resolves `page` and possibly more in [page, limit), sleeping as long as it takes. (signal)
 */
void fault_barrier(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by);

/* Moves fault_change and wakes its sleepers. (signal) */
void fault_announce(const struct kernel_ops *k);

/* Wakes every writer of the region that sleeps in the kernel: whose page is still armed faults again. (signal) */
void fault_wake_region(struct uffdwp_region *region);

/* Moves the phase and waits until every fault that began under the former one has ended. Not inside the epoch. */
void fault_enter_phase(struct uffdwp_region *region, enum phase phase);

/* Wakes whoever the handler left asleep in this region: after the phase moved. */
void fault_wake_held(struct uffdwp_region *region);

/* Pool memory was freed: wakes whoever waits for it. */
void fault_wake_starved(struct uffdwp_region *region);

/* Fails the running snapshot once: writers go on at once, the sweep ends. Inside the epoch, or by its owner. (signal)
 */
void fault_fail(struct uffdwp_region *region, struct preserve *preserve, int error, uint64_t page);

#endif
