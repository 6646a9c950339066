/* SPDX-License-Identifier: MIT */
/* Numbers for people, as all programs of tools/ write them. */
#ifndef UFFDWP_COMMON_UNITS_H
#define UFFDWP_COMMON_UNITS_H

#define UNITS_TEXT 24

/* "12.3 MiB" into a buffer of UNITS_TEXT; returns it. */
const char *units_bytes(char *buffer, double bytes);
/* "250 ms", "1.5 s", "2 min" */
const char *units_seconds(char *buffer, double seconds);

#endif
