/* SPDX-License-Identifier: MIT */
/*
 * A set of address ranges: sorted, disjoint, those that touch kept as one. Addresses are whole pages, ranges half-open.
 *
 * Threads: the owner's lock. Memory comes from the kernel, not from malloc: the set may describe the caller's heap.
 */
#ifndef UFFDWP_TRACK_RANGES_H
#define UFFDWP_TRACK_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

struct range {
	uint64_t start;
	uint64_t end;
};

struct ranges {
	struct range *at;
	size_t count;
	size_t room;
};

/* The first range that ends behind `address`: count where there is none. */
size_t ranges_find(const struct ranges *ranges, uint64_t address);

/* 1: some of [start, end) is in the set. */
int ranges_touch(const struct ranges *ranges, uint64_t start, uint64_t end);

/* Makes room for `more` ranges. 0 or -ENOMEM. */
int ranges_reserve(struct ranges *ranges, const struct kernel_ops *k, size_t more);

/* Adds what is not in the set yet; room for one range must have been reserved. */
void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end);

/* Adds a range behind all others and apart from them, for which there is room. */
static inline void ranges_append(struct ranges *ranges, struct range range)
{
	if (ranges->at && ranges->count < ranges->room)
		ranges->at[ranges->count++] = range;
}

/* Takes [start, end) out: the bytes that were in. Room for one range must have been reserved: a range may be split. */
uint64_t ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end);

uint64_t ranges_bytes(const struct ranges *ranges);

void ranges_free(struct ranges *ranges, const struct kernel_ops *k);

#endif
