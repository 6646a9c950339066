/* SPDX-License-Identifier: MIT */
/* The terminal that uffdwp-ctl watch has for itself: the alternate screen, keys without echo; given back as it was. */
#ifndef UFFDWP_CTL_WATCH_SCREEN_H
#define UFFDWP_CTL_WATCH_SCREEN_H

#include <stdint.h>
#include <termios.h>

struct watch_screen {
	unsigned rows;
	unsigned columns;
	int on;   /* the screen is ours */
	int keys; /* standard input is a terminal, in raw mode */
	struct termios before;
};

/* Whether stdout is a terminal that can be drawn on. */
int watch_screen_works(void);

void watch_screen_open(struct watch_screen *screen);
void watch_screen_close(struct watch_screen *screen);
void watch_screen_measure(struct watch_screen *screen);

/* Shows a text from the first row on: each line is cut to the width, and what does not fit below is left out, with a
 * last line that says so. 0, or -1: the terminal is gone. */
int watch_screen_show(const struct watch_screen *screen, const char *text);

/* Waits for a key until then; 0: none. */
int watch_screen_key(struct watch_screen *screen, int64_t until_ms);

#endif
