/* SPDX-License-Identifier: MIT */
/*
 * The entry of the fault path: both deliveries, the explicit barrier and the punch come through here. What a fault
 * means is asked top down: is the page there at all (absent.c), is its entry (empty.c), what becomes of a write
 * (preserve.c). Part of the fault path.
 */
#include <errno.h>

#include "base/cpu.h"
#include "base/invariant.h"
#include "base/probe_points.h"
#include "base/signals.h"
#include "fault/fault.h"

/* How often a thread looks at a claimed page before it sleeps. */
#define FAULT_SPINS 2000

enum fault_verdict fault_resolve(struct fault *fault)
{
	enum phase phase = (enum phase)atomic_load(&fault->region->phase);

	enum fault_verdict verdict;

	INVARIANT(EPOCH, invariant_inside() > 0);
	PROBE4(fault, fault->region, fault->page, fault->access, fault->by);
	if (atomic_load(&fault->region->lazy) && fault_meets_restore(fault, phase, &verdict))
		return verdict;
	if (phase == PHASE_STALL || atomic_load(&fault->region->unbegun) ||
	    (atomic_load(&fault->region->view_stalls) && fault->access != FAULT_READ_EMPTY))
		return FAULT_STALLED;
	return fault->access == FAULT_WRITE ? fault_unprotect(fault, phase) : fault_empty(fault, phase);
}

/* The bound of policy `wait` for threads that sleep themselves: counted from when they first found no memory. */
static enum fault_verdict resolve_starved(struct fault *fault)
{
	struct preserve *preserve = atomic_load(&fault->region->preserve);
	uint64_t now = kernel_now_ns();

	if (!fault->until_ns) {
		fault_count(&preserve->waits, 1);
		fault->until_ns = preserve->wait_ns < UINT64_MAX - now ? now + preserve->wait_ns : UINT64_MAX;
	}
	if (now < fault->until_ns)
		return FAULT_STARVED;
	fault_fail(fault->region, preserve, -ETIME, fault->page);
	return FAULT_AGAIN;
}

/* What a thread that announces an access is taken to have met. */
static enum fault_access resolve_access_of(const struct uffdwp_region *region, enum fault_by by)
{
	if (by == FAULT_BY_READER)
		return FAULT_READ_EMPTY;
	return by == FAULT_BY_BARRIER && region_populates(region) ? FAULT_WRITE_EMPTY : FAULT_WRITE;
}

enum fault_verdict fault_resolve_with_retry(struct fault *fault)
{
	enum fault_verdict verdict = fault_resolve(fault);

	for (unsigned spins = 0; verdict == FAULT_BUSY && spins < FAULT_SPINS; spins++) {
		cpu_relax();
		if (ledger_get(&fault->region->ledger, fault->page) != LEDGER_CLAIMED)
			verdict = fault_resolve(fault);
	}
	return verdict == FAULT_STARVED ? resolve_starved(fault) : verdict;
}

void fault_barrier(struct uffdwp_region *region, uint64_t page, uint64_t limit, enum fault_by by)
{
	struct fault fault = {.region = region, .page = page, .limit = limit, .by = by};
	enum fault_verdict verdict;
	sigset_t before;

	do {
		uint32_t seen = atomic_load(&fault_change);

		fault.brake_ns = 0;
		fault.access = resolve_access_of(region, by);
		/* A signal handler that wrote to a page which this thread has claimed would wait for itself. */
		signals_block(&before);
		epoch_ticket ticket = epoch_enter(&fault_epoch);

		verdict = fault_resolve_with_retry(&fault);
		epoch_leave(ticket);
		signals_restore(&before);
		fault_brake(region->k, fault.brake_ns);
		if (verdict != FAULT_DONE && verdict != FAULT_REFUSED)
			fault_sleep(region->k, verdict, seen);
	} while (verdict != FAULT_DONE && verdict != FAULT_REFUSED);
}
