/* SPDX-License-Identifier: MIT */
/* How the commands for live processes speak: complaints, and numbers for people; and how numbers of a command line are
 * read. Without a state. */
#ifndef UFFDWP_CTL_LIVE_SAY_H
#define UFFDWP_CTL_LIVE_SAY_H

#include <stddef.h>
#include <stdint.h>

#define LIVE_WORD 48 /* bytes of a buffer that takes any of these */

/* Each fills a buffer of LIVE_WORD bytes and returns it. */
const char *live_say_count(char *word, uint64_t count);                  /* "1,234,567" */
const char *live_say_bytes(char *word, uint64_t bytes);                  /* "12.3 MiB" */
const char *live_say_time(char *word, uint64_t time_ns);                 /* "12.3 us", "4.5 s", "2 min 10 s" */
const char *live_say_percent(char *word, uint64_t part, uint64_t whole); /* "62.1 %"; "-" where whole is 0 */
const char *live_say_rate(char *word, uint64_t part, uint64_t time_ns);  /* "1,234/s"; 0/s where no time went by */

/* What `time_ns` becomes for `rest`, where it was for `done`; and bytes a second. Bounded, whatever the figures are. */
uint64_t live_say_left(uint64_t time_ns, uint64_t done, uint64_t rest);
uint64_t live_say_pace(uint64_t bytes, uint64_t time_ns);

/* part of whole in so many characters, "[####----]"; returns bar. It takes width + 1 bytes; 3 is the least width. */
const char *live_say_bar(char *bar, unsigned width, uint64_t part, uint64_t whole);

/* A line to stderr: "uffdwp-ctl COMMAND: ...", with control characters escaped. */
__attribute__((format(printf, 2, 3))) void live_complain(const char *command, const char *format, ...);

/* A whole number up to 2^63-1, in decimal digits only. 0, or -1: it is none. */
int live_parse_number(const char *text, uint64_t *number);
/* The same with K, M, G or T for powers of 1024 (also KiB, k), or in hexadecimal (0x...). */
int live_parse_size(const char *text, uint64_t *bytes);

#endif
