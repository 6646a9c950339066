/* SPDX-License-Identifier: MIT */
/* How the command speaks: complaints. Numbers for people are of units.h. */
#ifndef UFFDWP_DIRTY_SAY_H
#define UFFDWP_DIRTY_SAY_H

/* A line to stderr, after the command's name. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

#endif
