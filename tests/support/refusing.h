/* SPDX-License-Identifier: MIT */
/*
 * The kernel that refuses: a table of operations that counts its calls and forwards them to the real one, except for
 * those that a test asked it to refuse, with the error that the kernel would give.
 *
 * Three operations cannot fail for good reasons (close, uffd_wake, futex_wake: a valid argument is all they need), so a
 * refusal of them is an error that is returned after the deed. uring_result and uring_polled are no calls: refusing
 * them turns a completion into an error.
 *
 * Threads: calls come from any thread and any signal handler, and the setting may change under them: it is published by
 * its range of calls, which is empty while the rest is written.
 */
#ifndef SUPPORT_REFUSING_H
#define SUPPORT_REFUSING_H

#include <stdint.h>

#include "kernel/kernel.h"

enum refusing_op {
#define REFUSING_OP(name, error) OP_##name,
#include "refusing_ops.h"
#undef REFUSING_OP
	OP_COUNT
};

/* A set of operations, a bit for each. */
__extension__ typedef unsigned __int128 refusing_ops;

#define REFUSING_ALL (~(refusing_ops)0)
#define REFUSING_OP_BIT(op) ((refusing_ops)1 << (op))
#define REFUSING_BIT(name) REFUSING_OP_BIT(OP_##name)

struct refusal {
	refusing_ops ops; /* which operations are counted and refused: REFUSING_BIT() */
	uint64_t first;   /* the first call that is refused, from 1; 0: none */
	uint64_t count;   /* how many in a row */
	int error;        /* a positive errno; 0: what the operation would give */
};

extern const struct kernel_ops kernel_refusing;

/* Sets what to refuse and starts to count at 0. */
void refusing_set(const struct refusal *refusal);
void refusing_nothing(void);

/* Forwards everything from now on; the figures of the last setting stay. */
void refusing_stop(void);

/* Calls since refusing_set(), of the operations that it named. */
uint64_t refusing_calls(void);

/* The same of one operation. */
uint64_t refusing_calls_of(enum refusing_op op);

/* The operation that was refused last; "nothing". */
const char *refusing_last(void);

/* How many were refused. */
uint64_t refusing_refused(void);

#endif
