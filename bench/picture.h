/* SPDX-License-Identifier: MIT */
/*
 * Pictures of the questions: for each, NAME.dat (its numbers), NAME.gp (how gnuplot draws them) and, where gnuplot is
 * there, NAME.svg. The first two are enough to draw it again elsewhere: gnuplot NAME.gp in their folder.
 *
 * A file appears under its name when it is whole. NAME.dat has a block for each curve, whose first line is its title.
 * A question writes its own commands of gnuplot into `script` before the first curve, and numbers, x and y, into `data`
 * after each.
 *
 * Threads: the main thread only.
 */
#ifndef UFFDWP_BENCH_PICTURE_H
#define UFFDWP_BENCH_PICTURE_H

#include <stdio.h>

struct picture {
	char name[96];
	FILE *data;
	FILE *script;
	unsigned blocks;
};

/* What a reader sees of a contender in all pictures. */
struct picture_look {
	const char *title;
	const char *colour;
};

/* The folder of all pictures; it is made if need be. */
void picture_folder(const char *folder);

/* WHAT-NAME, where dots of the name become dashes. */
void picture_open(struct picture *picture, const char *what, const char *name, const char *title);

/* A curve: the block of data that comes next. `style` is gnuplot's, such as "lines lw 2". */
void picture_curve(struct picture *picture, struct picture_look look, const char *style);

/* Signs on the curve before, without a place in the legend; `about` stands in the data. */
void picture_signs(struct picture *picture, struct picture_look look, const char *about);

void picture_close(struct picture *picture);

/* Draws all of them, and says what was drawn, or why nothing could be; to standard error. */
void picture_draw_all(void);

#endif
