/* SPDX-License-Identifier: MIT */
/* See window.h. */
#include "fault/window.h"

#include "base/math.h"
#include "kernel/kernel.h"
#include "region/view.h"

/* How far beyond its last window a stream is looked for. */
#define STREAM_SLACK 32

/* A block is written densely when so many of its 64 pages carry no wp bit. */
#define BLOCK_DENSE 8

/* An area is written densely when so many of its 512 pages carry no wp bit. */
#define AREA_DENSE 32

/* Writers fault without a pause when 64 faults take less than 100 us each; with windows, less than 1 ms each. */
#define AREA_LOOK_FAULTS 64
#define AREA_FAULT_NS UINT64_C(100000)
#define AREA_BUSY_SLACK 10

/* Memory that one fault breaks off a child, at most: a writer waits for the copy of all. */
#define AREA_WINDOW_BYTES (UINT64_C(256) << 10)

/* A stream remembers where a writer's last window ended; a fault near there doubles the window, a fault anywhere else
 * starts a stream of one page. Packed: end page above, width in 8 bits. */
uint32_t window_of_stream(struct uffdwp_region *region, uint64_t page, uint32_t most)
{
	for (unsigned i = 0; i < REGION_STREAMS; i++) {
		uint64_t stream = atomic_load_explicit(&region->streams[i], memory_order_relaxed);
		uint64_t end = stream >> 8;
		uint32_t width = (uint32_t)(stream & 0xff);

		if (!width || page + width < end || page > end + STREAM_SLACK)
			continue;
		width = width * 2 < most ? width * 2 : most;
		atomic_store_explicit(&region->streams[i], (page + width) << 8 | width, memory_order_relaxed);
		return width;
	}
	uint32_t next = atomic_fetch_add_explicit(&region->stream_next, 1, memory_order_relaxed) % REGION_STREAMS;

	atomic_store_explicit(&region->streams[next], (page + 1) << 8 | 1, memory_order_relaxed);
	return 1;
}

int window_of_block(struct uffdwp_region *region, uint64_t page, uint32_t most, uint64_t *first, uint64_t *end)
{
	const struct ledger *ledger = &region->ledger;
	uint64_t block = page & ~(uint64_t)(LEDGER_BLOCK_PAGES - 1);
	uint64_t width = 1ull << (63 - __builtin_clzll(most | 1));

	if (width < 2 || atomic_load_explicit(&region->coarse, memory_order_relaxed) != REGION_COARSE_BLOCKS ||
	    block + LEDGER_BLOCK_PAGES > region_pages(region))
		return 0;
	if (ledger_count_protected(ledger, block, block + LEDGER_BLOCK_PAGES) > LEDGER_BLOCK_PAGES - BLOCK_DENSE)
		return 0;
	*first = page & ~(math_min_u64(width, LEDGER_BLOCK_PAGES) - 1);
	*end = *first + math_min_u64(width, LEDGER_BLOCK_PAGES);
	return 1;
}

/* 1: the writers spend a large part of their time in faults. Looked at once in 64 faults; when it is so, fewer faults
 * say the same. */
static int window_is_busy(struct uffdwp_region *region)
{
	uint64_t faults = atomic_fetch_add_explicit(&region->area_faults, 1, memory_order_relaxed);

	if (faults % AREA_LOOK_FAULTS == 0) {
		uint64_t now = kernel_now_ns();
		uint64_t took = now - atomic_exchange_explicit(&region->area_since_ns, now, memory_order_relaxed);
		uint32_t was_busy = atomic_load_explicit(&region->area_is_busy, memory_order_relaxed);
		uint64_t most = AREA_LOOK_FAULTS * AREA_FAULT_NS * (was_busy ? AREA_BUSY_SLACK : 1);

		atomic_store_explicit(&region->area_is_busy, faults && took < most, memory_order_relaxed);
	}
	return atomic_load_explicit(&region->area_is_busy, memory_order_relaxed) != 0;
}

/* A page whose entry is being filled is claimed, and was not written. */
static int window_area_is_dense(const struct uffdwp_region *region, uint64_t page)
{
	uint64_t first = page & ~(uint64_t)(WINDOW_AREA_PAGES - 1);
	uint64_t end = math_min_u64(first + WINDOW_AREA_PAGES, region_pages(region));
	uint64_t dirty = 0;

	for (uint64_t at = first; at < end; at++) {
		enum ledger_state state = ledger_get(&region->ledger, at);

		dirty += !ledger_is_protected(state) && state != LEDGER_CLAIMED;
	}
	return dirty >= AREA_DENSE;
}

/* A hole would be filled, in the region and in the child, and what is swapped out be read back. */
static void window_shrink_to_memory(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	uint64_t bits = mechanism_in_memory(region, *first, *end);
	uint64_t from = *first;
	uint64_t to = *end;

	for (*first = page; *first > from && bits >> (*first - 1 - from) & 1;)
		--*first;
	for (*end = page + 1; *end < to && bits >> (*end - from) & 1;)
		++*end;
}

int window_of_area(struct uffdwp_region *region, uint64_t page, uint64_t *first, uint64_t *end)
{
	uint64_t most = math_min_u64(AREA_WINDOW_BYTES >> region->page_shift,
	                             atomic_load_explicit(&region->area_window, memory_order_relaxed));
	uint64_t width = 1ull << (63 - __builtin_clzll(most | 1));

	if (atomic_load_explicit(&region->coarse, memory_order_relaxed) != REGION_COARSE_AREAS || width < 2 ||
	    !atomic_load_explicit(&region->child_count, memory_order_relaxed) || !window_is_busy(region) ||
	    !window_area_is_dense(region, page) || !view_children_have_room(region, width))
		return 0;
	*first = page & ~(width - 1);
	*end = math_min_u64(*first + width, region_pages(region));
	atomic_store_explicit(&region->area_hot, page + 1, memory_order_relaxed);
	window_shrink_to_memory(region, page, first, end);
	return 1;
}
