/* SPDX-License-Identifier: MIT */
/*
 * A set of address ranges: sorted, disjoint, those that touch kept as one. Addresses are whole pages, ranges half-open.
 *
 * Threads: the owner's lock. Room for the most is address space from the start, from the kernel and not from malloc: a
 * set that described the caller's heap, or itself, could not move while it is locked.
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

/* More than a process may have mappings by default. */
#define RANGES_MAX ((size_t)1 << 20)

struct ranges {
	struct range *at;
	size_t count;
	uint64_t bytes; /* of all together */
};

/* 0 or -ENOMEM. */
int ranges_open(struct ranges *ranges, const struct kernel_ops *k);
void ranges_close(struct ranges *ranges, const struct kernel_ops *k);

/* The first range that ends after `address`: count where there is none. */
size_t ranges_find(const struct ranges *ranges, uint64_t address);

/* 1: some of [start, end) is in the set. */
int ranges_touch(const struct ranges *ranges, uint64_t start, uint64_t end);

/* 1: *part is the first part of the set in [*from, end), and *from its end; 0: there is none. */
int ranges_next(const struct ranges *ranges, uint64_t *from, uint64_t end, struct range *part);

/* 1: there is room for `more`. */
static inline int ranges_have_room(const struct ranges *ranges, size_t more)
{
	return ranges->at && ranges->count + more <= RANGES_MAX;
}

/* Adds what is not in the set yet; there must be room for one range. */
void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end);

/* Takes [start, end) out: the bytes that were in. There must be room for one: a range may be
 * split. */
uint64_t ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end);

#endif
