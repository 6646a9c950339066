/* SPDX-License-Identifier: MIT */
/* How the command speaks: complaints. Numbers for people are of units.h. */
#ifndef UFFDWP_DIRTY_SAY_H
#define UFFDWP_DIRTY_SAY_H

/* By this name the program was called: "uffdwp-dirty", or "uffdwp-ctl dirty". At the start of main(). */
void say_as(const char *name);
const char *say_name(void);

/* A line to stderr, after the name. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

#endif
