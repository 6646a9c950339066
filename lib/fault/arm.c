/* SPDX-License-Identifier: MIT */
/* See arm.h. */
#include "fault/arm.h"

#include <errno.h>

#include "base/errno_name.h"
#include "base/invariant.h"
#include "base/signals.h"
#include "fault/phase.h"

/* With the region's lock held. */
static int arm_check_unused(const struct uffdwp_region *region)
{
	INVARIANT(LOCK, invariant_holds(&region->lock));
	if (atomic_load(&region->preserve))
		return text_fail(region->text, -EBUSY, "a snapshot of this region is running");
	if (atomic_load(&region->tracked))
		return text_fail(region->text, -EBUSY, "a track watches this region: it arms, and would miss this");
	return 0;
}

/* While faults are stalled. What the kernel has armed before it refused is unprotected, or is left to its faults. */
static int arm_put_on(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	ledger_set_range(&region->ledger, first, end, LEDGER_ARMED);
	int error = region_arm_run(region, first, end);

	if (error) {
		ledger_set_range(&region->ledger, first, end, LEDGER_LEAVING);
		region_disarm_run(region, first, end);
	}
	return error;
}

/* While faults are stalled. */
static int arm_take_off(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	ledger_set_range(&region->ledger, first, end, LEDGER_LEAVING);
	return phase_disarm(region, first, end);
}

/* With the region's lock held. */
static int arm_stalled(struct uffdwp_region *region, uint64_t first, uint64_t end,
                       int (*change)(struct uffdwp_region *, uint64_t, uint64_t))
{
	sigset_t before;

	(void)region_activate(region);
	signals_block(&before);
	phase_stall(region);
	region_note_changed_range(region, first, end); /* perhaps: the ledger forgets it now */
	int error = change(region, first, end);

	phase_resume(region, PHASE_IDLE);
	signals_restore(&before);
	return error;
}

static int arm_locked(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = arm_check_unused(region);

	if (error)
		return error;
	region->caller_armed = 1;
	atomic_store(&region->coarse, REGION_EXACT);
	error = region_prepare(region);
	if (error)
		return error;
	error = arm_stalled(region, first, end, arm_put_on);
	return error ? text_fail(region->text, error, "the kernel refused to arm the range: %s", errno_text(error)) : 0;
}

int arm_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	lock_take(&region->lock);
	int error = arm_locked(region, first, end);

	lock_give(&region->lock);
	return error;
}

static int arm_undo_locked(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = arm_check_unused(region);

	if (!error)
		error = region_mend(region);
	if (error)
		return error;
	error = arm_stalled(region, first, end, arm_take_off);
	return error ? text_fail(region->text, error, "the kernel refused to disarm the range: %s", errno_text(error))
	             : 0;
}

int arm_undo(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	lock_take(&region->lock);
	int error = arm_undo_locked(region, first, end);

	lock_give(&region->lock);
	return error;
}
