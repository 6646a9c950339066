/* SPDX-License-Identifier: MIT */
/* See window.h. */
#include "fault/window.h"

#include "base/math.h"

/* How far beyond its last window a stream is looked for. */
#define STREAM_SLACK 32

/* A block is written densely when so many of its 64 pages carry no wp bit. */
#define BLOCK_DENSE 8

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

	if (width < 2 || !atomic_load_explicit(&region->coarse, memory_order_relaxed) ||
	    block + LEDGER_BLOCK_PAGES > region_pages(region))
		return 0;
	if (ledger_count_protected(ledger, block, block + LEDGER_BLOCK_PAGES) > LEDGER_BLOCK_PAGES - BLOCK_DENSE)
		return 0;
	*first = page & ~(math_min_u64(width, LEDGER_BLOCK_PAGES) - 1);
	*end = *first + math_min_u64(width, LEDGER_BLOCK_PAGES);
	return 1;
}
