/* SPDX-License-Identifier: MIT */
/*
 * An epoch counts the threads that are inside. Readers enter and leave without waiting (two atomic additions on a cache
 * line that few share); epoch_wait() returns when all that were inside when it was called have left. It is what "a
 * change of phase waits for the faults that began under the former phase" is made of, and what protects a table that
 * readers look at without a lock (publish the new one, epoch_wait(), free the old one).
 *
 * Threads: enter and leave from any thread, with signals blocked (those of faults may be open), also in a signal
 * handler; a thread may be inside several times. epoch_wait() from one thread at a time (the caller's lock), never from
 * inside.
 *
 * Idea: user-space RCU with two sides of counters (Desnoyers et al., "User-Level Implementations of Read-Copy Update").
 * A reader that loaded the side just before it flipped may count itself on the old one: hence two flips per wait.
 */
#ifndef UFFDWP_BASE_EPOCH_H
#define UFFDWP_BASE_EPOCH_H

#include <stdatomic.h>
#include <stdint.h>

#define EPOCH_SHARDS 32

struct epoch_shard {
	_Alignas(64) _Atomic uint32_t inside[2];
};

struct epoch {
	_Alignas(64) _Atomic uint32_t side;
	struct epoch_shard shards[EPOCH_SHARDS];
};

/* Which counter a reader stands on; give it back to epoch_leave(). */
typedef _Atomic uint32_t *epoch_ticket;

void epoch_init(struct epoch *epoch);
epoch_ticket epoch_enter(struct epoch *epoch);
void epoch_leave(epoch_ticket ticket);

/* Spins shortly, then yields the CPU, until all that were inside have left. */
void epoch_wait(struct epoch *epoch);

#endif
