/* SPDX-License-Identifier: MIT */
/*
 * See window.h. Due times are rounded down to nanoseconds, of each write anew, so that no error adds up.
 */
#include "window.h"

#include <math.h>

#define NS_PER_S UINT64_C(1000000000)

uint64_t window_length_ns(double fork_total_ns)
{
	uint64_t length_ns = (uint64_t)(fork_total_ns * WINDOW_PER_FORK);

	return length_ns < WINDOW_MIN_NS ? WINDOW_MIN_NS : length_ns;
}

double window_lost_share(uint64_t done, uint64_t undisturbed)
{
	return undisturbed ? 1.0 - (double)done / (double)undisturbed : (double)NAN;
}

double window_lost_ratio(double lost_share, double other_lost_share)
{
	return other_lost_share > 0 ? lost_share / other_lost_share : (double)NAN;
}

/* Whole seconds apart, so that no product overflows. */
uint64_t window_due_ns(uint64_t origin_ns, uint64_t number, uint64_t writes_per_s)
{
	return origin_ns + number / writes_per_s * NS_PER_S + number % writes_per_s * NS_PER_S / writes_per_s;
}

uint64_t window_due_count(uint64_t origin_ns, uint64_t until_ns, uint64_t writes_per_s)
{
	uint64_t length_ns = until_ns > origin_ns ? until_ns - origin_ns : 0;
	uint64_t parts = length_ns % NS_PER_S * writes_per_s;

	return length_ns / NS_PER_S * writes_per_s + (parts + NS_PER_S - 1) / NS_PER_S;
}
