/* SPDX-License-Identifier: MIT */
/*
 * Texts of the library speak to programs: they name functions, flags and fields of its interface. Where a tool passes
 * such a text on, its reader has options of a command instead, or can do nothing about another program: reword() says
 * that. The library's own texts stay as they are, and so does JSON, which is read by programs.
 */
#ifndef UFFDWP_COMMON_REWORD_H
#define UFFDWP_COMMON_REWORD_H

#include <stddef.h>

/* Which tool its reader uses. */
enum reword_for {
	REWORD_LIVE = 1,  /* commands of uffdwp-ctl for live processes */
	REWORD_IMAGE = 2, /* uffdwp-ctl image */
	REWORD_SERVE = 4, /* uffdwp-ctl serve, and its clients, which send lines of JSON */
	REWORD_FORK = 8   /* uffdwp-ctl fork, and what it preloads */
};

#define REWORD_BYTES 2048 /* takes any text of the library */

/* Fills a buffer and returns it; a text that is longer is cut. `text` may come from another process. */
const char *reword(enum reword_for reader, const char *text, char *buffer, size_t size);

#endif
