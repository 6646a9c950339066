/* SPDX-License-Identifier: MIT */
/*
 * What the files of the question `snapshot` share: its cases, and what the methods showed in one of them.
 *
 * A case is a load, a kind of snapshot, a number of writers, a size and a pool. Its name,
 * LOAD[.KIND][.wN][.SIZE][.ample], leaves out what is most common: first snapshots, one writer, 1 GiB, the pool that
 * was asked for. All methods of a case take turns.
 *
 * snapshot.c chooses and measures, snapshot_rows.c makes figures and tables of it, snapshot_plot.c pictures;
 * snapshot_rest.c has the memory that is at rest again.
 */
#ifndef UFFDWP_BENCH_SNAPSHOT_H
#define UFFDWP_BENCH_SNAPSHOT_H

#include "bench.h"
#include "report.h"
#include "trial.h"

#define SNAPSHOT_METHODS 9
#define SNAPSHOT_TRIALS_MAX 64 /* of a method in a case */
#define SNAPSHOT_COMMON_BYTES (UINT64_C(1) << 30)

struct snapshot_case {
	enum load_pattern pattern;
	enum trial_kind kind;
	unsigned writer_count;
	uint64_t size_bytes;
	int ample;        /* the pool has room for each page: no writer waits for the disk */
	unsigned methods; /* bits */
};

/* What one method showed in a case. */
struct snapshot_row {
	const struct trial_method *method;
	size_t number; /* of the method among all */
	struct trial_result trials[SNAPSHOT_TRIALS_MAX];
	unsigned count; /* of trials */
	double values[TRIAL_FIGURES];
	double stall_ns;
	unsigned beyond; /* trials that took longer than the window */
	struct histogram during;
	struct trial_timeline timeline;
	struct memory_sampler memory;
};

struct snapshot_table {
	struct snapshot_case one;
	char name[64];
	struct snapshot_row rows[SNAPSHOT_METHODS];
	size_t count;
	uint64_t window_ns;
	uint64_t pool_bytes;
};

const char *snapshot_kind_name(enum trial_kind kind);
void snapshot_case_name(const struct snapshot_case *one, char *name, size_t size);
const struct snapshot_row *snapshot_find_fork(const struct snapshot_table *table);

/* Fills in the medians of all rows, and adds the figures. */
void snapshot_add(struct report *report, struct snapshot_table *table);
void snapshot_print(const struct snapshot_table *table);
/* Standard error or output: which trials took longer than the window. */
void snapshot_print_beyond(FILE *to, const struct snapshot_table *table);

struct snapshot_rest_setup {
	struct bench_settings common;
	enum uffdwp_mechanism mechanism; /* of arming in rounds */
	uint64_t size_bytes;             /* of each side's memory */
	const char *folder;              /* of the images */
};

/* Case at_rest: figures and a table. */
void snapshot_rest(struct report *report, const struct snapshot_rest_setup *setup);

/* Pictures; the folder is made if need be. After snapshot_add(). */
void snapshot_plot_open(const char *folder);
void snapshot_plot_case(const struct snapshot_table *table);
/* Draws what the cases had in common, and says what was drawn, or why nothing could be; to standard error. */
void snapshot_plot_close(void);

#endif
