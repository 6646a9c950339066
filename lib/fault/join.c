/* SPDX-License-Identifier: MIT */
/* Another process comes to map the memory of an adopted region: runtime.h. Threads: the caller's. */
#include <errno.h>
#include <stdatomic.h>

#include "base/errno_name.h"
#include "fault/handler.h"
#include "fault/runtime.h"
#include "region/ledger.h"
#include "region/mapper.h"
#include "region/registry.h"

/* While nothing of the region is armed, so that the ledger holds for the mapper, too. With the region's lock held. */
static int join_check(const struct uffdwp_region *region)
{
	if (atomic_load(&region->dead))
		return text_fail(region->text, -ESTALE, "%s: close it", region_death(region));
	if (region->is_private)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "private memory is of one process: what another one maps is another region");
	if (region->snapshot_open || region->cut_comes || region->restore_open || atomic_load(&region->lazy) ||
	    ledger_has(&region->ledger, 0, region_pages(region), LEDGER_BITS_PROTECTED | LEDGER_BIT(CLAIMED)))
		return text_fail(region->text, -EBUSY,
		                 "a snapshot, restore, view or track of the region is open, or it is protected for the "
		                 "next increment: uffdwp_region_disarm()");
	return 0;
}

/* The slots of those that have ended, but for the first, by which the handler knows the region. */
static void join_forget_gone(struct uffdwp_region *region)
{
	struct mappers *mappers = region->mappers;
	uint64_t gone = 0;

	for (unsigned i = 1; i < atomic_load(&mappers->end); i++) {
		if (!atomic_load(&mappers->at[i].used) || !atomic_load(&mappers->at[i].gone))
			continue;
		handler_part(region->handler, &mappers->at[i]);
		gone |= 1ull << i;
	}
	if (gone) {
		handler_sync(region->handler); /* what it had read of them is acted on */
		fault_epoch_wait();            /* no thread uses them any more */
	}
	for (; gone; gone &= gone - 1)
		mapper_close(&mappers->at[__builtin_ctzll(gone)]);
}

int runtime_join_mapper(struct uffdwp_region *region, const struct mapper_plan *plan)
{
	struct mapper *mapper = NULL;

	lock_take(&region->lock);
	int error = join_check(region);

	if (!error) {
		join_forget_gone(region);
		error = mapper_open(region, plan, &mapper);
	}
	if (!error) {
		error = handler_join(region->handler, mapper);
		if (error) {
			mapper_note_gone(mapper);
			fault_epoch_wait();
			mapper_close(mapper);
			text_fail(region->text, error, "the handler thread did not take the process: %s",
			          errno_text(error));
		}
	}
	lock_give(&region->lock);
	return error;
}
