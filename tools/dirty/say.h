/* SPDX-License-Identifier: MIT */
/* How the command speaks: complaints, and numbers for people. */
#ifndef UFFDWP_DIRTY_SAY_H
#define UFFDWP_DIRTY_SAY_H

#include <stddef.h>
#include <stdint.h>

/* A line to stderr, after the command's name. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

#define SAY_BYTES 24

/* "12.3 MiB" into a buffer of SAY_BYTES; returns it. */
const char *say_bytes(char *buffer, double bytes);
/* "250 ms", "1.5 s", "2 min" */
const char *say_seconds(char *buffer, double seconds);

#endif
