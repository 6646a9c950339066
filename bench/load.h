/* SPDX-License-Identifier: MIT */
/*
 * The load: threads that write records of 64 bytes into a piece of memory as fast as they can, and keep how long each
 * write took. Uniform: any record with equal probability. Sequential: one after the other, from a random place on,
 * around the end; several writers share the memory in equal parts.
 *
 * Phases: every thread looks at the phase before each write. HOLD: it stands still, outside of any write. WARM: it
 * writes, nothing is kept. BEFORE, DURING and AFTER: times are kept, in a histogram each; a write belongs to the phase
 * in which it began, so that one that is held up when the phase changes is not lost.
 *
 * Threads: all functions are the main thread's. load_phase() to HOLD returns when everybody stands still.
 */
#ifndef UFFDWP_BENCH_LOAD_H
#define UFFDWP_BENCH_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

enum load_pattern { LOAD_UNIFORM, LOAD_SEQUENTIAL, LOAD_PATTERN_COUNT };
enum load_phase { LOAD_BEFORE, LOAD_DURING, LOAD_AFTER, LOAD_WARM, LOAD_HOLD, LOAD_END };

#define LOAD_KEPT 3 /* phases whose times are kept */
#define LOAD_WRITERS_MAX 64

struct load_writer {
	struct load *load;
	pthread_t thread;
	unsigned number;
	uint64_t random;
	uint64_t next; /* record, sequential */
	uint64_t minor_faults[LOAD_KEPT];
	struct histogram kept[LOAD_KEPT];
};

struct load {
	char *base;
	uint64_t records;
	enum load_pattern pattern;
	unsigned writer_count;
	uint64_t clock_ns;
	_Alignas(64) _Atomic unsigned phase;
	_Alignas(64) _Atomic unsigned standing; /* writers that stand still */
	struct load_writer *writers;
};

/* What all writers saw in a phase. */
struct load_result {
	struct histogram times;
	uint64_t minor_faults;
};

const char *load_pattern_name(enum load_pattern pattern);

/* Starts the writers, standing still; writer n is pinned to the n-th of the program's CPUs. */
void load_start(struct load *load, enum load_pattern pattern, char *base, size_t length_bytes, unsigned writer_count);
void load_phase(struct load *load, enum load_phase phase);

/* Ends the writers; then load_result() may be called, until load_free(). */
void load_stop(struct load *load);
void load_result(const struct load *load, enum load_phase phase, struct load_result *result);
void load_free(struct load *load);

#endif
