/* SPDX-License-Identifier: MIT */
/*
 * Private memory of another process: what it discards while a restore fetches it. Each discard is an event, and the
 * thread that discards goes on as soon as its event was read. Until then the kernel refuses fills (-EAGAIN); from then
 * on the memory may be gone at any moment, and an old content must not be filled in after that.
 *
 * So there is a gate between fills and reads of events. The handler raises events_in_hand, waits until no thread is
 * filling, and only then reads; it lowers the flag when it has noted all discards that it has read. A fill comes either
 * before the event of a discard is read, and is discarded with all else; or after it was noted, and sees that: what was
 * dropped is left empty, and reads as zeros. What is discarded before a restore begins is noted among the changed
 * pages, for which such a region has no other use; restore_drop_discarded() reads them.
 *
 * A handler waits for one call of UFFDIO_COPY by each thread that fetches: of 64 KiB at most, or of one huge page.
 */
#include <errno.h>

#include "fault/fault.h"
#include "kernel/backoff.h"
#include "region/lazy.h"
#include "region/mapper.h"

static int gate_is_dropped(const struct lazy *lazy, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (lazy_state(lazy, page) == LAZY_DROPPED)
			return 1;
	}
	return 0;
}

/* Partner: fault_close_gate(). The thread is counted before it looks at the flag. */
int fault_copy_gated(struct uffdwp_region *region, uint64_t first, uint64_t end, const void *from, uint64_t mode)
{
	int error = -EBUSY;

	atomic_fetch_add(&region->supplying, 1);
	if (!atomic_load(&region->events_in_hand)) {
		int is_dropped = gate_is_dropped(atomic_load(&region->lazy), first, end);

		error = !is_dropped ? mappers_copy(region, first, end, from, mode) : end - first > 1 ? -EEXIST : 0;
	}
	atomic_fetch_sub(&region->supplying, 1);
	return error;
}

void fault_close_gate(struct uffdwp_region *region)
{
	unsigned turn = 0;

	while (region->is_private && atomic_load(&region->supplying))
		kernel_back_off(region->k, &turn);
}

void fault_drop(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	region_note_changed_range(region, first, end); /* before it looks for a restore; partner: restore_publish() */
	struct lazy *lazy = atomic_load(&region->lazy);

	for (uint64_t page = first; lazy && page < end; page++)
		lazy_drop(lazy, page);
	epoch_leave(ticket);
	if (!lazy)
		return;
	fault_wake_pages(region, first, end);
	fault_announce(region->k);
}
