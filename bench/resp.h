/* SPDX-License-Identifier: MIT */
/*
 * As much of Redis' protocol (RESP 2) as the question `redis` needs: commands, and the replies of commands that answer
 * with a status, an error, a number or one string.
 *
 * Nothing here reads or writes a socket.
 */
#ifndef UFFDWP_BENCH_RESP_H
#define UFFDWP_BENCH_RESP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RESP_KEY_BYTES 20 /* "key:" and 16 digits */
#define RESP_STAMP_BYTES 16
#define RESP_HEAD_BYTES 128 /* no command that is formed here has more, without its value */

/* Into `out`, which has room for RESP_HEAD_BYTES: a command without arguments, or with one string that has no blanks.
 */
size_t resp_command(char *out, const char *name, const char *argument);

/* GET of key `number`; SET of it to a value of value_bytes, which follow from the caller, then "\r\n". */
size_t resp_get(char *out, uint64_t number);
size_t resp_set_head(char *out, uint64_t number, size_t value_bytes);

/* The first RESP_STAMP_BYTES of a value: which key it belongs to. */
void resp_stamp(char out[RESP_STAMP_BYTES], uint64_t number);

struct resp_reply {
	char type;        /* '+', '-', ':' or '$' */
	const char *text; /* without the end of the line; NULL: no such key */
	size_t text_length;
};

/* How many bytes the first reply of `bytes` has; 0: it is not whole yet; -1: it is no reply that is known here. */
ssize_t resp_parse(const char *bytes, size_t length, struct resp_reply *reply);

/* 1: the reply is the value of that key, with that length. */
int resp_is_value(const struct resp_reply *reply, uint64_t number, size_t value_bytes);

/* A field of INFO that is a number; -1: there is none. The text is terminated. */
long long resp_info(const char *info, const char *field);

#endif
