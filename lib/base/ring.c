/* SPDX-License-Identifier: MIT */
/*
 * The bounded queue of ring.h.
 *
 * Words: a position counts all pushes (tail) or pops (head) for ever, modulo 2^32; a cell serves the positions that are
 * equal to its index modulo the size. The cell's turn says which position owns it: equal to position p, the push of p
 * may fill it; p + 1, the pop of p may empty it; p + size, it waits for the push of the next lap.
 *
 * What must never happen: a value is read before it was written, or overwritten before it was read. Each turn is stored
 * with release after the value was touched, and loaded with acquire before.
 */
#include "base/ring.h"

#include <stddef.h>

void ring_init(struct ring *ring, struct ring_cell *cells, uint32_t size)
{
	ring->cells = cells;
	ring->mask = size - 1;
	for (uint32_t i = 0; i < size; i++)
		atomic_init(&cells[i].turn, i);
	atomic_init(&ring->head, 0);
	atomic_init(&ring->tail, 0);
}

/* Claims the next position of one end, once its cell has reached the turn position + offset. NULL: it has not, which is
 * "full" for pushes and "empty" for pops. */
static struct ring_cell *ring_claim(struct ring *ring, _Atomic uint32_t *end, uint32_t offset, uint32_t *position)
{
	uint32_t at = atomic_load_explicit(end, memory_order_relaxed);

	for (;;) {
		struct ring_cell *cell = &ring->cells[at & ring->mask];
		/* Partner: the release of the turn by the other end. */
		uint32_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
		int32_t ahead = (int32_t)(turn - (at + offset));

		if (ahead < 0)
			return NULL;
		if (ahead > 0) {
			at = atomic_load_explicit(end, memory_order_relaxed);
		} else if (atomic_compare_exchange_weak_explicit(end, &at, at + 1, memory_order_relaxed,
		                                                 memory_order_relaxed)) {
			*position = at;
			return cell;
		}
	}
}

int ring_push(struct ring *ring, uint32_t value)
{
	uint32_t position;
	struct ring_cell *cell = ring_claim(ring, &ring->tail, 0, &position);

	if (!cell)
		return 0;
	cell->value = value;
	/* Partner: the acquire in the claim of ring_pop(). */
	atomic_store_explicit(&cell->turn, position + 1, memory_order_release);
	return 1;
}

int ring_pop(struct ring *ring, uint32_t *value)
{
	uint32_t position;
	struct ring_cell *cell = ring_claim(ring, &ring->head, 1, &position);

	if (!cell)
		return 0;
	*value = cell->value;
	/* Partner: the acquire in the claim of ring_push(), one lap later. */
	atomic_store_explicit(&cell->turn, position + ring->mask + 1, memory_order_release);
	return 1;
}
