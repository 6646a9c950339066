/* SPDX-License-Identifier: MIT */
/*
 * The pool of pre-images: a bounded number of page-sized slots, taken by faults and given back by the sweep. All its
 * memory is there and touched before the cut; neither end waits, locks or allocates.
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
	_Atomic uint32_t used;
	_Atomic uint32_t peak;
};

/* At most `bytes` of memory in slots of the region's page size, on its nodes. -ENOMEM. */
int pool_open(struct pool *pool, const struct uffdwp_region *region, uint64_t bytes);
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
