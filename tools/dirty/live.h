/* SPDX-License-Identifier: MIT */
/*
 * The view while the program runs, on stderr.
 *
 * On a terminal that the program does not use (neither stdin nor stdout is one): a block of lines, redrawn in place. On
 * one that it does: one line at the bottom, which is kept out of the part that scrolls; it goes away while a program
 * has the terminal in raw mode (editors, pagers, shells that edit lines) or we are in the background. On no terminal: a
 * plain line a second. Each drawing is one write(2), and nothing is left.
 */
#ifndef UFFDWP_DIRTY_LIVE_H
#define UFFDWP_DIRTY_LIVE_H

#include <stdio.h>

#include "record.h"

enum live_mode { LIVE_NEVER, LIVE_AUTO, LIVE_LINES };

enum live_style { LIVE_STYLE_NONE, LIVE_STYLE_BLOCK, LIVE_STYLE_BOTTOM, LIVE_STYLE_LINES };

struct live {
	enum live_style style;
	FILE *lines; /* where plain lines go */
	int shown;   /* lines of the block that stand there; 1: the bottom line is set up */
	unsigned rows;
	unsigned columns;
	double next_s;
};

/* lines: where plain lines go, NULL: stderr, where a terminal is looked for, too. */
void live_open(struct live *live, enum live_mode mode, FILE *lines);

/* Draws if it is time. */
void live_draw(struct live *live, const struct record *record);

/* The size of the terminal changed. */
void live_resize(struct live *live);

/* Takes all of it away. */
void live_clear(struct live *live);

#endif
