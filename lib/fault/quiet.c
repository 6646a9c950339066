/* SPDX-License-Identifier: MIT */
/*
 * Around the holding of faults, not part of the fault path: a region falls quiet, because nobody watches it any more;
 * and what keeps one holding after the other from starving a writer.
 *
 * Threads: as fault.h says of each.
 */
#include "base/signals.h"
#include "fault/fault.h"

/* A wake-up on another CPU and the fault that follows. */
#define PASS_NS_LEAST 60000

void fault_let_pass(const struct uffdwp_region *region, uint64_t held_ns)
{
	static const uint32_t nobody;

	region->k->futex_wait(&nobody, 0, held_ns > PASS_NS_LEAST ? held_ns : PASS_NS_LEAST);
}

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
	region->kept = 0;
	atomic_store(&region->active, (uint32_t)(region_is_wanted(region) || atomic_load(&region->lazy) != NULL));
	atomic_store(&region->phase, (uint32_t)PHASE_IDLE);
	fault_wake_held(region);
	signals_restore(&before);
	return error;
}
