/* SPDX-License-Identifier: MIT */
/*
 * A handler that follows the thread whose faults it resolves: on that thread's CPU a fault is two switches between
 * threads, on another one it takes a wake-up across CPUs there and back, which in a guest is several times as long.
 *
 * Idea: each fault says which thread met it. While nearly all faults are of one thread, the handler asks the kernel now
 * and then where that thread ran last, and stays on that CPU. Where several threads meet faults it goes back to all of
 * the CPUs that it may run on, and the scheduler decides.
 *
 * Threads: the handler's own.
 */
#ifndef UFFDWP_FAULT_FOLLOW_H
#define UFFDWP_FAULT_FOLLOW_H

#include <sched.h>
#include <stdint.h>

#include "kernel/kernel.h"

struct follow {
	const struct kernel_ops *k;
	cpu_set_t cpus;     /* where the handler may run */
	int tag;            /* of what it opens, see kernel/own.h */
	int may;            /* 0: there is one CPU, or the kernel has refused */
	uint32_t thread;    /* whose faults are most; 0: not known */
	int faults;         /* of it, less those of others */
	int cpu;            /* where the handler stays; -1: anywhere */
	unsigned until;     /* faults until the next look at the time */
	uint64_t looked_ns; /* when the kernel was asked */
};

/* First of all, in the handler's thread. */
void follow_begin(struct follow *follow, const struct kernel_ops *k, int tag);

/* A fault of a thread, by its id; 0: the kernel does not say. It was resolved already: no thread waits for this. */
void follow_fault(struct follow *follow, uint32_t thread);

#endif
