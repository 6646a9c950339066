/* SPDX-License-Identifier: MIT */
/*
 * The text of the last error, for people. Formed on the way out of a call that failed, never in the fault path: it
 * takes a lock and uses stdio's formatting.
 */
#ifndef UFFDWP_BASE_TEXT_H
#define UFFDWP_BASE_TEXT_H

#include <pthread.h>
#include <stddef.h>

struct text {
	pthread_mutex_t lock;
	char line[512];
};

void text_init(struct text *text);
void text_fini(struct text *text);

/* Keeps "what happened: what to do" and returns `error`, so that a refusal is one statement. errno is kept. */
int text_fail(struct text *text, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As snprintf(buffer, size, "%s", text). */
size_t text_copy(struct text *text, char *buffer, size_t size);

#endif
