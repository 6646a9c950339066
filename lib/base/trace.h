/* SPDX-License-Identifier: MIT */
/*
 * UFFDWP_DEBUG=1 in the environment: the story of a run, a line for each thing that was decided, on standard error.
 * trace_to() passes the lines to a function of the program instead. Never in the fault path: it formats and writes.
 * Without the variable it costs a load and a branch.
 */
#ifndef UFFDWP_BASE_TRACE_H
#define UFFDWP_BASE_TRACE_H

#include <stdatomic.h>

/* -1: the environment was not asked yet. */
extern _Atomic int trace_wanted;

int trace_ask(void);

/* Passes lines to `log` from now on; NULL: to standard error again, where the environment asks for it. Waits for calls
 * of the function of before. */
void trace_to(void (*log)(void *user, const char *line), void *user);

void trace_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define TRACE(...)                                                                                                     \
	do {                                                                                                           \
		int wanted_ = atomic_load_explicit(&trace_wanted, memory_order_relaxed);                               \
		if (wanted_ > 0 || (wanted_ < 0 && trace_ask()))                                                       \
			trace_line(__VA_ARGS__);                                                                       \
	} while (0)

#endif
