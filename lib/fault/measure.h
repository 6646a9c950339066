/* SPDX-License-Identifier: MIT */
/*
 * How long faults take (region/meter.h), and samples of them (tap.h), where the program has control: what the two
 * deliveries do beside resolving. Where it has not, a load of the region's and a branch.
 *
 * A handler thread leaves a writer asleep while faults are stalled, or for want of pool memory; when it is woken it
 * faults again. The time counts from the first of these faults on: the thread remembers some that it left.
 *
 * Threads: a struct measure is a handler thread's own. (signal)
 */
#ifndef UFFDWP_FAULT_MEASURE_H
#define UFFDWP_FAULT_MEASURE_H

#include "fault/fault.h"
#include "region/meter.h"

#define MEASURE_WAITS 256

/* A fault whose writer was left asleep. */
struct measure_wait {
	uint64_t region; /* by its number on the roster; 0: none */
	uint64_t page;
	uint64_t began_ns;
	uint32_t thread;
};

struct measure {
	uint64_t read_ns; /* when the messages at hand were read; 0: nothing is measured */
	struct measure_wait waits[MEASURE_WAITS];
};

/* The region's meter; NULL: nothing is measured. Partner: the store in control_open_region(), after which the region
 * has its number. */
static inline struct meter *measure_meter(const struct uffdwp_region *region)
{
	return atomic_load_explicit(&region->meter, memory_order_acquire);
}

/* A fault was met at an address, by a thread (0: not known): offers it to the taps. The time. */
uint64_t measure_met(const struct fault *fault, uint64_t address, uint32_t thread, uint64_t ns);

/* By a handler thread: messages were read. */
static inline void measure_read(struct measure *measure, const struct uffdwp_region *region)
{
	measure->read_ns = measure_meter(region) ? kernel_now_ns() : 0;
}

/* By a handler thread that measures, around a fault. What begin returns goes to end. */
uint64_t measure_begin(struct measure *measure, const struct fault *fault, uint64_t address, uint32_t thread);
void measure_end(struct measure *measure, const struct fault *fault, enum fault_verdict verdict, uint64_t began_ns,
                 uint32_t thread);

#endif
