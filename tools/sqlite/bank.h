/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-bank: a bank in memory under load, saved by three methods; what the parts of the program share.
 *
 * The bank is TPC-B's (branches, tellers, accounts, history): each transaction adds one random amount to an account, a
 * teller and a branch, and writes it down.
 *
 * INV-BANK: between two transactions the three sums of balances equal the sum of the history.
 */
#ifndef UFFDWP_SQLITE_BANK_H
#define UFFDWP_SQLITE_BANK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#define BANK_MAX_THREADS 64
#define BANK_MAX_SNAPSHOTS 100
#define BANK_NONE UINT64_MAX /* a figure that a method does not have */
#define NS_PER_SECOND UINT64_C(1000000000)

struct bank_options {
	const char *mechanism;
	const char *delivery;
	const char *load_path; /* NULL: generate */
	const char *out;       /* NULL: a temporary folder, removed at the end */
	const char *extension; /* NULL: beside the program */
	uint64_t size_bytes;
	uint64_t seconds; /* of load before each save */
	uint64_t seed;
	unsigned threads;
	unsigned snapshots;
	unsigned think_us;
	int prepare;
	int deltas; /* snapshots after the first hold what changed since the one before */
	int json;
};

/* ---------------------------------------------------------------------------------------------------- the data -- */

struct bank {
	sqlite3 *db; /* the connection that saves; writers have their own */
	char *uri;
	char *mechanism; /* in use, and so the delivery */
	char *delivery;
	int64_t branches;
	int64_t accounts;
	char **tables; /* of a loaded database: names of the user's own tables, NULL at the end */
};

/* Prints what went wrong with a connection; always -1. */
int bank_fail(sqlite3 *db, const char *what);

/* 0 or -1, as all of these: the reason is then printed. */
int bank_exec(sqlite3 *db, const char *sql);
int bank_open(struct bank *bank, const struct bank_options *options);
int bank_generate(struct bank *bank, uint64_t size_bytes);
int bank_load(struct bank *bank, const char *path);

/* Copies a database file, whole as it was between two transactions; others may go on writing to it. */
int bank_copy_file(const char *from, const char *to);
int bank_connect(const struct bank *bank, sqlite3 **out);
void bank_close(struct bank *bank);

/* Beside the program: `name` from its folder, by sqlite3_mprintf(); NULL: not known. */
char *bank_beside(const char *name);

/* A path of sqlite3_mprintf() in a folder. */
char *bank_path(const char *folder, const char *name, unsigned number);

/* ----------------------------------------------------------------------------------------------------- samples -- */

struct sample {
	uint64_t start_ns;
	uint64_t latency_ns;
};

struct samples {
	struct sample *list;
	size_t count;
	size_t room;
};

struct interval {
	uint64_t from_ns;
	uint64_t to_ns;
};

struct latencies {
	uint64_t count;
	uint64_t p50_ns;
	uint64_t p99_ns;
	uint64_t p999_ns;
	uint64_t max_ns;
};

uint64_t bank_now_ns(void);
int samples_add(struct samples *samples, struct sample sample);
int samples_append(struct samples *samples, const struct samples *more);

/* Whether a transaction that reaches over an end of an interval counts for it: yes for a save, no for the quiet. */
enum samples_rule { SAMPLES_TOUCHING, SAMPLES_INSIDE };

/* The latencies of the transactions that belong to the intervals. 0 or -1 (memory). */
int samples_measure(const struct samples *samples, const struct interval *intervals, size_t count,
                    enum samples_rule rule, struct latencies *out);

/* -------------------------------------------------------------------------------------------------------- load -- */

struct writer {
	pthread_t thread;
	const struct bank *bank;
	struct bank_load *load;
	struct samples samples;
	uint64_t random;
	int failed;
};

struct bank_load {
	struct writer writers[BANK_MAX_THREADS];
	unsigned threads;
	unsigned think_us;
	_Atomic int stop;
	_Atomic int failed;
};

int load_start(struct bank_load *load, const struct bank *bank, const struct bank_options *options);

/* Lets the load run on. 0, or -1 when a writer failed. */
int load_run(struct bank_load *load, uint64_t seconds);

/* Ends it and gathers the samples. */
int load_stop(struct bank_load *load, struct samples *all);

/* ------------------------------------------------------------------------------------------------------ report -- */

struct row {
	char method[32];
	struct interval *intervals;
	size_t count;
	uint64_t pause_ns;
	uint64_t begin_ns;
	uint64_t faults;
	uint64_t prepared; /* pages that writers saved by uffdwp_prepare_write() */
	uint64_t image_bytes;
	struct latencies latencies;
};

uint64_t row_elapsed_ns(const struct row *row);

/* What the figures were measured under. */
struct report_setting {
	const struct bank_options *options;
	const struct bank *bank;
	const char *stats; /* JSON of the region */
};

void report_print(const struct row *rows, size_t count, const struct report_setting *setting);
void report_json(const struct row *rows, size_t count, const struct report_setting *setting, unsigned verified);

/* ------------------------------------------------------------------------------------------------------ verify -- */

struct verifier {
	const char *folder;
	char *script; /* of the digests; NULL: there are no tables to compare */
	char *digest; /* of the source */
};

/* Digests the source's tables by the stock sqlite3 program. */
int verifier_init(struct verifier *verifier, const struct bank *bank, const char *folder, const char *source);
void verifier_fini(struct verifier *verifier);

/* Makes one database of the delta and its ancestors, at `to`: 0, or -1 with the reason in `text`. */
int verifier_merge(const char *delta, const char *to, char *text, size_t size);

/* 0: the image is whole; else -1 with the reason in `text`, which gets the figures otherwise. */
int verifier_check(const struct verifier *verifier, const char *image, char *text, size_t size);

#endif
