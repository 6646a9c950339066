/* SPDX-License-Identifier: MIT */
/*
 * Waiting with an end: for a descriptor or for time to pass, up to a point in time, and not beyond a signal that asks
 * this program to stop. A command that has to put something right first (a terminal, a snapshot that it began) catches
 * these signals; they are blocked but while it waits here, so that none gets lost between a look and a wait.
 */
#ifndef UFFDWP_CTL_LIVE_WAIT_H
#define UFFDWP_CTL_LIVE_WAIT_H

#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t live_wait_now_ms(void);

/* Catches SIGINT, SIGTERM and SIGHUP from now on; and where `screen` is set SIGWINCH and SIGTSTP, too. */
void live_wait_catch(int screen);
/* How often this program was asked to stop. */
int live_wait_stops(void);
/* Whether the terminal changed its size, or the user asked for a pause (SIGTSTP), since this was asked last. */
int live_wait_resized(void);
int live_wait_paused(void);
/* Stops this process as SIGTSTP does, until SIGCONT. */
void live_wait_pause(void);

/* Waits until the descriptor (-1: none) is ready for `events` of poll(2). 1: it is, or has an error; 0: the time is up;
 * -EINTR: a signal came. */
int live_wait(int fd, int events, int64_t until_ms);

#endif
