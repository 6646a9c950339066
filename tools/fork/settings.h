/* SPDX-License-Identifier: MIT */
/*
 * What the environment asks for; uffdwp-ctl fork writes it, and a program may be started without that command, too:
 *
 * UFFDWP_FORK_DELIVERY=thread   or inline: which thread resolves the program's faults (enum uffdwp_delivery)
 * UFFDWP_FORK_CAPACITY=SIZE     address space for the region; more of the heap than that stays outside
 * UFFDWP_FORK_PRIVATE=SIZE      bound on the memory that the pages of one child take (uffdwp_fork_options)
 * UFFDWP_FORK_WINDOW=N          most pages that one write breaks off a child, 1 to 64 (the same). Default: 64
 * UFFDWP_FORK_NICE=N            children with memory of the region run at a nice value that is higher by N, 0 to 19
 * UFFDWP_FORK_SMALL=SIZE        so much of the heap stays outside first: small programs fork as ever. Default: 16M
 * UFFDWP_FORK_FROM=WHAT         which mappings go to the region: those that are made by the object that malloc(3) comes
 *                               from (auto, where that is not the C library), by the program itself (program), by all
 *                               (all; auto, where malloc(3) is the C library's)
 * UFFDWP_FORK_HINTS=1           also mappings with a hint of an address, as mimalloc makes them
 * UFFDWP_FORK_FOLLOW=1          programs that are started by the program have it, too
 * UFFDWP_FORK_PRELOADED=N       the first N words of LD_PRELOAD are ours and are taken out again
 * UFFDWP_FORK_VERBOSE=1         a line for each fork
 * UFFDWP_FORK_QUIET=1           not even the line that says that something is not available
 *
 * Sizes are bytes, or end in K, M, G or T.
 *
 * Threads: read once, before others are there.
 */
#ifndef UFFDWP_FORK_SETTINGS_H
#define UFFDWP_FORK_SETTINGS_H

#include <stdint.h>

enum settings_from { SETTINGS_FROM_AUTO, SETTINGS_FROM_PROGRAM, SETTINGS_FROM_ALL };

struct settings {
	uint32_t delivery;       /* enum uffdwp_delivery */
	int from;                /* enum settings_from */
	uint64_t capacity_bytes; /* 0: by the machine's memory */
	uint64_t private_bytes;
	uint64_t small_bytes;
	uint32_t window_max;
	int nice;
	int hints;
	int follow;
	int verbose;
	int quiet;
};

extern struct settings settings;

/* Reads the environment, and takes out of it what the program's children shall not have. NULL, or the word that was not
 * understood. */
const char *settings_read(void);

/* "64G" in bytes; 0: it was not understood. */
uint64_t settings_parse_size(const char *text);

#endif
