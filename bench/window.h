/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of writes that are lost, and of writes that are due at a time.
 *
 * A window is a stretch of time, [from, until), that is the same for all methods of a run. A write that was done in it
 * counts for it. What a method costs its writers is the share of the writes of such a window that were not done
 * because of the snapshot: it neither gains by being slow for long nor loses by being done soon.
 *
 * A paced writer has a time at which each write is due, whether or not the one before it is done by then: a delay is
 * counted for every write that it delays (G. Tene: without that, omission is coordinated).
 *
 * Nothing here reads a clock.
 */
#ifndef UFFDWP_BENCH_WINDOW_H
#define UFFDWP_BENCH_WINDOW_H

#include <stdint.h>

#define WINDOW_PER_FORK 1.25 /* so that a trial of fork that takes somewhat longer than its first still fits */
#define WINDOW_MIN_NS UINT64_C(1000000000)

/* The window of a run in which a snapshot by fork took `fork_total_ns`. */
uint64_t window_length_ns(double fork_total_ns);

/* 1: in the window. None is: from_ns = UINT64_MAX, or until_ns = 0. */
static inline int window_holds(uint64_t from_ns, uint64_t until_ns, uint64_t at_ns)
{
	return at_ns >= from_ns && at_ns < until_ns;
}

/* The share of the undisturbed writes that was not done; below 0 where more was done. NAN: there were no undisturbed
 * ones. */
double window_lost_share(uint64_t done, uint64_t undisturbed);

/* How much one method loses of what another one loses. NAN: the other one lost nothing, so that no ratio says
 * anything. */
double window_lost_ratio(double lost_share, double other_lost_share);

/* When write `number` (from 0 on) of a writer that has started at origin_ns is due. */
uint64_t window_due_ns(uint64_t origin_ns, uint64_t number, uint64_t writes_per_s);

/* How many writes of that writer are due before until_ns. */
uint64_t window_due_count(uint64_t origin_ns, uint64_t until_ns, uint64_t writes_per_s);

#endif
