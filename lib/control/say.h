/* SPDX-License-Identifier: MIT */
/*
 * An answer as it is put together: JSON in memory of the library's own, which grows up to a bound. Commas come by
 * themselves. What fails (memory, the bound) is kept in `error`, so that it is looked at once, at the end.
 *
 * Threads: one at a time.
 */
#ifndef UFFDWP_CONTROL_SAY_H
#define UFFDWP_CONTROL_SAY_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

/* The most that waits for a client. */
#define SAY_BYTES_MOST ((size_t)64 << 20)

struct say {
	const struct kernel_ops *k;
	char *bytes; /* of pages_new() */
	size_t length;
	size_t room;
	int error; /* the first, negative errno */
};

void say_free(struct say *say);

/* Forgets the first `length` bytes. */
void say_drop(struct say *say, size_t length);

/* Forgets all after the first `length` bytes, and the error. */
void say_back_to(struct say *say, size_t length);

/* `key` NULL: a value of a list, or the outermost. `kind`: '{' or '['; the other end by its own sign. */
void say_open(struct say *say, const char *key, char kind);
void say_close(struct say *say, char kind);

void say_number(struct say *say, const char *key, uint64_t number);
void say_bool(struct say *say, const char *key, int value);
void say_null(struct say *say, const char *key);
/* NULL: null. What is no UTF-8 becomes \xNN, as in all texts of the library. */
void say_text(struct say *say, const char *key, const char *text);
/* The name of a negative errno. 0: null. */
void say_errno(struct say *say, const char *key, int error);
/* "0x7f..." */
void say_address(struct say *say, const char *key, uint64_t address);
void say_line_end(struct say *say);

#endif
