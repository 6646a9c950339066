/* SPDX-License-Identifier: MIT */
/*
 * Bounds against hanging, as multiples of this machine's own speed. A bound is stated in seconds of a quiet machine of
 * today; what a test waits for is ten times that, times how much slower than such a machine this one was when the
 * program began (software emulation, a loaded machine). No verdict depends on it: a bound only ends what hangs.
 */
#ifndef SUPPORT_PACE_H
#define SUPPORT_PACE_H

/* Measures once: some first touches of pages and wake-ups of another thread; what a program starts takes over what it
 * measured. From 1 (quiet) to 1000. */
double pace_slowness(void);

/* The bound in seconds of this machine's clock. */
unsigned pace_seconds(unsigned quiet_seconds);

/* alarm(2) with such a bound. */
void pace_alarm(unsigned quiet_seconds);

/* Makes Check multiply its limits alike, and what is started take the same measure: before tcase_create(). */
void pace_check(void);

#endif
