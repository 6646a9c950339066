/* SPDX-License-Identifier: MIT */
/*
 * A request: one line of JSON, from a process that is trusted with nothing but what its user may do. Whatever it holds,
 * it is taken whole or refused with a text that names what was wrong. PROTOCOL.md says what there is.
 *
 * Threads: any; there is no state.
 */
#ifndef UFFDWP_CONTROL_ASK_H
#define UFFDWP_CONTROL_ASK_H

#include <stddef.h>
#include <stdint.h>

/* A line with its newline. */
#define ASK_BYTES_MOST 4096
#define ASK_TEXT_BYTES 512

enum ask_act {
	ASK_HELLO,
	ASK_LIST,
	ASK_STAT,
	ASK_SNAPSHOT,
	ASK_ABORT,
	ASK_AUDIT,
	ASK_ARM,
	ASK_DISARM,
	ASK_TRACE,
	ASK_ACTS
};

enum ask_key {
	ASK_V,
	ASK_ID,
	ASK_DO,
	ASK_REGION,
	ASK_OF_SNAPSHOT,
	ASK_OFFSET,
	ASK_LENGTH,
	ASK_PATH,
	ASK_PARENT,
	ASK_KEEP,
	ASK_COMPRESS,
	ASK_RATE,
	ASK_POOL,
	ASK_ARMING,
	ASK_MODE,
	ASK_PER_SECOND,
	ASK_SECONDS,
	ASK_KEYS
};

#define ASK_BIT(key) (1u << (key))

struct ask {
	enum ask_act act;
	uint32_t has;              /* ASK_BIT() of the keys that are there */
	uint64_t number[ASK_KEYS]; /* of those that are numbers; `keep` is 0 or 1; 0 where they are not there */
	char path[ASK_BYTES_MOST];
	char parent[ASK_BYTES_MOST];
	char arming[16];
	char text[ASK_TEXT_BYTES]; /* what was wrong, and what to do */
};

/* 1: this library can take requests. */
int ask_built(void);

/* Takes a line without its newline. 0, or with a text: -EPROTO (no such JSON), -EPROTONOSUPPORT (another version),
 * -EINVAL (keys or values), -EOPNOTSUPP (it does not know that). `id` is there also then, where it could be read. */
int ask_parse(const char *line, size_t length, struct ask *ask);

#endif
