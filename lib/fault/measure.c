/* SPDX-License-Identifier: MIT */
/* See measure.h. Part of the fault path. */
#include "fault/measure.h"

#include "fault/tap.h"

static const enum tap_kind measure_kinds[] = {
        [FAULT_WRITE] = TAP_WRITE, [FAULT_WRITE_EMPTY] = TAP_EMPTY, [FAULT_READ_EMPTY] = TAP_READ};

uint64_t measure_met(const struct fault *fault, uint64_t address, uint32_t thread, uint64_t ns)
{
	const struct tap_event event = {.ns = ns,
	                                .region = fault->region->roster.number,
	                                .offset = fault->page << fault->region->page_shift,
	                                .address = address,
	                                .thread = thread,
	                                .kind = measure_kinds[fault->access]};

	tap_offer(&event);
	return ns;
}

/* A thread has one fault at a time; where it is not known which it is, the page has to do. */
static struct measure_wait *measure_wait_of(struct measure *measure, const struct fault *fault, uint32_t thread)
{
	uint64_t key = thread ? thread : fault->page;

	return &measure->waits[(key * UINT64_C(0x9E3779B97F4A7C15)) >> 32 & (MEASURE_WAITS - 1)];
}

static int measure_is_of(const struct measure_wait *wait, const struct fault *fault, uint32_t thread)
{
	return wait->region == fault->region->roster.number && wait->page == fault->page && wait->thread == thread;
}

uint64_t measure_begin(struct measure *measure, const struct fault *fault, uint64_t address, uint32_t thread)
{
	const struct measure_wait *wait = measure_wait_of(measure, fault, thread);

	(void)measure_met(fault, address, thread, measure->read_ns);
	return measure_is_of(wait, fault, thread) ? wait->began_ns : measure->read_ns;
}

/* 1: the writer sleeps, and will fault again. */
static int measure_comes_again(enum fault_verdict verdict)
{
	return verdict == FAULT_STALLED || verdict == FAULT_STARVED || verdict == FAULT_AGAIN ||
	       verdict == FAULT_ABSENT;
}

void measure_end(struct measure *measure, const struct fault *fault, enum fault_verdict verdict, uint64_t began_ns,
                 uint32_t thread)
{
	struct meter *meter = measure_meter(fault->region);

	if (!meter)
		return;
	struct measure_wait *wait = measure_wait_of(measure, fault, thread);

	if (fault->counted)
		meter_add(&meter->by_handler, kernel_now_ns() - began_ns, fault->counted);
	if (measure_comes_again(verdict) && !fault->counted)
		*wait = (struct measure_wait){fault->region->roster.number, fault->page, began_ns, thread};
	else if (measure_is_of(wait, fault, thread))
		wait->region = 0;
}
