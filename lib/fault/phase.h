/* SPDX-License-Identifier: MIT */
/*
 * The phase of a region, which says what a fault means (region/region.h): phase.c alone moves it.
 *
 *   IDLE --stall--> HOLD --resume--> IDLE or PRESERVE          PRESERVE --fail--> RELEASE
 *
 * From stall to resume no fault of the region is resolved: its writers sleep, and what is armed or disarmed meanwhile
 * no earlier fault can undo (INV-EPOCH, INV-CUT in fault.h).
 *
 * INV-PHASE: a phase moves along these arrows only, and by this file only: one thread at a time stalls, and resumes
 * what it has stalled.
 *
 * Threads: a caller that holds the region's lock and has blocked its signals; a signal handler that wrote to the region
 * would wait for the thread that it interrupted. phase_fail() and phase_wake() are the fault path's, too.
 */
#ifndef UFFDWP_FAULT_PHASE_H
#define UFFDWP_FAULT_PHASE_H

#include "region/region.h"

/* Stalls the region's faults, and waits until every earlier fault has ended. Not inside the epoch. Returns the phase
 * that it was in. */
enum phase phase_stall(struct uffdwp_region *region);

/* The same for several regions: of each, then one fault_epoch_wait(). */
enum phase phase_stall_begin(struct uffdwp_region *region);

/* Moves on to `next` and wakes the stalled writers. 1: some may have slept. */
int phase_resume(struct uffdwp_region *region, enum phase next);

/* The same in two steps, for several regions: all move on before any writer is woken. A snapshot that failed while
 * faults were stalled moves on to RELEASE instead of PRESERVE. */
void phase_move(struct uffdwp_region *region, enum phase next);
int phase_wake(struct uffdwp_region *region);

/* The running snapshot has failed: from PRESERVE to RELEASE; from any other phase the thread that stalled the faults
 * moves on there. (signal) */
void phase_fail(struct uffdwp_region *region);

/* Between two stalls, without a lock: gives stalled writers the time to get through. */
void phase_pause(const struct uffdwp_region *region, uint64_t stalled_ns);

/* Unprotects all of a region that no snapshot needs. Blocks signals itself. -errno: the kernel refused, and pages may
 * still fault; the fault path unprotects each. */
int phase_quiesce(struct uffdwp_region *region);

/* Disarms pages [first, end), which are LEAVING. 0: they are FREE; -errno: they stay LEAVING, so that a write, a
 * barrier or the next disarming takes the wp bit off (INV-OPEN). With the region's lock held. */
int phase_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* The same if the protection is wanted no more: by no snapshot, view, track, restore or caller. */
void phase_quiesce_if_unwanted(struct uffdwp_region *region);

#endif
