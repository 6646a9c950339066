/* SPDX-License-Identifier: MIT */
/* See tap.h. Places go round between two queues: of those that are free, and of those that are filled. Part of the
 * fault path. */
#include "fault/tap.h"

#include <errno.h>

#include "base/ring.h"
#include "kernel/pages.h"

struct tap {
	_Atomic uint64_t region; /* 0: of any */
	_Atomic int64_t tokens;
	_Atomic uint64_t seen;
	_Atomic uint64_t dropped;
	uint64_t opened_ns;
	struct ring free;
	struct ring full;
	struct ring_cell free_cells[TAP_PLACES];
	struct ring_cell full_cells[TAP_PLACES];
	struct tap_event events[TAP_PLACES];
};

_Atomic uint32_t taps_open;

static struct tap *_Atomic taps[TAPS_MOST]; /* there from their first opening on */

/* 1: the event may be taken. A token more may be gone than there were: the next turn makes up for it. */
static int tap_takes(struct tap *tap)
{
	return atomic_load_explicit(&tap->tokens, memory_order_relaxed) > 0 &&
	       atomic_fetch_sub_explicit(&tap->tokens, 1, memory_order_relaxed) > 0;
}

static void tap_put(struct tap *tap, const struct tap_event *event)
{
	uint64_t wanted = atomic_load_explicit(&tap->region, memory_order_relaxed);
	uint32_t place;

	if (wanted && wanted != event->region)
		return;
	atomic_fetch_add_explicit(&tap->seen, 1, memory_order_relaxed);
	if (!tap_takes(tap))
		return;
	if (!ring_pop(&tap->free, &place)) {
		atomic_fetch_add_explicit(&tap->dropped, 1, memory_order_relaxed);
		return;
	}
	tap->events[place] = *event;
	if (event->thread == TAP_THIS_THREAD)
		tap->events[place].thread = kernel_thread_id();
	(void)ring_push(&tap->full, place); /* there is a cell for each place */
}

void tap_offer_to(uint32_t open, const struct tap_event *event)
{
	for (; open; open &= open - 1)
		tap_put(atomic_load(&taps[__builtin_ctz(open)]), event);
}

static struct tap *tap_new(const struct kernel_ops *k)
{
	struct tap *tap = pages_new(k, sizeof(*tap));

	if (!tap)
		return NULL;
	ring_init(&tap->free, tap->free_cells, TAP_PLACES);
	ring_init(&tap->full, tap->full_cells, TAP_PLACES);
	for (uint32_t place = 0; place < TAP_PLACES; place++)
		(void)ring_push(&tap->free, place);
	return tap;
}

/* What was left of its last opening goes; events that are still being written then are known by their time. */
static void tap_empty(struct tap *tap)
{
	uint32_t place;

	while (ring_pop(&tap->full, &place))
		(void)ring_push(&tap->free, place);
}

int tap_open(const struct kernel_ops *k, uint64_t region)
{
	unsigned number = 0;

	while (number < TAPS_MOST && atomic_load(&taps_open) >> number & 1)
		number++;
	if (number == TAPS_MOST)
		return -EBUSY;
	struct tap *tap = atomic_load(&taps[number]);

	if (!tap)
		tap = tap_new(k);
	if (!tap)
		return -ENOMEM;
	tap_empty(tap);
	atomic_store(&tap->region, region);
	atomic_store(&tap->tokens, 0);
	atomic_store(&tap->seen, 0);
	atomic_store(&tap->dropped, 0);
	tap->opened_ns = kernel_now_ns();
	atomic_store(&taps[number], tap);
	atomic_fetch_or(&taps_open, 1u << number);
	return (int)number;
}

void tap_close(int tap)
{
	atomic_fetch_and(&taps_open, ~(1u << tap));
}

void tap_allow(int number, uint64_t more, uint64_t most)
{
	struct tap *tap = atomic_load(&taps[number]);
	int64_t tokens = atomic_load_explicit(&tap->tokens, memory_order_relaxed);
	int64_t wanted = (tokens > 0 ? tokens : 0) + (int64_t)more;

	wanted = wanted < (int64_t)most ? wanted : (int64_t)most;
	atomic_fetch_add_explicit(&tap->tokens, wanted - tokens, memory_order_relaxed);
}

int tap_take(int number, struct tap_event *event)
{
	struct tap *tap = atomic_load(&taps[number]);
	uint32_t place;

	while (ring_pop(&tap->full, &place)) {
		*event = tap->events[place];
		(void)ring_push(&tap->free, place);
		if (event->ns >= tap->opened_ns)
			return 1;
	}
	return 0;
}

void tap_read_counts(int number, struct tap_counts *counts)
{
	struct tap *tap = atomic_load(&taps[number]);

	counts->seen = atomic_load_explicit(&tap->seen, memory_order_relaxed);
	counts->dropped = atomic_load_explicit(&tap->dropped, memory_order_relaxed);
}
