/* SPDX-License-Identifier: MIT */
/*
 * The pool of pre-images: a bounded number of page-sized slots, taken by faults and given back by the sweep. All its
 * memory is there before the cut, and touched or being touched; neither end locks or allocates; giving waits only for a
 * taker that lost its CPU in the middle.
 *
 * Threads: take in the fault path (also in a signal handler), give in the sweep; both from any number of threads.
 */
#ifndef UFFDWP_FAULT_POOL_H
#define UFFDWP_FAULT_POOL_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/ring.h"
#include "kernel/kernel.h"

struct uffdwp_region;

struct pool {
	const struct kernel_ops *k;
	unsigned char *memory;
	struct ring_cell *cells;
	struct ring free;
	uint64_t page_bytes;
	uint32_t slots;
	uint32_t cell_count;
	int touched; /* the memory was, by a former pool's */
	_Atomic uint32_t used;
	_Atomic uint32_t peak;
};

/* At most `bytes` of memory in slots of the region's page size, on its nodes. -ENOMEM. Where it is not `touched` it has
 * to be: a first touch in the fault path costs as much as the fault. */
int pool_open(struct pool *pool, struct uffdwp_region *region, uint64_t bytes);

/* Before pool_close(): its memory, which is touched by now, is left to the region's next pool of this size. */
void pool_leave(struct pool *pool, struct uffdwp_region *region);

/* Bytes of its memory. The slots that are taken first come first. */
static inline uint64_t pool_bytes(const struct pool *pool)
{
	return (uint64_t)pool->slots * pool->page_bytes;
}

void pool_close(struct pool *pool);

/* 1: *slot is the caller's; 0: none is free. (signal) */
int pool_take(struct pool *pool, uint32_t *slot);
void pool_give(struct pool *pool, uint32_t slot);

static inline unsigned char *pool_slot(const struct pool *pool, uint32_t slot)
{
	return pool->memory + (uint64_t)slot * pool->page_bytes;
}

/* Slots that are free, about. */
static inline uint32_t pool_left(const struct pool *pool)
{
	uint32_t used = atomic_load_explicit(&pool->used, memory_order_relaxed);

	return used < pool->slots ? pool->slots - used : 0;
}

#endif
