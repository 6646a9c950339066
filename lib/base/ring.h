/* SPDX-License-Identifier: MIT */
/*
 * A bounded queue of 32-bit values for many producers and many consumers, without locks (D. Vyukov's bounded MPMC
 * queue). Neither end waits or allocates: both may be used in a signal handler, and a thread that was interrupted in
 * the middle makes the other end see "full" or "empty", never a wrong value.
 */
#ifndef UFFDWP_BASE_RING_H
#define UFFDWP_BASE_RING_H

#include <stdatomic.h>
#include <stdint.h>

struct ring_cell {
	_Atomic uint32_t turn;
	uint32_t value;
};

struct ring {
	struct ring_cell *cells; /* the caller's memory, `size` of them */
	uint32_t mask;
	_Alignas(64) _Atomic uint32_t head; /* next to be popped */
	_Alignas(64) _Atomic uint32_t tail; /* next to be pushed */
};

/* size: a power of two, 2 to 2^30. Fails never. */
void ring_init(struct ring *ring, struct ring_cell *cells, uint32_t size);

/* 1: done, 0: the ring is full. */
int ring_push(struct ring *ring, uint32_t value);

/* 1: *value is written, 0: the ring is empty. */
int ring_pop(struct ring *ring, uint32_t *value);

#endif
