/* SPDX-License-Identifier: MIT */
/* See backoff.h. Part of the fault path. */
#include "kernel/backoff.h"

#include <sched.h>

#include "base/cpu.h"

/* The sleeps double up to a millisecond. */
#define BACKOFF_NS_LEAST 50000ull
#define BACKOFF_DOUBLINGS 4u

void kernel_back_off(const struct kernel_ops *k, unsigned *turn)
{
	unsigned now = *turn;

	*turn += now < BACKOFF_SLEEP + BACKOFF_DOUBLINGS;
	if (now < BACKOFF_YIELD)
		cpu_relax();
	else if (now < BACKOFF_SLEEP)
		sched_yield();
	else
		kernel_sleep(k, BACKOFF_NS_LEAST << (now - BACKOFF_SLEEP));
}
