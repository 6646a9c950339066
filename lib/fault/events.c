/* SPDX-License-Identifier: MIT */
/*
 * See events.h. The caller of madvise(2) and its like goes on as soon as its event was read: by the time we act,
 * content may have vanished. So a snapshot that still needed it fails; nothing can be saved from behind.
 */
#include "fault/events.h"

#include <errno.h>
#include <string.h>

#include "base/trace.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "region/lazy.h"

/* The pages of the region that [start, end) touches; 0: none. */
static int pages_of(const struct uffdwp_region *region, uint64_t start, uint64_t end, uint64_t *first, uint64_t *last)
{
	uint64_t base = (uint64_t)atomic_load(&region->base);
	uint64_t limit = base + region->capacity_bytes;

	if (start >= limit || end <= base)
		return 0;
	*first = ((start > base ? start : base) - base) >> region->page_shift;
	*last = ((end < limit ? end : limit) - base + region->page_bytes - 1) >> region->page_shift;
	return 1;
}

/* Marks and content of [first, end) are gone. A page being claimed at this moment may have been copied too late. */
static void lose_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		int armed = ledger_move(&region->ledger, page, LEDGER_ARMED, LEDGER_LOST);

		if (armed || ledger_move(&region->ledger, page, LEDGER_WATCHED, LEDGER_LOST))
			loss_add(region, UFFDWP_LOSS_ZAP, page);
		if (armed || ledger_get(&region->ledger, page) == LEDGER_CLAIMED)
			fault_fail_running(region, -ENODATA, page);
	}
}

/* The content of [first, end) may be gone: a snapshot that has not saved it yet cannot know. */
static void distrust_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		enum ledger_state state = ledger_get(&region->ledger, page);

		if (state == LEDGER_ARMED || state == LEDGER_CLAIMED) {
			fault_fail_running(region, -ENODATA, page);
			return;
		}
	}
}

static void take_remove(struct uffdwp_region *region, const struct uffd_msg *message)
{
	uint64_t first;
	uint64_t end;

	atomic_fetch_add_explicit(&region->counters.events_remove, 1, memory_order_relaxed);
	if (!pages_of(region, message->arg.remove.start, message->arg.remove.end, &first, &end))
		return;
	/* What was discarded is not what it was: tracks are told, also where MADV_DONTNEED kept the content. */
	region_note_written_range(region, first, end);
	/* Of shmem and hugetlb MADV_DONTNEED keeps the content; the sweep compares, but without the file it could not
	 * tell. Empty entries that are ours are found at their next access. */
	if (region_loses_marks(region))
		lose_pages(region, first, end);
	else if (region->fd < 0)
		distrust_pages(region, first, end);
}

/* What was armed there is watched no more. */
static void lose_mapping(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (ledger_is_marked(ledger_get(&region->ledger, page)))
			loss_add(region, UFFDWP_LOSS_UNMAPPED, page);
	}
}

static void take_remap(struct uffdwp_region *region, const struct uffd_msg *message)
{
	atomic_fetch_add_explicit(&region->counters.events_remap, 1, memory_order_relaxed);
	if (message->arg.remap.from == atomic_load(&region->base) && message->arg.remap.len == region->capacity_bytes) {
		registry_move(region, (uintptr_t)message->arg.remap.to);
		return;
	}
	atomic_store(&region->unmapped, 1);
	lose_mapping(region, 0, region->ledger.count);
	events_die(region, -ESTALE, 0);
}

static void take_unmap(struct uffdwp_region *region, const struct uffd_msg *message)
{
	uint64_t first;
	uint64_t end;

	/* The old place of a region that moved is reported too: not ours any more. */
	if (!pages_of(region, message->arg.remove.start, message->arg.remove.end, &first, &end))
		return;
	atomic_fetch_add_explicit(&region->counters.events_unmap, 1, memory_order_relaxed);
	atomic_store(&region->unmapped, 1);
	lose_mapping(region, first, end);
	events_die(region, -ESTALE, first);
}

static void stop_restore(struct uffdwp_region *region, int error)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct lazy *lazy = atomic_load(&region->lazy);

	if (lazy)
		lazy_stop(lazy, error);
	epoch_leave(ticket);
}

void events_die(struct uffdwp_region *region, int error, uint64_t page)
{
	TRACE("region %p: dead, %s", (void *)region, strerror(-error));
	atomic_store(&region->dead, 1);
	stop_restore(region, error);
	fault_fail_running(region, error, page);
}

void events_take(struct uffdwp_region *region, const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_REMOVE:
		take_remove(region, message);
		break;
	case UFFD_EVENT_REMAP:
		take_remap(region, message);
		break;
	case UFFD_EVENT_UNMAP:
		take_unmap(region, message);
		break;
	default:
		break;
	}
}
