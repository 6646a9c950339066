/* SPDX-License-Identifier: MIT */
/*
 * The load: threads that write records of 64 bytes into a piece of memory as fast as they can, and keep how long each
 * write took. Uniform: any record with equal probability. Zipf: a page by its popularity (zipf.h), in it any record.
 * Sequential: one after the other, from a random place on, around the end; several writers each have their own order.
 * Paced: as Zipf, but each write has a time at which it is due, by a fixed rate for each writer, as the requests of a
 * server come.
 *
 * Phases: every thread looks at the phase before each write. HOLD: it stands still, outside of any write. WARM: it
 * writes, nothing is kept. BEFORE, DURING and AFTER: times are kept, in a histogram each; a write belongs to the phase
 * in which it began, so that one that is delayed when the phase changes is not lost.
 *
 * The time of a paced write runs from when it was due, and it belongs to the phase in which it was due. A paced writer
 * that is late writes without a rest until it has caught up, and does so before it stands still: every write that was
 * due is kept, once. Between two writes it looks at the clock and does not sleep: the time that it takes to wake up
 * would be found in each write. The rate starts anew whenever writers leave HOLD.
 *
 * The window (window.h) counts writes that are done in it, whatever the phase.
 *
 * The gate is for a method that stops the writers: a writer that meets it closed waits inside of its write, and the
 * time of the write includes the wait.
 *
 * The timeline counts writes by the slot of time in which they began, whatever the phase, from load_start() on.
 *
 * Threads: all functions are the main thread's. load_phase() to HOLD returns when all writers stand still, and from
 * HOLD to another phase when all have left it.
 */
#ifndef UFFDWP_BENCH_LOAD_H
#define UFFDWP_BENCH_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"
#include "zipf.h"

enum load_pattern {
	LOAD_UNIFORM,
	LOAD_ZIPF,
	LOAD_SEQUENTIAL,
	LOAD_PACED_20K, /* writes a second, of each writer */
	LOAD_PACED_100K,
	LOAD_PATTERN_COUNT
};
enum load_phase { LOAD_BEFORE, LOAD_DURING, LOAD_AFTER, LOAD_WARM, LOAD_HOLD, LOAD_END, LOAD_PHASES };

#define LOAD_KEPT 3 /* phases whose times are kept */
#define LOAD_WRITERS_MAX 64
#define LOAD_SLOT_SHIFT 22 /* a slot of the timeline: 2^22 ns, 4.2 ms */
#define LOAD_SLOT_NS (UINT64_C(1) << LOAD_SLOT_SHIFT)
#define LOAD_SLOTS 32768 /* 137 s; what comes later is not counted */
#define LOAD_SEED 0x1234567u

struct load_writer {
	struct load *load;
	pthread_t thread;
	unsigned number;
	uint64_t random;
	uint64_t next;   /* record, sequential */
	uint64_t window; /* writes that were done in a window, of all windows */
	unsigned phase;  /* whose faults are counted, from faults_before on */
	uint64_t faults_before;
	uint64_t minor_faults[LOAD_KEPT];
	struct histogram kept[LOAD_KEPT];
	uint32_t timeline[LOAD_SLOTS];
};

struct load {
	char *base;
	uint64_t records;
	uint64_t page_records; /* in a page */
	enum load_pattern pattern;
	uint64_t writes_per_s; /* of each writer; 0: as fast as it can */
	struct zipf zipf;      /* LOAD_ZIPF, LOAD_PACED_* */
	unsigned writer_count;
	uint64_t clock_ns;
	uint64_t origin_ns; /* of the timeline */
	pthread_mutex_t gate;
	_Atomic unsigned waiting; /* writers at the gate */
	_Alignas(64) _Atomic unsigned closed;
	_Alignas(64) _Atomic unsigned phase;
	_Atomic uint64_t since_ns[LOAD_PHASES]; /* when each phase began, for the last time; written before `phase` */
	_Atomic uint64_t started_ns;            /* when HOLD was left, for the last time */
	uint64_t hold_seen_ns;                  /* when every writer could see the last HOLD; the main thread's */
	_Atomic uint64_t window_from_ns;
	_Atomic uint64_t window_until_ns;
	_Alignas(64) _Atomic unsigned standing; /* writers that stand still */
	struct load_writer *writers;
};

/* What all writers saw in a phase. */
struct load_result {
	struct histogram times;
	uint64_t minor_faults;
};

const char *load_pattern_name(enum load_pattern pattern);
/* "uniform", "zipf", "sequential", "paced_20k", "paced_100k"; -1: none of them. */
int load_pattern_of(const char *name);
/* Writes a second of each writer; 0: as fast as it can. */
uint64_t load_pattern_rate(enum load_pattern pattern);

/* Starts the writers, standing still; writer n is pinned to the n-th of the program's CPUs. */
void load_start(struct load *load, enum load_pattern pattern, char *base, size_t length_bytes, unsigned writer_count);
void load_phase(struct load *load, enum load_phase phase);

/* How many paced writes of all writers were due from when HOLD was left until it was asked for again, and *most: until
 * every writer could see that; what is between them may be done or not. While the writers stand still. */
uint64_t load_due_writes(const struct load *load, uint64_t *most);

/* The phase in which `at_ns` lay: of those that had begun, the last. */
unsigned load_phase_at(const struct load *load, uint64_t at_ns);

/* From now on the window is [from_ns, from_ns + length_ns). Any phase. */
void load_open_window(struct load *load, uint64_t from_ns, uint64_t length_ns);
/* Writes that were done in the windows so far, while no thread writes. */
uint64_t load_window_writes(const struct load *load);

/* Returns when every writer stands still or waits at the gate; all wait until it is opened. */
void load_close_gate(struct load *load);
void load_open_gate(struct load *load);

/* Writes in slot `slot` of the timeline, while no thread writes. */
uint64_t load_timeline(const struct load *load, size_t slot);

/* Ends the writers; then load_result() may be called, until load_free(). While they stand still it may be called, too,
 * and load_forget(), which makes the next time of that phase the first. */
void load_stop(struct load *load);
void load_forget(struct load *load, enum load_phase phase);
void load_result(const struct load *load, enum load_phase phase, struct load_result *result);
void load_free(struct load *load);

#endif
