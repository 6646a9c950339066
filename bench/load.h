/* SPDX-License-Identifier: MIT */
/*
 * The load: threads that write records of 64 bytes into a piece of memory as fast as they can, and keep how long each
 * write took. Uniform: any record with equal probability. Zipf: a page by its popularity (zipf.h), in it any record.
 * Sequential: one after the other, from a random place on, around the end; several writers each go their own way.
 *
 * Phases: every thread looks at the phase before each write. HOLD: it stands still, outside of any write. WARM: it
 * writes, nothing is kept. BEFORE, DURING and AFTER: times are kept, in a histogram each; a write belongs to the phase
 * in which it began, so that one that is held up when the phase changes is not lost.
 *
 * The gate is for a way that stops the writers: who meets it closed waits inside of his write, whose time holds the
 * wait.
 *
 * The timeline counts writes by the slot of time in which they began, whatever the phase, from load_start() on.
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
#include "zipf.h"

enum load_pattern { LOAD_UNIFORM, LOAD_ZIPF, LOAD_SEQUENTIAL, LOAD_PATTERN_COUNT };
enum load_phase { LOAD_BEFORE, LOAD_DURING, LOAD_AFTER, LOAD_WARM, LOAD_HOLD, LOAD_END };

#define LOAD_KEPT 3 /* phases whose times are kept */
#define LOAD_WRITERS_MAX 64
#define LOAD_SLOT_SHIFT 22 /* a slot of the timeline: 2^22 ns, 4.2 ms */
#define LOAD_SLOT_NS (UINT64_C(1) << LOAD_SLOT_SHIFT)
#define LOAD_SLOTS 8192 /* 34 s; what comes later is not counted */
#define LOAD_SEED 0x1234567u

struct load_writer {
	struct load *load;
	pthread_t thread;
	unsigned number;
	uint64_t random;
	uint64_t next; /* record, sequential */
	uint64_t minor_faults[LOAD_KEPT];
	struct histogram kept[LOAD_KEPT];
	uint32_t timeline[LOAD_SLOTS];
};

struct load {
	char *base;
	uint64_t records;
	uint64_t page_records; /* in a page */
	enum load_pattern pattern;
	struct zipf zipf; /* LOAD_ZIPF */
	unsigned writer_count;
	uint64_t clock_ns;
	uint64_t origin_ns; /* of the timeline */
	pthread_mutex_t gate;
	_Atomic unsigned waiting; /* writers at the gate */
	_Alignas(64) _Atomic unsigned closed;
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
/* "uniform", "zipf", "sequential"; -1: none of them. */
int load_pattern_of(const char *name);

/* Starts the writers, standing still; writer n is pinned to the n-th of the program's CPUs. */
void load_start(struct load *load, enum load_pattern pattern, char *base, size_t length_bytes, unsigned writer_count);
void load_phase(struct load *load, enum load_phase phase);

/* Returns when every writer stands still or waits at the gate; all wait until it is opened. */
void load_close_gate(struct load *load);
void load_open_gate(struct load *load);

/* Writes in slot `slot` of the timeline, while nobody writes. */
uint64_t load_timeline(const struct load *load, size_t slot);

/* Ends the writers; then load_result() may be called, until load_free(). While they stand still it may be called, too,
 * and load_forget(), which makes the next time of that phase the first. */
void load_stop(struct load *load);
void load_forget(struct load *load, enum load_phase phase);
void load_result(const struct load *load, enum load_phase phase, struct load_result *result);
void load_free(struct load *load);

#endif
