/* SPDX-License-Identifier: MIT */
/*
 * What the files of the question `snapshot` share: its cases, and what the ways showed in one of them.
 *
 * A case is a load, a kind of snapshot, a number of writers and a size. Its name, LOAD[.KIND][.wN][.SIZE], leaves out
 * what is most common: first snapshots, one writer, 1 GiB. All ways of a case take turns.
 *
 * snapshot.c chooses and measures, snapshot_rows.c makes figures and tables of it, snapshot_plot.c pictures.
 */
#ifndef UFFDWP_BENCH_SNAPSHOT_H
#define UFFDWP_BENCH_SNAPSHOT_H

#include "report.h"
#include "trial.h"

#define SNAPSHOT_WAYS 7
#define SNAPSHOT_TRIALS_MAX 64 /* of a way in a case */
#define SNAPSHOT_COMMON_BYTES (UINT64_C(1) << 30)

struct snapshot_case {
	enum load_pattern pattern;
	enum trial_kind kind;
	unsigned writer_count;
	uint64_t size_bytes;
	unsigned ways; /* bits */
};

/* What one way showed in a case. */
struct snapshot_row {
	const struct trial_way *way;
	size_t number; /* of the way among all */
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
	struct snapshot_row rows[SNAPSHOT_WAYS];
	size_t count;
	uint64_t window_ns; /* 0: a series, which has none */
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

/* Pictures; the folder is made if need be. After snapshot_add(). */
void snapshot_plot_open(const char *folder);
void snapshot_plot_case(const struct snapshot_table *table);
/* Draws what the cases had in common, and says what was drawn, or why nothing could be; to standard error. */
void snapshot_plot_close(void);

#endif
