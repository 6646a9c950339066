/* SPDX-License-Identifier: MIT */
/* How a running snapshot fails: once, by the thread that finds the reason. Part of the fault path. */
#include "fault/fault.h"
#include "fault/phase.h"

void fault_fail(struct uffdwp_region *region, struct preserve *preserve, int error, uint64_t page)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&preserve->error, &none, error))
		return;
	atomic_store(&preserve->error_page, page);
	phase_fail(region); /* not if the phase has moved on: then the snapshot's own thread is ending it */
	fault_announce(region->k);
	atomic_store(&region->starved, 0);
	fault_wake_region(region);
}

void fault_fail_page(struct uffdwp_region *region, int error, uint64_t page)
{
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve && page < preserve->end_page)
		fault_fail(region, preserve, error, page);
}

void fault_fail_running(struct uffdwp_region *region, int error, uint64_t page)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	fault_fail_page(region, error, page);
	epoch_leave(ticket);
}

uint64_t fault_starving_left_ns(struct uffdwp_region *region)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct preserve *preserve = atomic_load(&region->preserve);
	uint64_t since = atomic_load(&region->starved_since_ns);
	uint64_t left = UINT64_MAX;

	if (preserve && since && atomic_load(&region->starved) && !atomic_load(&preserve->error)) {
		uint64_t waited = kernel_now_ns() - since;

		if (waited < preserve->wait_ns)
			left = preserve->wait_ns - waited;
		else
			fault_fail(region, preserve, -ETIME, atomic_load(&region->starved_page));
	}
	epoch_leave(ticket);
	return left;
}
