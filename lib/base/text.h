/* SPDX-License-Identifier: MIT */
/*
 * The text of the last error, for people. Formed at the end of a call that failed, never in the fault path: it takes a
 * lock and uses stdio's formatting. Each thread has one, which no other thread overwrites; what fails in the background
 * has a text of its own, for the thread that waits for it.
 */
#ifndef UFFDWP_BASE_TEXT_H
#define UFFDWP_BASE_TEXT_H

#include <stddef.h>

#include "base/lock.h"

#define TEXT_BYTES 512

/* A pointer to one that is NULL stands for the calling thread's text only. */
struct text {
	struct lock lock;
	int is_apart;
	char line[TEXT_BYTES];
};

void text_init(struct text *text);

/* What is kept in it is not the calling thread's: for what is only tried, and may be refused although the call answers
 * 0. */
void text_init_apart(struct text *text);
void text_fini(struct text *text);

/* Keeps "what happened: what to do", names in it escaped (escape.h), in `text` and as the calling thread's, and returns
 * `error`, so that a refusal is one statement. errno is kept. */
int text_fail(struct text *text, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What another thread of ours has kept in `text` becomes the calling thread's. Returns `error`. */
int text_adopt(struct text *text, int error);

/* The calling thread's becomes empty: for a call that may leave one although it succeeds. */
void text_forget(void);

/* As snprintf(buffer, size, "%s", text); NULL: the calling thread's. */
size_t text_copy(struct text *text, char *buffer, size_t size);

#endif
