/* SPDX-License-Identifier: MIT */
/*
 * A tour through the public functions, each called at least once, with what succeeds and some of what is refused: for
 * tests of what holds in all of them. The tour itself allocates nothing, and calls nothing that is a cancellation
 * point.
 */
#ifndef SUPPORT_TOUR_H
#define SUPPORT_TOUR_H

/* The function that was called last. */
extern const char *volatile tour_at;

/* Files of the tour are in `folder`. Every failure is must(). */
void tour_run(const char *folder);

#endif
