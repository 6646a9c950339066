/* SPDX-License-Identifier: MIT */
/*
 * A region falls quiet: nobody watches it any more, and nothing shall fault. Not part of the fault path.
 *
 * Threads: with the region's lock held, signals blocked while faults are held.
 */
#include "base/signals.h"
#include "fault/fault.h"

int fault_let_all_go(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);
	sigset_t before;
	int error = 0;

	signals_block(&before);
	fault_enter_phase(region, PHASE_HOLD);
	ledger_set_range(&region->ledger, 0, pages, LEDGER_LEAVING);
	if (!atomic_load(&region->dead))
		error = region_disarm_run(region, 0, pages);
	ledger_set_range(&region->ledger, 0, pages, LEDGER_FREE);
	atomic_store(&region->active, 0);
	region->kept = 0;
	atomic_store(&region->phase, (uint32_t)PHASE_IDLE);
	fault_wake_held(region);
	signals_restore(&before);
	return error;
}
