/* SPDX-License-Identifier: MIT */
/*
 * How a thread waits for another one that is done in microseconds and announces nothing: spins, then yields its CPU,
 * then sleeps, each time longer. Yielding alone is not enough: a thread of SCHED_FIFO that yields runs on before any
 * thread of lower priority, and if it waits for one of those on the same CPU it would wait for ever.
 */
#ifndef UFFDWP_KERNEL_BACKOFF_H
#define UFFDWP_KERNEL_BACKOFF_H

#include "kernel/kernel.h"

/* The first turn that yields: for a waiter that knows that the other thread wants this CPU. */
#define BACKOFF_YIELD 128u

/* The first turn that sleeps. */
#define BACKOFF_SLEEP (BACKOFF_YIELD + 64u)

/* One turn of a wait. *turn: 0 (or one of the above) before the first. (signal) */
void kernel_back_off(const struct kernel_ops *k, unsigned *turn);

#endif
