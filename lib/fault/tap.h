/* SPDX-License-Identifier: MIT */
/*
 * Samples of faults as they are met, for a thread that passes them on (control/): at most so many a second, kept in a
 * queue of fixed size without locks. A fault waits for none of this: what finds no room is counted and left out.
 *
 * Idea: the thread that reads a tap gives it tokens as time passes; a fault that gets one takes a free place of the
 * tap's, writes the event there, and hands the place over. Where no tap is open it costs a load and a branch, and only
 * of programs with control.
 *
 * Threads: tap_offer() in the fault path (signal); all else one thread. The memory of a tap stays when it is closed:
 * a fault may be about to write there.
 */
#ifndef UFFDWP_FAULT_TAP_H
#define UFFDWP_FAULT_TAP_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernel/kernel.h"

#define TAPS_MOST 4
#define TAP_PLACES 4096 /* events that wait for the reader */

enum tap_kind { TAP_WRITE, TAP_READ, TAP_EMPTY };

#define TAP_THIS_THREAD UINT32_MAX /* as `thread`: the one that calls */

struct tap_event {
	uint64_t ns;
	uint64_t region; /* by its number on the roster */
	uint64_t offset; /* in the region */
	uint64_t address;
	uint32_t thread; /* 0: not known */
	uint32_t kind;   /* enum tap_kind */
};

struct tap_counts {
	uint64_t seen;    /* faults while it was open */
	uint64_t dropped; /* that had a token, and found no room */
};

/* A bit for each tap that is open. */
extern _Atomic uint32_t taps_open;

void tap_offer_to(uint32_t taps, const struct tap_event *event);

/* (signal) */
static inline void tap_offer(const struct tap_event *event)
{
	uint32_t taps = atomic_load_explicit(&taps_open, memory_order_relaxed);

	if (taps)
		tap_offer_to(taps, event);
}

/* Opens one for a region by its number, or for all (0): its number; -EBUSY: all are open; -ENOMEM. */
int tap_open(const struct kernel_ops *k, uint64_t region);
void tap_close(int tap);

/* From now on so many events more may be taken, up to `most` in all. */
void tap_allow(int tap, uint64_t more, uint64_t most);

/* 1: the next event; 0: there is none. */
int tap_take(int tap, struct tap_event *event);
void tap_read_counts(int tap, struct tap_counts *counts);

#endif
