/* SPDX-License-Identifier: MIT */
/*
 * How often a program was asked to stop. timeout(1) sends the signal that it got to its child and then to its whole
 * group, a service manager to each process of a service: what comes so soon after another is the same request, not a
 * second one.
 */
#ifndef UFFDWP_CTL_STOPS_H
#define UFFDWP_CTL_STOPS_H

#include <signal.h>
#include <stdint.h>

#define STOPS_ONE_REQUEST_MS 300
#define STOPS_MOST 100

struct stops {
	volatile sig_atomic_t count;
	int64_t last_ms; /* its thread's own, or its signal handler's, with all of its signals blocked meanwhile */
};

static inline void stops_take(struct stops *stops, int64_t now_ms)
{
	if (stops->count && now_ms - stops->last_ms < STOPS_ONE_REQUEST_MS)
		return;
	stops->last_ms = now_ms;
	stops->count = stops->count < STOPS_MOST ? stops->count + 1 : stops->count;
}

#endif
