/* SPDX-License-Identifier: MIT */
/*
 * A trial: one snapshot, or a series of them, of memory under load, by one method. The frame (memory, load, clock,
 * comparison of the image) is the same for all methods; a method only knows how to make its cut and how to wait until
 * its image is durable.
 *
 * Every image is written aside into the same folder, synced, renamed, and the folder synced: a snapshot's total time
 * ends when that is done. Times of writes are kept twice: of those that began before that moment (during), and of those
 * that began before the end of a window that is the same for all methods, whichever of them ended sooner (window). Both
 * start where the cut is asked for; a snapshot that takes longer than the window stretches its own to its end.
 *
 * The writes that were lost are counted over that window alone, and against a window of the same length before the
 * first snapshot: window.h. A snapshot that takes longer than the window does not stretch it there.
 *
 * A series takes its snapshots one after the other, of the same memory, with a rest between in which writers go on. Its
 * kind says what the library may make of it: nothing (FIRST), keep the memory armed (REPEATED), or also write only what
 * changed since the last image (INCREMENTAL). The other methods know no difference.
 *
 * A trial that verifies lets the writers stand still at the cut, and compares the image with the memory of
 * that moment. One that samples looks at the program's memory meanwhile, which disturbs it. The times of both are
 * thrown away.
 */
#ifndef UFFDWP_BENCH_TRIAL_H
#define UFFDWP_BENCH_TRIAL_H

#include <sys/types.h>

#include "area.h"
#include "load.h"
#include "memory.h"

#define TRIAL_SERIES_MAX 65

/* What this build of the library has. */
#ifdef UFFDWP_SNAPSHOT_KEEP
#define TRIAL_HAS_KEEP 1
#else
#define TRIAL_HAS_KEEP 0
#endif

enum trial_kind { TRIAL_FIRST, TRIAL_REPEATED, TRIAL_INCREMENTAL, TRIAL_KINDS };

enum trial_figure {
	TRIAL_PAUSE_NS,      /* library: pause_ns; fork: how long fork() took; others: their arming or copying */
	TRIAL_BEGIN_NS,      /* what the caller of begin waits, all of it; fork: how long fork() took */
	TRIAL_TOTAL_NS,      /* from the begin call, or fork(), until the image is durable under its name */
	TRIAL_DURING_P50_NS, /* until the image is durable; these four in this order */
	TRIAL_DURING_P99_NS,
	TRIAL_DURING_P999_NS,
	TRIAL_DURING_MAX_NS,
	TRIAL_WINDOW_P50_NS, /* until the end of the window; these four in this order */
	TRIAL_WINDOW_P99_NS,
	TRIAL_WINDOW_P999_NS,
	TRIAL_WINDOW_MAX_NS,
	TRIAL_BEFORE_P50_NS, /* before the first snapshot; these four in this order */
	TRIAL_BEFORE_P99_NS,
	TRIAL_BEFORE_P999_NS,
	TRIAL_BEFORE_MAX_NS,
	TRIAL_WRITES_PER_S,       /* during */
	TRIAL_WRITES_SHARE,       /* of the writes per second before the first snapshot */
	TRIAL_AFTER_SHARE,        /* the same after the image is durable, until the window or the rest ends */
	TRIAL_UNDISTURBED_WRITES, /* in a window before the first snapshot; these three are 0 without a window */
	TRIAL_WINDOW_WRITES,      /* in the window from the cut on */
	TRIAL_LOST_SHARE,         /* of the undisturbed ones */
	TRIAL_FAULTS,             /* library: write faults; fork: minor faults of the writers */
	TRIAL_WRITES_PER_FAULT,   /* during */
	TRIAL_PAGES_FAULT,
	TRIAL_PAGES_PREPARE,
	TRIAL_PAGES_SWEEP,
	TRIAL_WAITS,
	TRIAL_PREIMAGE_PEAK_BYTES, /* fork: what copy on write took; others: copies of pages */
	TRIAL_WRITTEN_BYTES,
	TRIAL_ROUNDS, /* library: of arming, before the pause; these four are 0 where it does not report them */
	TRIAL_ROUNDS_NS,
	TRIAL_BRAKED_NS,
	TRIAL_PAGES_ROUNDS,
	TRIAL_FIGURES
};

struct trial_setup {
	uint64_t size_bytes;
	enum uffdwp_mechanism mechanism; /* library */
	uint64_t pool_bytes;
	uint64_t window_ns; /* from the cut on; 0: until the image is durable. In a series a rest is at least as long */
	unsigned writer_count;
	enum load_pattern pattern;
	enum trial_kind kind;
	unsigned snapshots; /* in the series, 1 to TRIAL_SERIES_MAX */
	unsigned before_ms; /* how long writers are watched before the first snapshot */
	const char *folder;
	int pin_other; /* the library's threads, or the child, on the program's second CPU; 0: free */
	int direct;    /* the folder has O_DIRECT; among the rivals only fork does without */
	int verify;
	struct memory_sampler *sampler; /* samples the last snapshot; NULL: not */
};

/* One snapshot, as a method is asked for it. */
struct trial_cut {
	const char *path;
	const char *parent; /* the image before this one, where this one may be an increment; NULL */
	struct load *load;
};

struct trial_result {
	double values[TRIAL_FIGURES];
	uint32_t direct; /* library: the image was written with O_DIRECT */
	uint32_t uring;  /* and with io_uring */
	struct histogram during;
};

/* Throughput around the first snapshot of a trial: writes in slots of LOAD_SLOT_NS. */
struct trial_timeline {
	uint64_t slots[LOAD_SLOTS];
	uint64_t begun_ns;   /* the cut was asked for */
	uint64_t durable_ns; /* the image is; both counted from the first slot on */
	size_t count;        /* slots */
};

struct trial_method {
	const char *name;
	int variant; /* library: the delivery; fork: 1 for O_DIRECT */
	void (*open)(const struct trial_method *method, const struct trial_setup *setup, struct area *area);
	/* Makes the cut. */
	void (*begin)(const struct trial_method *method, const struct trial_setup *setup, const struct trial_cut *cut);
	/* Waits until the image is durable. */
	void (*wait)(void);
	/* Fills in what the method knows; `during` is what the writers saw. */
	void (*result)(const struct load_result *during, struct trial_result *result);
	/* Ends a snapshot, after its result. */
	void (*end)(void);
	void (*close)(void);
	pid_t (*child)(void); /* between begin and wait; NULL: never one */
};

/* `results` has room for setup->snapshots; `timeline` may be NULL. */
void trial_run(const struct trial_method *method, const struct trial_setup *setup, struct trial_result *results,
               struct trial_timeline *timeline);

extern const struct trial_method trial_inline;
extern const struct trial_method trial_thread;
extern const struct trial_method trial_move;
extern const struct trial_method trial_inline_move;

/* 1: the region is armed by a move of its page tables; else by rounds. */
static inline int trial_moves(const struct trial_method *method)
{
	return method == &trial_move || method == &trial_inline_move;
}
extern const struct trial_method trial_fork;
extern const struct trial_method trial_fork_direct;
extern const struct trial_method trial_mprotect;
extern const struct trial_method trial_uffd_loop;
extern const struct trial_method trial_stop;

#endif
