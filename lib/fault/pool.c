/* SPDX-License-Identifier: MIT */
/* See pool.h. */
#include "fault/pool.h"

#include <errno.h>

#include "base/math.h"
#include "kernel/backoff.h"
#include "region/region.h"

static int pool_map(struct pool *pool, struct uffdwp_region *region)
{
	pool->memory = region_spare_take(region, pool_bytes(pool));
	pool->touched = pool->memory != NULL;
	if (!pool->touched)
		pool->memory = region_pages_new(region, pool_bytes(pool));
	pool->cells = pages_new(pool->k, pool->cell_count * sizeof(*pool->cells));
	if (!pool->memory || !pool->cells)
		return -ENOMEM;
	return 0;
}

int pool_open(struct pool *pool, struct uffdwp_region *region, uint64_t bytes)
{
	pool->k = region->k;
	pool->page_bytes = region->page_bytes;
	pool->slots = (uint32_t)(bytes / region->page_bytes);
	pool->cell_count = math_next_power_of_two(pool->slots + 1);
	atomic_store(&pool->used, 0);
	atomic_store(&pool->peak, 0);
	if (pool_map(pool, region)) {
		pool_close(pool);
		return -ENOMEM;
	}
	ring_init(&pool->free, pool->cells, pool->cell_count);
	for (uint32_t slot = 0; slot < pool->slots; slot++)
		ring_push(&pool->free, slot);
	return 0;
}

void pool_leave(struct pool *pool, struct uffdwp_region *region)
{
	region_spare_give(region, pool->memory, pool_bytes(pool));
	pool->memory = NULL;
}

void pool_close(struct pool *pool)
{
	pages_free(pool->k, pool->memory, pool_bytes(pool));
	pages_free(pool->k, pool->cells, pool->cell_count * sizeof(*pool->cells));
	pool->memory = NULL;
	pool->cells = NULL;
}

int pool_take(struct pool *pool, uint32_t *slot)
{
	if (!ring_pop(&pool->free, slot))
		return 0;
	uint32_t used = atomic_fetch_add_explicit(&pool->used, 1, memory_order_relaxed) + 1;
	uint32_t peak = atomic_load_explicit(&pool->peak, memory_order_relaxed);

	while (used > peak && !atomic_compare_exchange_weak_explicit(&pool->peak, &peak, used, memory_order_relaxed,
	                                                             memory_order_relaxed))
		;
	return 1;
}

void pool_give(struct pool *pool, uint32_t slot)
{
	unsigned turn = 0;

	atomic_fetch_sub_explicit(&pool->used, 1, memory_order_relaxed);
	/* Fails only while a taker that was interrupted blocks the cell: it goes on when it has the CPU again. */
	while (!ring_push(&pool->free, slot))
		kernel_back_off(pool->k, &turn);
}
