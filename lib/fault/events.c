/* SPDX-License-Identifier: MIT */
/*
 * See events.h. The caller of madvise(2) and its like goes on as soon as its event was read: by the time we act,
 * content may have vanished. So a snapshot that still needed it fails; nothing can be saved afterwards.
 */
#include "fault/events.h"

#include <errno.h>
#include <string.h>

#include "base/trace.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"
#include "region/lazy.h"
#include "region/mapper.h"
#include "region/tables.h"
#include "region/view.h"

/* How often the place that a region was moved from is looked at while the kernel says that an event is pending. */
#define MOVE_TRIES 1000

/* Pages that are noted at a stretch, inside the epoch: a cut waits so long. */
#define NOTE_PAGES 4096

/* The pages of the region that [start, end) touches; 0: none. */
static int events_pages_of(const struct uffdwp_region *region, uint64_t start, uint64_t end, uint64_t *first,
                           uint64_t *last)
{
	uint64_t base = (uint64_t)atomic_load(&region->base);
	uint64_t limit = base + region->capacity_bytes;

	if (start >= limit || end <= base)
		return 0;
	*first = ((start > base ? start : base) - base) >> region->page_shift;
	*last = ((end < limit ? end : limit) - base + region->page_bytes - 1) >> region->page_shift;
	return 1;
}

/* Wp bits and content of [first, end) are gone. A page being claimed at this moment may have been copied too late. */
static void events_lose_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
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
static void events_distrust_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		enum ledger_state state = ledger_get(&region->ledger, page);

		if (state == LEDGER_ARMED || state == LEDGER_CLAIMED) {
			fault_fail_running(region, -ENODATA, page);
			return;
		}
	}
}

/* Inside the epoch: a cut gives the bitmap of changed pages to its snapshot, which frees it. */
static void events_note_discarded(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page += NOTE_PAGES) {
		epoch_ticket ticket = epoch_enter(&fault_epoch);

		region_note_written_range(region, page, page + NOTE_PAGES < end ? page + NOTE_PAGES : end);
		epoch_leave(ticket);
	}
}

static void events_discard_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	/* What was discarded is not what it was: it is reported to tracks, also where MADV_DONTNEED kept the
	 * content. */
	events_note_discarded(region, first, end);
	/* On shmem and hugetlb MADV_DONTNEED keeps the content; the sweep compares, but without the file it could not
	 * know. Empty entries that are ours are found at their next access. */
	if (region_loses_wp_bits(region))
		events_lose_pages(region, first, end);
	else if (region->fd < 0 || (region->mappers && !region_owns_empty(region)))
		events_distrust_pages(region, first, end);
}

static void events_take_remove(struct uffdwp_region *region, const struct uffd_msg *message)
{
	uint64_t first;
	uint64_t end;

	atomic_fetch_add_explicit(&region->counters.events_remove, 1, memory_order_relaxed);
	if (events_pages_of(region, message->arg.remove.start, message->arg.remove.end, &first, &end))
		events_discard_pages(region, first, end);
}

/* What was armed there is watched no more. */
static void events_lose_mapping(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (ledger_is_protected(ledger_get(&region->ledger, page)))
			loss_add(region, UFFDWP_LOSS_UNMAPPED, page);
	}
}

/* Where a mapping was moved from, and to. */
struct move {
	uint64_t from;
	uint64_t to;
	uint64_t length;
};

/*
 * 1: memory of the region is still mapped at the old place (MREMAP_DONTUNMAP), empty, and registered. A new mapping may
 * lie there already, which is not registered with this uffd. What cannot be known counts as still there.
 */
static int events_stays_at_old_place(struct uffdwp_region *region, const struct move *move)
{
	unsigned char ignored;
	unsigned turn = BACKOFF_YIELD;
	int error = region->k->mincore((void *)(uintptr_t)move->from, 1, &ignored);

	if (error == -ENOMEM || region->uffd < 0)
		return 0;
	if (!(region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP))
		return 1;
	for (int i = 0; i < MOVE_TRIES; i++) { /* -EAGAIN: the thread that moved it was woken, and runs soon */
		error = region->k->uffd_writeprotect(region->uffd, move->from, region->page_bytes, 0);
		if (error != -EAGAIN)
			break;
		kernel_back_off(region->k, &turn);
	}
	return error != -ENOENT;
}

/* Faults of a moved part come from its new place, where no page of the region is: no thread may wait there. */
static void events_release_moved(struct uffdwp_region *region, const struct move *move)
{
	uint64_t first;
	uint64_t end;

	if (events_pages_of(region, move->from, move->from + move->length, &first, &end)) {
		fault_seal_at(region, first, end, (uintptr_t)move->from);
		fault_seal_at(region, first, end, (uintptr_t)move->to);
	}
	registry_note_gone((uintptr_t)move->to, (uintptr_t)(move->to + move->length));
	region->k->uffd_unregister(region->uffd, move->to, move->length);
	if (events_stays_at_old_place(region, move))
		region->k->uffd_unregister(region->uffd, move->from, move->length);
}

static void events_take_remap(struct uffdwp_region *region, const struct uffd_msg *message)
{
	const struct move move = {message->arg.remap.from, message->arg.remap.to, message->arg.remap.len};

	if (tables_is_own_move(region, (uintptr_t)move.to))
		return;
	int whole = move.from == atomic_load(&region->base) && move.length == region->capacity_bytes;

	atomic_fetch_add_explicit(&region->counters.events_remap, 1, memory_order_relaxed);
	if (whole && !events_stays_at_old_place(region, &move)) {
		registry_move(region, (uintptr_t)move.to);
		return;
	}
	atomic_store(&region->unmapped, 1);
	events_lose_mapping(region, 0, region->ledger.count);
	events_lose_sight(region, REGION_UNMAPPED, -ESTALE);
	events_release_moved(region, &move);
}

static void events_take_unmap(struct uffdwp_region *region, const struct uffd_msg *message)
{
	uint64_t first;
	uint64_t end;

	/* The old place of a region that moved is reported too: not ours any more. */
	if (!events_pages_of(region, message->arg.remove.start, message->arg.remove.end, &first, &end))
		return;
	atomic_fetch_add_explicit(&region->counters.events_unmap, 1, memory_order_relaxed);
	atomic_store(&region->unmapped, 1);
	events_lose_mapping(region, first, end);
	events_die(region, REGION_UNMAPPED, -ESTALE, first);
}

static void events_stop_restore(struct uffdwp_region *region, int error)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct lazy *lazy = atomic_load(&region->lazy);

	if (lazy)
		lazy_stop(lazy, error);
	epoch_leave(ticket);
}

void events_lose_sight(struct uffdwp_region *region, enum region_death death, int error)
{
	events_die(region, death, error, 0);
	view_fail_all(region, error);
}

void events_die(struct uffdwp_region *region, enum region_death death, int error, uint64_t page)
{
	region_die(region, death);
	TRACE("region %p: dead, %s", (void *)region, region_death(region));
	events_stop_restore(region, error);
	fault_fail_running(region, error, page);
}

/* ---- of other processes ---- */

void events_lose_mapper(struct mapper *mapper)
{
	struct uffdwp_region *region = mapper->region;

	TRACE("region %p: a process that maps it has ended", (void *)region);
	mapper_note_gone(mapper);
	if (!mappers_live(region) && !atomic_load(&region->dead))
		events_die(region, REGION_ENDED, -EOWNERDEAD, 0);
}

static void events_take_remove_of(const struct mapper *mapper, const struct uffd_msg *message)
{
	uint64_t first;
	uint64_t end;

	atomic_fetch_add_explicit(&mapper->region->counters.events_remove, 1, memory_order_relaxed);
	for (unsigned i = 0; i < mapper->count; i++) {
		if (!mapper_overlaps(mapper, i, message->arg.remove.start, message->arg.remove.end, &first, &end))
			continue;
		if (mapper->region->is_private)
			fault_drop(mapper->region, first, end);
		else
			events_discard_pages(mapper->region, first, end);
	}
}

static int events_touch(const struct mapper *mapper, uint64_t start, uint64_t end)
{
	uint64_t ignored;
	int touch = 0;

	for (unsigned i = 0; i < mapper->count; i++)
		touch |= mapper_overlaps(mapper, i, start, end, &ignored, &ignored);
	return touch;
}

/* Whatever it does there beside that: writes may go unseen from now on. */
void events_take_of(struct mapper *mapper, const struct uffd_msg *message)
{
	struct uffdwp_region *region = mapper->region;

	switch (message->event) {
	case UFFD_EVENT_REMOVE:
		if (!region->is_private) /* those were taken first */
			events_take_remove_of(mapper, message);
		return;
	case UFFD_EVENT_FORK:
		region->k->close((int)message->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		atomic_fetch_add_explicit(&region->counters.events_remap, 1, memory_order_relaxed);
		break;
	case UFFD_EVENT_UNMAP:
		if (!events_touch(mapper, message->arg.remove.start, message->arg.remove.end))
			return; /* memory of another kind */
		atomic_fetch_add_explicit(&region->counters.events_unmap, 1, memory_order_relaxed);
		break;
	default:
		return;
	}
	events_lose_sight(region, REGION_CHANGED, -ESTALE);
}

void events_take_discards_of(struct mapper *mapper, const struct uffd_msg *messages, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (messages[i].event == UFFD_EVENT_REMOVE)
			events_take_remove_of(mapper, &messages[i]);
	}
}

/* ---- of this one ---- */

void events_take(struct uffdwp_region *region, const struct uffd_msg *message)
{
	switch (message->event) {
	case UFFD_EVENT_REMOVE:
		events_take_remove(region, message);
		break;
	case UFFD_EVENT_REMAP:
		events_take_remap(region, message);
		break;
	case UFFD_EVENT_UNMAP:
		events_take_unmap(region, message);
		break;
	default:
		break;
	}
}
