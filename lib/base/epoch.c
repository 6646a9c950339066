/* SPDX-License-Identifier: MIT */
/*
 * Epochs, see epoch.h for what they are for.
 *
 * Words: a side is one of two sets of counters; new readers stand on the side that `side` names. A shard is one cache
 * line of counters; a reader takes the shard that its stack hashes to, so that threads seldom share one. A reader
 * leaves by the very counter that it entered by, so each shard can be waited for on its own: once its counter was seen
 * at zero, all readers that stood there when the wait began have left.
 *
 * Why two flips: a reader may load `side`, be held up, and count itself on that side long after a flip. The side that
 * is not current can hold readers too, so both are emptied in turn, each while newcomers go to the other one.
 *
 * What must never happen: epoch_wait() returns while a reader that entered before the call is inside, or a reader that
 * entered later works with what was current before the call. The first is the counting. The second is a question of
 * store-then-load order on both ends, and the locked additions here are full barriers for it:
 *
 *     writer: publish; flip (full); load counter      reader: add to counter (full); load what was published
 *
 * If the writer's load misses the reader's addition, the reader's load finds what the writer published.
 */
#include "base/epoch.h"

#include <sched.h>
#include <stddef.h>
#include <time.h>

#include "base/cpu.h"
#include "base/invariant.h"

#define SPINS 128
#define YIELDS 1024
#define SLEEP_NS 50000

/* Orders an atomic addition before later plain loads. A locked addition of x86 does that already; others may let the
 * load pass the addition's store. */
static void epoch_full_barrier_after_addition(void)
{
#if defined(__x86_64__) || defined(__i386__)
	atomic_signal_fence(memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Stacks of threads lie megabytes apart: their page numbers, spread by Fibonacci hashing, choose the shard. No
 * thread-local storage: it may be set up lazily, which a signal handler cannot afford. */
static size_t epoch_shard_of_this_stack(void)
{
	uintptr_t page = (uintptr_t)__builtin_frame_address(0) >> 12;

	return (size_t)(((uint64_t)page * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % EPOCH_SHARDS;
}

void epoch_init(struct epoch *epoch)
{
	atomic_init(&epoch->side, 0);
	for (size_t i = 0; i < EPOCH_SHARDS; i++) {
		atomic_init(&epoch->shards[i].inside[0], 0);
		atomic_init(&epoch->shards[i].inside[1], 0);
	}
}

epoch_ticket epoch_enter(struct epoch *epoch)
{
	uint32_t side = atomic_load_explicit(&epoch->side, memory_order_relaxed) & 1;
	epoch_ticket ticket = &epoch->shards[epoch_shard_of_this_stack()].inside[side];

	/* Partner: the flip and the load in epoch_empty_side(). */
	atomic_fetch_add_explicit(ticket, 1, memory_order_seq_cst);
	epoch_full_barrier_after_addition();
	/* A thread that waits for this one must not wait for a handler of the program's, which may wait for it. */
	INVARIANT(EPOCH, invariant_signals_blocked());
	INVARIANT_NOTE(invariant_enter());
	return ticket;
}

void epoch_leave(epoch_ticket ticket)
{
	INVARIANT(EPOCH, invariant_inside() > 0);
	INVARIANT_NOTE(invariant_leave());
	/* Partner: the load in epoch_wait_for_zero(), which makes what was done inside visible to the waiter. */
	atomic_fetch_sub_explicit(ticket, 1, memory_order_release);
}

static void epoch_pause_by_round(unsigned round)
{
	const struct timespec delay = {.tv_sec = 0, .tv_nsec = SLEEP_NS};

	if (round < SPINS)
		cpu_relax();
	else if (round < SPINS + YIELDS)
		sched_yield();
	else
		nanosleep(&delay, NULL);
}

static void epoch_wait_for_zero(const _Atomic uint32_t *inside)
{
	for (unsigned round = 0; atomic_load_explicit(inside, memory_order_seq_cst) != 0;) {
		epoch_pause_by_round(round);
		if (round < SPINS + YIELDS)
			round++;
	}
}

/* Sends newcomers to the other side, then waits until this one is empty. */
static void epoch_empty_side(struct epoch *epoch)
{
	/* Partner: the addition in epoch_enter(). */
	uint32_t old = atomic_fetch_add_explicit(&epoch->side, 1, memory_order_seq_cst) & 1;

	epoch_full_barrier_after_addition();
	for (size_t i = 0; i < EPOCH_SHARDS; i++)
		epoch_wait_for_zero(&epoch->shards[i].inside[old]);
}

void epoch_wait(struct epoch *epoch)
{
	INVARIANT(EPOCH, invariant_inside() == 0); /* it would wait for itself */
	epoch_empty_side(epoch);
	epoch_empty_side(epoch);
}
