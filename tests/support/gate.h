/* SPDX-License-Identifier: MIT */
/*
 * A gate holds a thread of the library at a known place (in a sink's callback, in an fsync) for as long as a test
 * wants, so that "in the middle of a snapshot" does not depend on timing.
 */
#ifndef SUPPORT_GATE_H
#define SUPPORT_GATE_H

#include <pthread.h>
#include <stdint.h>

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	int entered; /* how often a thread came to the gate */
	int open;
};

/* clang-format off */
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0}
/* clang-format on */

/* The held thread: says that it is here, and waits until the gate is open. */
void gate_pass(struct gate *gate);

/* The test: waits until a thread is at the gate. */
void gate_await(struct gate *gate);

/* Lets all threads through, from now on. */
void gate_open(struct gate *gate);

/* A uffdwp_sink_fn that passes the gate that is its `user`, and takes nothing. */
int gate_sink(void *gate, uint64_t offset, const void *data, uint64_t length);

#endif
