/* SPDX-License-Identifier: MIT */
/*
 * A trial: one snapshot of memory under load, by one way. The frame (memory, load, clock, comparison of the image) is
 * the same for all ways; a way only knows how to make its cut and how to wait until its image is durable.
 *
 * Every image is written aside into the same folder, synced, renamed, and the folder synced: a trial's total time ends
 * when that is done. Times of writes are kept twice: of those that began before that moment (during), and of those that
 * began before the end of a window that is the same for all ways, whichever of them ended sooner (window). Both start
 * where the cut is asked for; a trial that takes longer than the window stretches its own to its end.
 *
 * A trial that verifies lets the writers stand still at the cut, and compares the image with the memory of
 * that moment; its times are thrown away.
 */
#ifndef UFFDWP_BENCH_TRIAL_H
#define UFFDWP_BENCH_TRIAL_H

#include "area.h"
#include "load.h"

enum trial_figure {
	TRIAL_PAUSE_NS,      /* library: pause_ns; fork: how long fork() took */
	TRIAL_TOTAL_NS,      /* from the begin call, or fork(), until the image is durable under its name */
	TRIAL_DURING_P50_NS, /* until the image is durable; these four in this order */
	TRIAL_DURING_P99_NS,
	TRIAL_DURING_P999_NS,
	TRIAL_DURING_MAX_NS,
	TRIAL_WINDOW_P50_NS, /* until the end of the window; these four in this order */
	TRIAL_WINDOW_P99_NS,
	TRIAL_WINDOW_P999_NS,
	TRIAL_WINDOW_MAX_NS,
	TRIAL_WRITES_PER_S,     /* during */
	TRIAL_WRITES_SHARE,     /* of the writes per second before the snapshot */
	TRIAL_FAULTS,           /* library: write faults; fork: minor faults of the writers */
	TRIAL_WRITES_PER_FAULT, /* during */
	TRIAL_PAGES_FAULT,
	TRIAL_PAGES_PREPARE,
	TRIAL_PAGES_SWEEP,
	TRIAL_WAITS,
	TRIAL_PREIMAGE_PEAK_BYTES, /* fork: what copy on write took */
	TRIAL_WRITTEN_BYTES,
	TRIAL_FIGURES
};

struct trial_setup {
	uint64_t size_bytes;
	enum uffdwp_mechanism mechanism; /* library */
	uint64_t pool_bytes;
	uint64_t window_ns; /* from the cut on; 0: until the image is durable */
	unsigned writer_count;
	enum load_pattern pattern;
	const char *folder;
	int pin_other; /* the library's threads, or the child, on the program's second CPU; 0: free */
	int verify;
};

struct trial_result {
	double values[TRIAL_FIGURES];
	uint32_t direct; /* library: the image was written with O_DIRECT */
	uint32_t uring;  /* and with io_uring */
};

struct trial_way {
	const char *name;
	int variant; /* library: the delivery; fork: 1 for O_DIRECT */
	void (*open)(const struct trial_way *way, const struct trial_setup *setup, struct area *area);
	/* Makes the cut; the image goes to `path`. */
	void (*begin)(const struct trial_way *way, const struct trial_setup *setup, const char *path);
	/* Waits until the image is durable. */
	void (*wait)(void);
	/* Fills in what the way knows; `during` is what the writers saw. */
	void (*result)(const struct load_result *during, struct trial_result *result);
	void (*close)(void);
};

void trial_run(const struct trial_way *way, const struct trial_setup *setup, struct trial_result *result);

extern const struct trial_way trial_inline;
extern const struct trial_way trial_thread;
extern const struct trial_way trial_fork;
extern const struct trial_way trial_fork_direct;

/* 1 where the folder's file system has O_DIRECT. */
int trial_fork_direct_works(const char *folder);

#endif
