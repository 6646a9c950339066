/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-bank: the program. One run: fill the bank, start the writers, then in turns let them run alone and save the
 * database under them: by snapshots of the library, by SQLite's online backup, by VACUUM INTO. At the end the stock
 * sqlite3 program verifies every snapshot's image.
 *
 * Exit codes: 0 all verified, 1 something failed, 2 wrong arguments.
 */
#include "bank.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	ROW_QUIET,
	ROW_ALL, /* the snapshots together; each has a row of its own after the rivals */
	ROW_BACKUP,
	ROW_VACUUM,
	ROW_FIRST_SNAPSHOT,
};

struct run {
	const struct bank_options *options;
	struct bank bank;
	struct bank_load load;
	struct samples samples;
	struct verifier verifier;
	const char *folder;
	struct row rows[ROW_FIRST_SNAPSHOT + BANK_MAX_SNAPSHOTS];
	struct interval quiet[BANK_MAX_SNAPSHOTS + 2];
	struct interval saves[ROW_FIRST_SNAPSHOT + BANK_MAX_SNAPSHOTS];
};

static void bank_row_init(struct row *row, const char *method, unsigned number, struct interval *intervals)
{
	*row = (struct row){.intervals = intervals,
	                    .pause_ns = BANK_NONE,
	                    .begin_ns = BANK_NONE,
	                    .faults = BANK_NONE,
	                    .prepared = BANK_NONE,
	                    .image_bytes = BANK_NONE};
	if (number)
		snprintf(row->method, sizeof(row->method), "%s %u", method, number);
	else
		snprintf(row->method, sizeof(row->method), "%s", method);
}

/* The load alone, for a while: what the other rows are compared with. */
static int bank_run_quiet(struct run *run)
{
	struct row *row = &run->rows[ROW_QUIET];
	struct interval *interval = &row->intervals[row->count++];
	interval->from_ns = bank_now_ns();
	int result = load_run(&run->load, run->options->seconds);
	interval->to_ns = bank_now_ns();
	return result;
}

static uint64_t bank_file_bytes(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? (uint64_t)st.st_size : BANK_NONE;
}

static int bank_save_by_snapshot(struct run *run, const char *path, struct row *row)
{
	sqlite3_stmt *statement = NULL;
	int is_first = row == &run->rows[ROW_FIRST_SNAPSHOT];
	const char *how = !run->options->deltas ? "wait" : is_first ? "keep wait" : "delta wait";
	int result =
	        sqlite3_prepare_v2(run->bank.db,
	                           "SELECT j ->> 'pause_ns', j ->> 'faults', j ->> 'pages_prepare', j ->> 'begin_ns'"
	                           " FROM (SELECT uffdwp_snapshot(?1, ?2) AS j)",
	                           -1, &statement, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
	if (result == SQLITE_OK)
		result = sqlite3_bind_text(statement, 2, how, -1, SQLITE_STATIC);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement);
	if (result == SQLITE_ROW) {
		row->pause_ns = (uint64_t)sqlite3_column_int64(statement, 0);
		row->faults = (uint64_t)sqlite3_column_int64(statement, 1);
		row->prepared = (uint64_t)sqlite3_column_int64(statement, 2);
		row->begin_ns = (uint64_t)sqlite3_column_int64(statement, 3);
	} else {
		bank_fail(run->bank.db, "snapshot");
	}
	sqlite3_finalize(statement);
	return result == SQLITE_ROW ? 0 : -1;
}

static int bank_save_by_backup(struct run *run, const char *path, struct row *row)
{
	sqlite3 *to = NULL;
	int result = -1;
	(void)row;
	if (sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) == SQLITE_OK) {
		sqlite3_backup *backup = sqlite3_backup_init(to, "main", run->bank.db, "main");
		if (backup && sqlite3_backup_step(backup, -1) == SQLITE_DONE)
			result = 0;
		if (sqlite3_backup_finish(backup) != SQLITE_OK)
			result = -1;
	}
	if (result < 0)
		bank_fail(to, "online backup");
	sqlite3_close(to);
	return result;
}

static int bank_save_by_vacuum(struct run *run, const char *path, struct row *row)
{
	(void)row;
	char *sql = sqlite3_mprintf("VACUUM INTO %Q", path);
	int result = sql ? bank_exec(run->bank.db, sql) : -1;
	sqlite3_free(sql);
	return result;
}

/* A save under load, measured. */
static int bank_run_save(struct run *run, struct row *row, const char *path,
                         int (*save)(struct run *run, const char *path, struct row *row))
{
	if (!path || bank_run_quiet(run) < 0)
		return -1;
	row->count = 1;
	row->intervals->from_ns = bank_now_ns();
	int result = save(run, path, row);
	row->intervals->to_ns = bank_now_ns();
	row->image_bytes = bank_file_bytes(path);
	return run->load.failed ? -1 : result;
}

static int bank_run_snapshots(struct run *run)
{
	int result = 0;
	for (unsigned i = 0; i < run->options->snapshots && result == 0; i++) {
		char *path = bank_path(run->folder, "snapshot", i + 1);
		result = bank_run_save(run, &run->rows[ROW_FIRST_SNAPSHOT + i], path, bank_save_by_snapshot);
		sqlite3_free(path);
	}
	return result;
}

/* The rivals' images are of no further use. */
static int bank_run_rival(struct run *run, unsigned which, const char *name,
                          int (*save)(struct run *run, const char *path, struct row *row))
{
	char *path = bank_path(run->folder, name, 0);
	int result = bank_run_save(run, &run->rows[which], path, save);
	if (path)
		unlink(path);
	sqlite3_free(path);
	return result;
}

/* The longest pause, the longest begin, the sum of the faults, the largest image. */
static void bank_sum_snapshots(struct run *run)
{
	struct row *all = &run->rows[ROW_ALL];
	all->count = run->options->snapshots;
	all->pause_ns = all->begin_ns = all->faults = all->prepared = all->image_bytes = 0;
	for (size_t i = 0; i < all->count; i++) {
		const struct row *row = &run->rows[ROW_FIRST_SNAPSHOT + i];
		if (row->pause_ns > all->pause_ns)
			all->pause_ns = row->pause_ns;
		if (row->begin_ns > all->begin_ns)
			all->begin_ns = row->begin_ns;
		if (row->image_bytes > all->image_bytes)
			all->image_bytes = row->image_bytes;
		all->faults += row->faults;
		all->prepared += row->prepared;
	}
}

static size_t bank_rows_count(const struct run *run)
{
	return ROW_FIRST_SNAPSHOT + run->options->snapshots;
}

static int bank_measure_rows(struct run *run)
{
	int result = 0;
	bank_sum_snapshots(run);
	for (size_t i = 0; i < bank_rows_count(run) && result == 0; i++) {
		struct row *row = &run->rows[i];
		result = samples_measure(&run->samples, row->intervals, row->count,
		                         i == ROW_QUIET ? SAMPLES_INSIDE : SAMPLES_TOUCHING, &row->latencies);
	}
	return result;
}

static int bank_run_load(struct run *run)
{
	int result = load_start(&run->load, &run->bank, run->options);
	if (result == 0)
		result = bank_run_snapshots(run);
	if (result == 0)
		result = bank_run_rival(run, ROW_BACKUP, "backup", bank_save_by_backup);
	if (result == 0)
		result = bank_run_rival(run, ROW_VACUUM, "vacuum", bank_save_by_vacuum);
	if (load_stop(&run->load, &run->samples) < 0)
		result = -1;
	return result == 0 ? bank_measure_rows(run) : result;
}

/* For a delta, the database that it and its ancestors make. */
static int bank_verify_image(struct run *run, unsigned number, char *text, size_t size)
{
	char *path = bank_path(run->folder, "snapshot", number);
	char *merged = run->options->deltas && number > 1 ? bank_path(run->folder, "merged", 0) : NULL;
	int result = path ? 0 : -1;
	if (result < 0)
		snprintf(text, size, "no memory");
	if (merged && result == 0)
		result = verifier_merge(path, merged, text, size);
	if (result == 0)
		result = verifier_check(&run->verifier, merged ? merged : path, text, size);
	if (merged)
		unlink(merged);
	sqlite3_free(merged);
	sqlite3_free(path);
	return result;
}

static unsigned bank_run_verify(struct run *run)
{
	char text[1024];
	unsigned good = 0;
	FILE *out = run->options->json ? stderr : stdout;
	for (unsigned i = 0; i < run->options->snapshots; i++) {
		int result = bank_verify_image(run, i + 1, text, sizeof(text));
		good += result == 0;
		fprintf(out, "image %u: %s%s\n", i + 1, result == 0 ? "" : "FAILED: ", text);
	}
	fprintf(out, "verified: %u/%u\n", good, run->options->snapshots);
	return good;
}

static char *bank_query_stats(sqlite3 *db)
{
	sqlite3_stmt *statement = NULL;
	char *text = NULL;
	if (sqlite3_prepare_v2(db, "SELECT uffdwp_stats()", -1, &statement, NULL) == SQLITE_OK &&
	    sqlite3_step(statement) == SQLITE_ROW)
		text = sqlite3_mprintf("%s", sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return text ? text : sqlite3_mprintf("{}");
}

static int bank_run_report(struct run *run)
{
	char *stats = bank_query_stats(run->bank.db);
	const struct report_setting setting = {run->options, &run->bank, stats};
	if (!run->options->json)
		report_print(run->rows, bank_rows_count(run), &setting);
	fflush(stdout);
	unsigned verified = bank_run_verify(run);
	if (run->options->json)
		report_json(run->rows, bank_rows_count(run), &setting, verified);
	sqlite3_free(stats);
	return verified == run->options->snapshots ? 0 : -1;
}

static void bank_print_start(const struct run *run)
{
	if (!run->options->json)
		printf("bank: %" PRId64 " accounts in %" PRId64 " branches; images in %s\n", run->bank.accounts,
		       run->bank.branches, run->folder);
	fflush(stdout);
}

/* What is loaded and what the images are compared with is one copy: others may write to the file meanwhile. */
static int bank_load_copy(struct run *run)
{
	char *path = bank_path(run->folder, "source", (unsigned)getpid());
	int result = path ? bank_copy_file(run->options->load_path, path) : -1;
	if (result == 0)
		result = bank_load(&run->bank, path);
	if (result == 0)
		result = verifier_init(&run->verifier, &run->bank, run->folder, path);
	if (path)
		unlink(path);
	sqlite3_free(path);
	return result;
}

static int bank_run_fill(struct run *run)
{
	if (run->options->load_path)
		return bank_load_copy(run);
	int result = bank_generate(&run->bank, run->options->size_bytes);
	if (result == 0)
		result = verifier_init(&run->verifier, &run->bank, run->folder, NULL);
	return result;
}

static int bank_run_all(struct run *run)
{
	bank_row_init(&run->rows[ROW_QUIET], "no save", 0, run->quiet);
	bank_row_init(&run->rows[ROW_ALL], "all snapshots", 0, run->saves + ROW_FIRST_SNAPSHOT);
	bank_row_init(&run->rows[ROW_BACKUP], "online backup", 0, run->saves + ROW_BACKUP);
	bank_row_init(&run->rows[ROW_VACUUM], "VACUUM INTO", 0, run->saves + ROW_VACUUM);
	for (unsigned i = 0; i < run->options->snapshots; i++)
		bank_row_init(&run->rows[ROW_FIRST_SNAPSHOT + i], "snapshot", i + 1,
		              run->saves + ROW_FIRST_SNAPSHOT + i);
	int result = bank_run_fill(run);
	if (result == 0) {
		bank_print_start(run);
		result = bank_run_load(run);
	}
	if (result == 0)
		result = bank_run_report(run);
	free(run->samples.list);
	verifier_fini(&run->verifier);
	return result;
}

/* ----------------------------------------------------------------------------------------------------- options -- */

static void bank_usage(FILE *out)
{
	fprintf(out, "usage: uffdwp-bank [OPTION]...\n\n"
	             "A bank in memory (SQLite in the VFS uffdwp) under load is saved by snapshots, by SQLite's online "
	             "backup and\n"
	             "by VACUUM INTO; the stock sqlite3 program verifies the snapshots.\n\n"
	             "  --size=BYTES       of the generated database, with K, M or G after it (256M)\n"
	             "  --load=PATH        take a copy of this database instead; the file is not changed\n"
	             "  --threads=N        writers (2)\n"
	             "  --snapshots=N      (5)\n"
	             "  --seconds=N        of load before each save (2)\n"
	             "  --think=US         pause of a writer between two transactions, microseconds (200); 0: none\n"
	             "  --mechanism=NAME   how writes are caught: auto, marker, rearm, minor or mprotect (auto)\n"
	             "  --delivery=NAME    what resolves a write fault: auto, thread or inline (auto)\n"
	             "  --prepare=0|1      1: the VFS announces its writes; 0: they fault (1)\n"
	             "  --out=DIR          where images go and stay; else a temporary folder that is removed\n"
	             "  --extension=PATH   uffdwp_sqlite.so, if not in ../lib beside the program\n"
	             "  --seed=N           of the random transactions (1)\n"
	             "  --deltas           snapshots after the first hold what changed since the one before\n"
	             "  --json             a JSON document instead of the table\n\n"
	             "Exit codes: 0 all images verified, 1 something failed, 2 wrong arguments.\n");
}

enum {
	OPT_SIZE = 256,
	OPT_LOAD,
	OPT_THREADS,
	OPT_SNAPSHOTS,
	OPT_SECONDS,
	OPT_THINK,
	OPT_MECHANISM,
	OPT_DELIVERY,
	OPT_PREPARE,
	OPT_OUT,
	OPT_EXTENSION,
	OPT_SEED,
	OPT_DELTAS,
	OPT_JSON,
	OPT_HELP
};

static const struct option long_options[] = {
        {"size", required_argument, NULL, OPT_SIZE},
        {"load", required_argument, NULL, OPT_LOAD},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"snapshots", required_argument, NULL, OPT_SNAPSHOTS},
        {"seconds", required_argument, NULL, OPT_SECONDS},
        {"think", required_argument, NULL, OPT_THINK},
        {"mechanism", required_argument, NULL, OPT_MECHANISM},
        {"delivery", required_argument, NULL, OPT_DELIVERY},
        {"prepare", required_argument, NULL, OPT_PREPARE},
        {"out", required_argument, NULL, OPT_OUT},
        {"extension", required_argument, NULL, OPT_EXTENSION},
        {"seed", required_argument, NULL, OPT_SEED},
        {"deltas", no_argument, NULL, OPT_DELTAS},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, OPT_HELP},
        {NULL, 0, NULL, 0},
};

/* A number with an optional K, M or G, within bounds; 0 and a message otherwise, for *good. */
static uint64_t bank_parse_number(const char *text, uint64_t least, uint64_t most, int *good)
{
	static const char units[] = "KMG";
	char *end = NULL;
	errno = 0;
	uint64_t number = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	int shift = unit ? 10 * (int)(unit - units + 1) : 0;
	if (*text < '0' || *text > '9' || errno || (*end && (!unit || end[1])) || number > most >> shift ||
	    number << shift < least) {
		fprintf(stderr, "uffdwp-bank: '%s' is not a number from %" PRIu64 " to %" PRIu64 "\n", text, least,
		        most);
		*good = 0;
		return 0;
	}
	return number << shift;
}

static const char *const mechanism_words[] = {"auto", "marker", "rearm", "minor", "mprotect", NULL};
static const char *const delivery_words[] = {"auto", "thread", "inline", NULL};

static const char *bank_parse_word(const char *text, const char *const *words, int *good)
{
	for (const char *const *word = words; *word; word++)
		if (strcmp(text, *word) == 0)
			return text;
	fprintf(stderr, "uffdwp-bank: '%s' is none of", text);
	for (const char *const *word = words; *word; word++)
		fprintf(stderr, " %s", *word);
	fprintf(stderr, "\n");
	*good = 0;
	return text;
}

/* Options that are numbers. 1: it was one. */
static int bank_parse_numbers(struct bank_options *options, int option, int *good)
{
	switch (option) {
	case OPT_SIZE:
		options->size_bytes = bank_parse_number(optarg, 1U << 20, UINT64_C(12) << 30, good);
		return 1;
	case OPT_THREADS:
		options->threads = (unsigned)bank_parse_number(optarg, 1, BANK_MAX_THREADS, good);
		return 1;
	case OPT_SNAPSHOTS:
		options->snapshots = (unsigned)bank_parse_number(optarg, 1, BANK_MAX_SNAPSHOTS, good);
		return 1;
	case OPT_SECONDS:
		options->seconds = bank_parse_number(optarg, 1, 3600, good);
		return 1;
	case OPT_THINK:
		options->think_us = (unsigned)bank_parse_number(optarg, 0, 10000000, good);
		return 1;
	case OPT_PREPARE:
		options->prepare = (int)bank_parse_number(optarg, 0, 1, good);
		return 1;
	case OPT_SEED:
		options->seed = bank_parse_number(optarg, 0, UINT64_MAX, good);
		return 1;
	default:
		return 0;
	}
}

static void bank_parse_words(struct bank_options *options, int option, int *good)
{
	switch (option) {
	case OPT_MECHANISM:
		options->mechanism = bank_parse_word(optarg, mechanism_words, good);
		break;
	case OPT_DELIVERY:
		options->delivery = bank_parse_word(optarg, delivery_words, good);
		break;
	case OPT_LOAD:
		options->load_path = optarg;
		break;
	case OPT_OUT:
		options->out = optarg;
		break;
	case OPT_EXTENSION:
		options->extension = optarg;
		break;
	case OPT_DELTAS:
		options->deltas = 1;
		break;
	case OPT_JSON:
		options->json = 1;
		break;
	case OPT_HELP:
		bank_usage(stdout);
		exit(0);
	default:
		*good = 0;
	}
}

static int bank_parse(int argc, char **argv, struct bank_options *options)
{
	int good = 1;
	int option;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (!bank_parse_numbers(options, option, &good))
			bank_parse_words(options, option, &good);
	if (good && optind < argc) {
		fprintf(stderr, "uffdwp-bank: unexpected argument '%s', see --help\n", argv[optind]);
		good = 0;
	}
	return good ? 0 : -1;
}

/* What can be refused is refused before anything is made. */
static int bank_check_paths(const struct bank_options *options)
{
	struct stat st;
	if (options->load_path && access(options->load_path, R_OK) < 0) {
		fprintf(stderr, "uffdwp-bank: %s: %s\n", options->load_path, strerror(errno));
		return -1;
	}
	if (options->out && (stat(options->out, &st) < 0 || !S_ISDIR(st.st_mode) || access(options->out, W_OK) < 0)) {
		fprintf(stderr, "uffdwp-bank: %s is not a folder that can be written\n", options->out);
		return -1;
	}
	return 0;
}

static void bank_remove_images(const struct run *run)
{
	for (unsigned i = 0; i < run->options->snapshots; i++) {
		char *path = bank_path(run->folder, "snapshot", i + 1);
		if (path)
			unlink(path);
		sqlite3_free(path);
	}
	rmdir(run->folder);
}

static int bank_run_in_folder(struct run *run)
{
	char temporary[] = "/tmp/uffdwp-bank-XXXXXX";
	run->folder = run->options->out ? run->options->out : mkdtemp(temporary);
	if (!run->folder) {
		fprintf(stderr, "uffdwp-bank: cannot make a temporary folder: %s\n", strerror(errno));
		return -1;
	}
	int result = bank_run_all(run);
	if (!run->options->out)
		bank_remove_images(run);
	return result;
}

/* Also when the help was all. A figure that was not written is no success. */
static void bank_close_output(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return;
	fprintf(stderr, "uffdwp-bank: the output could not be written\n");
	_exit(1);
}

int main(int argc, char **argv)
{
	struct bank_options options = {.mechanism = "auto",
	                               .delivery = "auto",
	                               .size_bytes = 256U << 20,
	                               .seconds = 2,
	                               .seed = 1,
	                               .threads = 2,
	                               .snapshots = 5,
	                               .think_us = 200,
	                               .prepare = 1};
	atexit(bank_close_output);
	if (bank_parse(argc, argv, &options) < 0)
		return 2;
	if (bank_check_paths(&options) < 0)
		return 1;
	struct run *run = calloc(1, sizeof(*run));
	if (!run) {
		fprintf(stderr, "uffdwp-bank: no memory\n");
		return 1;
	}
	run->options = &options;
	int result = bank_open(&run->bank, &options);
	if (result == 0)
		result = bank_run_in_folder(run);
	bank_close(&run->bank);
	free(run);
	return result == 0 ? 0 : 1;
}
