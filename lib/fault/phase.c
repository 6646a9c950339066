/* SPDX-License-Identifier: MIT */
/* How the phase of a region moves; see phase.h. phase_fail() and phase_wake() are part of the fault path. */
#include "fault/phase.h"

#include "base/invariant.h"
#include "base/signals.h"
#include "fault/fault.h"

/* A wake-up on another CPU and the fault that follows. */
#define PASS_NS_LEAST 60000

enum phase phase_stall_begin(struct uffdwp_region *region)
{
	INVARIANT(LOCK, invariant_holds(&region->lock) && invariant_signals_blocked());
	enum phase before = (enum phase)atomic_exchange(&region->phase, (uint32_t)PHASE_STALL);

	INVARIANT(PHASE, before != PHASE_STALL);
	return before;
}

enum phase phase_stall(struct uffdwp_region *region)
{
	enum phase before = phase_stall_begin(region);

	fault_epoch_wait();
	return before;
}

/* Partner: the exchange of `error` in fault_fail(), which comes before phase_fail(): one of the two sees the other. */
void phase_move(struct uffdwp_region *region, enum phase next)
{
	const struct preserve *preserve = atomic_load(&region->preserve);

	INVARIANT(LOCK, invariant_holds(&region->lock));
	INVARIANT(PHASE, next != PHASE_STALL && (next == PHASE_IDLE || atomic_load(&region->phase) == PHASE_STALL));
	INVARIANT(PHASE, next != PHASE_PRESERVE || preserve);
	atomic_store(&region->phase, (uint32_t)next);
	if (next == PHASE_PRESERVE && preserve && atomic_load(&preserve->error))
		phase_fail(region);
}

int phase_wake(struct uffdwp_region *region)
{
	int inline_sleeps = fault_has_sleepers();

	INVARIANT(WAKE, atomic_load(&region->phase) != PHASE_STALL); /* a thread that is woken would sleep again */
	fault_announce(region->k);
	if (!atomic_exchange(&region->held, 0))
		return inline_sleeps;
	fault_wake_region(region);
	return 1;
}

int phase_resume(struct uffdwp_region *region, enum phase next)
{
	phase_move(region, next);
	return phase_wake(region);
}

void phase_fail(struct uffdwp_region *region)
{
	uint32_t preserving = PHASE_PRESERVE;

	atomic_compare_exchange_strong(&region->phase, &preserving, (uint32_t)PHASE_RELEASE);
}

void phase_pause(const struct uffdwp_region *region, uint64_t stalled_ns)
{
	kernel_sleep(region->k, stalled_ns > PASS_NS_LEAST ? stalled_ns : PASS_NS_LEAST);
}

int phase_disarm(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = region_disarm_run(region, first, end);

	if (!error)
		ledger_set_range(&region->ledger, first, end, LEDGER_FREE);
	return error;
}

int phase_quiesce(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);
	sigset_t before;
	int error = 0;

	if (!atomic_load(&region->dead))
		(void)region_mend(region); /* what is not registered refuses to be disarmed */
	signals_block(&before);
	phase_stall(region);
	ledger_set_range(&region->ledger, 0, pages, LEDGER_LEAVING);
	atomic_store(&region->clinging, 0);
	if (atomic_load(&region->dead)) /* nothing is armed any more */
		ledger_set_range(&region->ledger, 0, pages, LEDGER_FREE);
	else
		error = phase_disarm(region, 0, pages);
	region_unkeep(region, REGION_UNKEPT_DISARMED);
	atomic_store(&region->active, (uint32_t)region_is_active(region));
	phase_resume(region, PHASE_IDLE);
	signals_restore(&before);
	return error;
}

void phase_quiesce_if_unwanted(struct uffdwp_region *region)
{
	int is_wanted = region->caller_armed || region_is_wanted(region) || atomic_load(&region->preserve) != NULL;

	if (!is_wanted && !region->soft_dirty && !atomic_load(&region->dead))
		phase_quiesce(region);
}
