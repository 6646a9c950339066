/* SPDX-License-Identifier: MIT */
/*
 * Names that come from outside (paths, names of processes, URIs) as part of a text: always valid UTF-8 without control
 * characters, so that no name can move a cursor, forge a line or break a JSON reader. What is not printed as it is
 * becomes \xNN, byte by byte: control characters (C0, DEL, C1), characters that turn the direction of text, and bytes
 * that are no UTF-8. All else stays. Without a state; escape_text() is async-signal-safe.
 */
#ifndef UFFDWP_BASE_ESCAPE_H
#define UFFDWP_BASE_ESCAPE_H

#include <stddef.h>

#define ESCAPE_KEEP_CONTROLS 1 /* for JSON, whose writer has an escape of its own for them */

/* The length of the whole result, as snprintf() does; what does not fit is cut off between two characters. */
size_t escape_text(char *out, size_t size, const char *in, int flags);

/* A text of JSON without a character beyond ASCII, for free(): each becomes \uNNNN, for readers that take none (json-c
 * 0.18, where it is strict). What is no UTF-8 becomes \\xNN, which shows as escape_text() has it, and *is_utf8 0. What
 * follows a backslash is no JSON, and stays. *out_length is without the zero at the end. NULL: no memory. */
char *escape_json(const char *in, size_t length, size_t *out_length, int *is_utf8);

#endif
