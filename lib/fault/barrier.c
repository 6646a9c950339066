/* SPDX-License-Identifier: MIT */
/* See barrier.h. The discard of pages is seen by all that keep something of them: by the restore, which fetches nothing
 * there any more; by the snapshot that runs, which preserves them first; by the handler, which must not take its event
 * for a later one; by the snapshot that prepares its cut, which shall not miss their content. */
#include "fault/barrier.h"

#include "fault/fault.h"
#include "fault/handler.h"

static int barrier_page_is_open(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_get(&region->ledger, page);

	return state == LEDGER_FREE || state == LEDGER_OPEN; /* INV-OPEN */
}

int barrier_is_open(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	if (region_populates(region) || atomic_load(&region->lazy))
		return 0;
	while (first < end && barrier_page_is_open(region, first))
		first++;
	return first == end;
}

/* Preserves what is armed in pages [first, end). (signal) */
static void barrier_pages(struct uffdwp_region *region, uint64_t first, uint64_t end, enum fault_by by)
{
	for (uint64_t page = first; page < end; page++) {
		if (!barrier_page_is_open(region, page) || (region_populates(region) && by == FAULT_BY_BARRIER))
			fault_barrier(region, page, end, by);
	}
}

int barrier_prepare(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = fault_await(region, first, end, NULL, NULL);

	if (!error)
		barrier_pages(region, first, end, FAULT_BY_BARRIER);
	return error;
}

int barrier_prepare_read(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = fault_await(region, first, end, NULL, NULL);

	for (uint64_t page = first; page < end && !error && region_populates(region); page++)
		fault_barrier(region, page, end, FAULT_BY_READER);
	return error;
}

/* With the region's lock held. */
static void barrier_forget_content(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; region->content && page < end; page++)
		atomic_fetch_and(&region->content[page / 64], ~(1ull << (page % 64)));
}

int barrier_punch(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	unsigned shift = region->page_shift;

	lock_take(&region->lock);
	fault_begin_punch(region, first, end);
	barrier_pages(region, first, end, FAULT_BY_PUNCH);
	int error = region_discard(region, first << shift, (end - first) << shift);

	fault_end_punch(region, first, end, error);
	if (region->uffd >= 0 && region->memory == UFFDWP_MEMORY_ANON)
		handler_settle(region);
	barrier_forget_content(region, first, end);
	lock_give(&region->lock);
	return error;
}
