/* SPDX-License-Identifier: MIT */
/*
 * Question: what does an image of live memory cost, by the library, by fork(), and by what a program could do by hand?
 *
 * In each case (snapshot.h) all methods take turns; the order is reversed from one repetition to the next. Before the
 * first repetition each method takes images that are compared with the memory at their cut; after the last one it takes
 * one more while its memory is looked at.
 *
 * Which cases: those that the bars are about and one of each sort, unless --size, --writers or --kind ask for others:
 * then all combinations of what is asked for. --bar leaves the cases and methods whose figures it names, and fork.
 *
 * Times of writes are shown twice, and never one without the other: `during` ends when that method's image is durable,
 * `write` ends with a window that is the same for all methods (README.md says what each can show).
 *
 * Threads: the main thread measures; one waits for signals that end the program, and removes the folder of the images.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "duel.h"
#include "image.h"
#include "snapshot.h"
#include "window.h"

#define CASES_MAX 128
#define LIST_MAX 8
#define REPEAT_FIRST 5
#define REPEAT_SERIES 2
#define WINDOW_SECONDS_MAX 3600
#define WINDOW_QUICK_NS 50000000u
#define REST_BYTES (UINT64_C(64) << 20)   /* a pass is short, so that few are disturbed */
#define SPARE_BYTES (UINT64_C(512) << 20) /* of memory, beyond twice the size of a case */

#ifdef UFFDWP_BENCH_PARENT
#define HAS_PARENT 1
#else
#define HAS_PARENT 0
#endif

static const struct trial_method *const all_methods[SNAPSHOT_METHODS] = {
        &trial_inline,    &trial_thread, &trial_fork, &trial_fork_direct, &trial_mprotect,
        &trial_uffd_loop, &trial_stop,   &trial_move, &trial_inline_move,
};

#define METHODS_ALL ((1u << SNAPSHOT_METHODS) - 1)
#define METHOD_FORK (1u << 2)
#define METHODS_MAIN (1u << 0 | 1u << 1 | METHOD_FORK)
#define METHODS_MOVE (1u << 7 | 1u << 8) /* each snapshot of theirs begins anew */
#define METHODS_FIRST (METHODS_MAIN | METHODS_MOVE)
#define METHODS_LARGE (METHOD_FORK | METHODS_MOVE)

struct settings {
	struct bench_settings common;
	struct trial_setup trial; /* what is the same in all cases */
	unsigned repeat;          /* 0: by the kind */
	unsigned series;          /* snapshots after the first one */
	int verify;
	int sample;
	int at_rest;       /* this case alone */
	unsigned patterns; /* bits; 0: all */
	unsigned methods;  /* bits; 0: those of the case */
	unsigned kinds;    /* bits; 0: the plan */
	int kinds_asked;
	uint64_t sizes[LIST_MAX];
	size_t size_count; /* 0: the plan */
	unsigned writers[LIST_MAX];
	size_t writers_count; /* 0: the plan */
	const char *parent;   /* where the folder for images is made */
	const char *plot;     /* folder; NULL: no pictures */
	char folder[256];
};

static char *folder_to_remove;

/* ---------------------------------------------------------------------------------------------------- options -- */

enum { KEY_SIZE = 's', KEY_WRITERS = 'w', KEY_POOL = 'b', KEY_DIR = 'd', KEY_PIN = 'p', KEY_REPEAT = 'n' };
enum { KEY_LOAD = 'l', KEY_METHOD = 'o', KEY_UNVERIFIED = 'u', KEY_WINDOW = 'i', KEY_MECHANISM = 'c' };
enum { KEY_KIND = 'k', KEY_SERIES = 'e', KEY_PLOT = 'g', KEY_NO_MEMORY = 'm', KEY_AT_REST = 'r' };

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES,...", 0, "Sizes of the memory, such as 1G,2G,4G", 0},
        {"writers", KEY_WRITERS, "N,...", 0, "Threads that write; the n-th on the n-th CPU", 0},
        {"kind", KEY_KIND, "NAME,...", 0, "Of first, repeated, incremental snapshots these only", 0},
        {"load", KEY_LOAD, "NAME,...", 0, "Of uniform, zipf, sequential, paced_20k, paced_100k these only", 0},
        {"method", KEY_METHOD, "NAME,...", 0,
         "Of inline, thread, fork, fork_direct, mprotect, uffd_loop, stop_copy, move, inline_move these only", 0},
        {"pool", KEY_POOL, "BYTES", 0, "Bound on the library's pre-images (default 64M)", 0},
        {"dir", KEY_DIR, "FOLDER", 0, "Where images go (default: the current folder)", 0},
        {"pin", KEY_PIN, "WHERE", 0, "The library's threads and fork's child: free (default) or other (second CPU)", 0},
        {"repeat", KEY_REPEAT, "N", 0, "Trials of each method (default 5; of series 2)", 0},
        {"series", KEY_SERIES, "N", 0, "Snapshots of a series, after its first, which is not counted (default 5)", 0},
        {"window", KEY_WINDOW, "SECONDS", 0,
         "Stretch of time from the call of begin on that is compared (default 0: a little more than fork's snapshot "
         "takes)",
         0},
        {"mechanism", KEY_MECHANISM, "NAME", 0,
         "The library's: marker, rearm, minor or mprotect (default: the best that works here)", 0},
        {"plot", KEY_PLOT, "FOLDER", 0, "Draw pictures into this folder, by gnuplot; their data lie beside them", 0},
        {"no-verify", KEY_UNVERIFIED, NULL, 0, "Leave out the comparison of an image of each method with the memory",
         0},
        {"no-memory", KEY_NO_MEMORY, NULL, 0, "Leave out the trial that measures extra memory", 0},
        {"at-rest", KEY_AT_REST, NULL, 0, "Only writes to memory whose snapshot is over, and was not kept", 0},
        {0},
};

/* Seconds, with a fraction if need be; as nanoseconds. */
static uint64_t seconds(const char *text, struct argp_state *state)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= WINDOW_SECONDS_MAX))
		argp_error(state, "%s: not seconds from 0 to %d", text, WINDOW_SECONDS_MAX);
	return (uint64_t)(value * 1e9);
}

static int choice(const char *text, const char *zero, const char *one, struct argp_state *state)
{
	if (strcmp(text, zero) != 0 && strcmp(text, one) != 0)
		argp_error(state, "%s: neither %s nor %s", text, zero, one);
	return !strcmp(text, one);
}

static int kind_of(const char *name)
{
	for (int i = 0; i < TRIAL_KINDS; i++) {
		if (!strcmp(name, snapshot_kind_name((enum trial_kind)i)))
			return i;
	}
	return -1;
}

static int method_of(const char *name)
{
	for (int i = 0; i < SNAPSHOT_METHODS; i++) {
		if (!strcmp(name, all_methods[i]->name))
			return i;
	}
	return -1;
}

static unsigned bits_of(char *names, int (*number_of)(const char *), const char *what, struct argp_state *state)
{
	unsigned bits = 0;

	for (char *name; (name = strsep(&names, ",")) != NULL;) {
		int number = number_of(name);

		if (number < 0)
			argp_error(state, "%s: no such %s", name, what);
		else
			bits |= 1u << number;
	}
	return bits;
}

static void add_size(struct settings *settings, const char *text)
{
	uint64_t size_bytes = bench_size(text);

	if (size_bytes % (uint64_t)sysconf(_SC_PAGESIZE))
		bench_die("%s: a size must be in whole pages", text);
	settings->sizes[settings->size_count++] = size_bytes;
}

static void add_writers(struct settings *settings, const char *text)
{
	settings->writers[settings->writers_count++] = bench_number(text, LOAD_WRITERS_MAX);
}

static void each_of(char *list, void (*add)(struct settings *, const char *), struct settings *settings,
                    struct argp_state *state)
{
	unsigned count = 0;

	for (char *item; (item = strsep(&list, ",")) != NULL; count++) {
		if (count == LIST_MAX)
			argp_error(state, "at most %d sizes, and as many numbers of writers", LIST_MAX);
		add(settings, item);
	}
}

/* What is measured. */
static error_t parse_cases(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case KEY_SIZE:
		settings->size_count = 0;
		each_of(argument, add_size, settings, state);
		return 0;
	case KEY_WRITERS:
		settings->writers_count = 0;
		each_of(argument, add_writers, settings, state);
		return 0;
	case KEY_KIND:
		settings->kinds = bits_of(argument, kind_of, "kind of snapshots", state);
		settings->kinds_asked = 1;
		return 0;
	case KEY_LOAD:
		settings->patterns = bits_of(argument, load_pattern_of, "load", state);
		return 0;
	case KEY_METHOD:
		settings->methods = bits_of(argument, method_of, "method", state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_POOL:
		settings->trial.pool_bytes = bench_size(argument);
		return 0;
	case KEY_DIR:
		settings->parent = argument;
		return 0;
	case KEY_PIN:
		settings->trial.pin_other = choice(argument, "free", "other", state);
		return 0;
	case KEY_REPEAT:
		settings->repeat = bench_number(argument, SNAPSHOT_TRIALS_MAX);
		return 0;
	case KEY_SERIES:
		settings->series = bench_number(argument, TRIAL_SERIES_MAX - 1);
		return 0;
	case KEY_WINDOW:
		settings->trial.window_ns = seconds(argument, state);
		return 0;
	case KEY_MECHANISM:
		settings->trial.mechanism = library_mechanism_of(argument);
		return 0;
	case KEY_PLOT:
		settings->plot = argument;
		return 0;
	case KEY_UNVERIFIED:
		settings->verify = 0;
		return 0;
	case KEY_NO_MEMORY:
		settings->sample = 0;
		return 0;
	case KEY_AT_REST:
		settings->at_rest = 1;
		return 0;
	default:
		return parse_cases(key, argument, state);
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "A live snapshot: the library against fork(), mprotect(), a bare loop, and stopping.",
        children, NULL,  NULL};

/* The one that was asked for must work by one of the deliveries; which one is left out is said later. */
static void choose_mechanism(enum uffdwp_mechanism *mechanism)
{
	const char *reason;

	if (*mechanism == UFFDWP_MECHANISM_AUTO)
		*mechanism = library_best(UFFDWP_MEMORY_SHMEM);
	reason = library_refuses(UFFDWP_MEMORY_SHMEM, *mechanism, UFFDWP_DELIVERY_INLINE);
	if (reason && library_refuses(UFFDWP_MEMORY_SHMEM, *mechanism, UFFDWP_DELIVERY_THREAD))
		bench_skip("%s does not work here: %s", library_mechanism_name(*mechanism), reason);
}

static void check_settings(struct settings *settings)
{
	if (settings->common.quick) {
		settings->sizes[0] = 16 << 20;
		settings->size_count = 1;
		settings->trial.pool_bytes = 4 << 20;
		settings->trial.before_ms = 20;
		settings->repeat = 1;
		settings->series = 1;
	}
	if (settings->common.quick && !settings->kinds)
		settings->kinds = 1u << TRIAL_FIRST | 1u << TRIAL_REPEATED | (unsigned)HAS_PARENT << TRIAL_INCREMENTAL;
	if (settings->common.quick && !settings->trial.window_ns)
		settings->trial.window_ns = WINDOW_QUICK_NS;
	if (settings->repeat * settings->series > SNAPSHOT_TRIALS_MAX)
		bench_die("--repeat times --series: at most %d", SNAPSHOT_TRIALS_MAX);
	choose_mechanism(&settings->trial.mechanism);
	if (settings->trial.pin_other && bench_cpus() < 2)
		bench_skip("--pin other needs two CPUs");
}

/* ------------------------------------------------------------------------------------------- the folder of images --
 */

/* It is ours alone, by mkdtemp(): all that lies in it goes. */
static void remove_folder(void)
{
	DIR *folder = opendir(folder_to_remove);

	for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;)
		unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder)
		closedir(folder);
	rmdir(folder_to_remove);
}

static void *wait_for_signal(void *argument)
{
	int number = 0;

	while (sigwait(argument, &number))
		;
	remove_folder();
	_exit(128 + number);
}

static void remove_folder_at_end(void)
{
	static sigset_t set;
	pthread_t thread;

	atexit(remove_folder);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	bench_must(-pthread_create(&thread, NULL, wait_for_signal, &set), "a thread that waits for signals");
	pthread_detach(thread);
}

static void make_folder(struct settings *settings)
{
	snprintf(settings->folder, sizeof(settings->folder), "%s/uffdwp-bench-XXXXXX", settings->parent);
	if (!mkdtemp(settings->folder))
		bench_die("%s: %s", settings->folder, strerror(errno));
	settings->trial.folder = settings->folder;
	folder_to_remove = settings->folder;
	remove_folder_at_end();
	settings->trial.direct = image_direct_works(settings->folder);
}

/* -------------------------------------------------------------------------------------------------- the cases -- */

struct plan {
	struct snapshot_case cases[CASES_MAX];
	size_t count;
};

/* The least of it that the bars of --bar need; 0: nothing. */
static unsigned methods_of_bars(const struct settings *settings, const struct snapshot_case *one)
{
	unsigned methods = 0;
	char name[64];
	char prefix[128];

	snapshot_case_name(one, name, sizeof(name));
	for (unsigned i = 0; i < SNAPSHOT_METHODS; i++) {
		snprintf(prefix, sizeof(prefix), "snapshot.%s.%s.", name, all_methods[i]->name);
		if (report_bars_have(settings->common.bars, settings->common.bar, prefix))
			methods |= 1u << i;
	}
	return methods ? methods | METHOD_FORK : 0;
}

static int is_planned(const struct plan *plan, const struct snapshot_case *one)
{
	for (size_t i = 0; i < plan->count; i++) {
		const struct snapshot_case *other = &plan->cases[i];

		if (other->pattern == one->pattern && other->kind == one->kind && other->ample == one->ample &&
		    other->writer_count == one->writer_count && other->size_bytes == one->size_bytes)
			return 1;
	}
	return 0;
}

/* Each kind of trial and each kind of writer once. */
static int is_quick(const struct snapshot_case *one)
{
	return one->pattern == LOAD_UNIFORM ||
	       (one->kind == TRIAL_FIRST && (one->pattern == LOAD_SEQUENTIAL || one->pattern == LOAD_PACED_20K));
}

static void add_case(struct plan *plan, const struct settings *settings, struct snapshot_case one)
{
	if (settings->patterns && !(settings->patterns >> one.pattern & 1))
		return;
	if (settings->common.quick && !is_quick(&one))
		return;
	if (settings->common.quick && (one.pattern != LOAD_UNIFORM || one.kind != TRIAL_FIRST))
		one.methods &= METHODS_FIRST;
	if (is_planned(plan, &one))
		return;
	if (settings->methods)
		one.methods = settings->methods;
	if (settings->common.bar)
		one.methods = methods_of_bars(settings, &one);
	if (one.methods == 0)
		return;
	if (plan->count == CASES_MAX)
		bench_die("more than %d cases", CASES_MAX);
	plan->cases[plan->count++] = one;
}

/* A larger case is compared with the one of 1 GiB before it, which --bar must not leave out. */
static void add_larger(struct plan *plan, const struct settings *settings, struct snapshot_case one, unsigned gib,
                       unsigned methods)
{
	struct snapshot_case large = one;
	struct plan trial = {.count = 0};

	large.size_bytes = gib * SNAPSHOT_COMMON_BYTES;
	large.methods = methods;
	add_case(&trial, settings, large);
	if (trial.count && settings->common.bar)
		one.methods = trial.cases[0].methods;
	if (trial.count && settings->common.bar && !is_planned(plan, &one) &&
	    (!settings->patterns || settings->patterns >> one.pattern & 1)) {
		one.methods |= methods_of_bars(settings, &one);
		plan->cases[plan->count++] = one;
	}
	add_case(plan, settings, one);
	add_case(plan, settings, large);
}

static void add_default_cases(struct plan *plan, const struct settings *settings)
{
	struct snapshot_case one = {.kind = TRIAL_FIRST, .writer_count = 1, .size_bytes = SNAPSHOT_COMMON_BYTES};
	unsigned cpus = (unsigned)bench_cpus() < LOAD_WRITERS_MAX ? (unsigned)bench_cpus() : LOAD_WRITERS_MAX;

	for (int pattern = 0; pattern < LOAD_PATTERN_COUNT; pattern++) {
		one.pattern = (enum load_pattern)pattern;
		one.methods = load_pattern_rate(one.pattern) ? METHODS_FIRST : METHODS_ALL;
		add_case(plan, settings, one);
	}
	one.methods = METHODS_FIRST;
	one.pattern = LOAD_UNIFORM;
	one.ample = 1;
	add_case(plan, settings, one);
	one.ample = 0;
	add_larger(plan, settings, one, 4, METHODS_LARGE);
	add_larger(plan, settings, one, 8, METHODS_LARGE);
	one.writer_count = 2;
	add_case(plan, settings, one);
	add_larger(plan, settings, one, 8, METHODS_LARGE);
	one.writer_count = cpus;
	add_case(plan, settings, one);
	one.kind = TRIAL_REPEATED;
	one.writer_count = 1;
	add_case(plan, settings, one);
	add_larger(plan, settings, one, 4, METHODS_FIRST);
	add_larger(plan, settings, one, 8, METHODS_LARGE);
	one.writer_count = 2;
	add_case(plan, settings, one);
	add_larger(plan, settings, one, 8, METHODS_LARGE);
	one.writer_count = cpus;
	add_case(plan, settings, one);
	one.kind = TRIAL_INCREMENTAL;
	one.writer_count = 1;
	if (HAS_PARENT)
		add_case(plan, settings, one);
}

static void add_cases_of_size(struct plan *plan, const struct settings *settings, struct snapshot_case one)
{
	unsigned kinds = settings->kinds ? settings->kinds : 1u << TRIAL_FIRST;
	size_t writers = settings->writers_count ? settings->writers_count : 1;

	for (int kind = 0; kind < TRIAL_KINDS; kind++) {
		for (int pattern = 0; pattern < LOAD_PATTERN_COUNT; pattern++) {
			for (size_t i = 0; i < writers; i++) {
				one.kind = (enum trial_kind)kind;
				one.pattern = (enum load_pattern)pattern;
				one.writer_count = settings->writers_count ? settings->writers[i] : 1;
				if (kinds >> kind & 1)
					add_case(plan, settings, one);
			}
		}
	}
}

/* Where no other case is asked for, or the bars ask for it. */
static int is_rest_wanted(const struct settings *settings)
{
	if (settings->at_rest)
		return 1;
	if (settings->patterns || settings->methods || settings->kinds_asked || settings->writers_count)
		return 0;
	if (settings->common.bar)
		return report_bars_have(settings->common.bars, settings->common.bar, "snapshot.at_rest.");
	return settings->common.quick || !settings->size_count;
}

static void make_plan(struct plan *plan, const struct settings *settings)
{
	struct snapshot_case one = {.size_bytes = SNAPSHOT_COMMON_BYTES, .methods = METHODS_ALL};

	if (settings->at_rest)
		return;
	if (!settings->size_count && !settings->writers_count && !settings->kinds)
		add_default_cases(plan, settings);
	else if (!settings->size_count)
		add_cases_of_size(plan, settings, one);
	for (size_t i = 0; i < settings->size_count; i++) {
		one.size_bytes = settings->sizes[i];
		add_cases_of_size(plan, settings, one);
	}
	if (!plan->count && !is_rest_wanted(settings))
		bench_die("no case is left of what was asked for%s%s", settings->common.bar ? ": no bar matches " : "",
		          settings->common.bar ? settings->common.bar : "");
}

/* Why a case cannot be measured here, or NULL: fork and stop-and-copy may take its memory twice; an image and the one
 * that replaces it are on the disk at once, and a series of increments has no bound but the size of each. */
static const char *case_refused(const struct settings *settings, const struct snapshot_case *one)
{
	static char reason[160];
	uint64_t images = one->kind == TRIAL_INCREMENTAL ? settings->series + 2 : 2;
	uint64_t needed = 2 * one->size_bytes + SPARE_BYTES;
	uint64_t available = bench_meminfo_bytes("MemAvailable");
	struct statvfs disk;

	if (needed > available) {
		snprintf(reason, sizeof(reason), "it may need %llu MiB of memory, and %llu MiB are available",
		         (unsigned long long)needed >> 20, (unsigned long long)available >> 20);
		return reason;
	}
	needed = images * one->size_bytes + SPARE_BYTES / 8;
	if (statvfs(settings->folder, &disk))
		return strerror(errno);
	available = disk.f_bavail * disk.f_frsize;
	if (needed <= available)
		return one->kind == TRIAL_INCREMENTAL && !HAS_PARENT ? "this library has no increments" : NULL;
	snprintf(reason, sizeof(reason), "its images may need %llu MiB, and %s has %llu MiB left",
	         (unsigned long long)needed >> 20, settings->parent, (unsigned long long)available >> 20);
	return reason;
}

/* -------------------------------------------------------------------------------------------------- measuring -- */

/* Why a method is not available here, or NULL. */
static const char *method_refused(const struct settings *settings, const struct trial_method *method)
{
	if (method == &trial_fork_direct)
		return settings->trial.direct ? NULL : "no O_DIRECT in the folder of the images";
	if (method == &trial_uffd_loop)
		return library_refuses(UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_THREAD);
	const char *refusal = trial_moves(method) ? library_refuses_move(UFFDWP_MEMORY_SHMEM) : NULL;

	if (refusal)
		return refusal;
	if (method != &trial_inline && method != &trial_thread && !trial_moves(method))
		return NULL;
	return library_refuses(UFFDWP_MEMORY_SHMEM, settings->trial.mechanism, (enum uffdwp_delivery)method->variant);
}

static void choose_methods(const struct settings *settings, struct snapshot_table *table)
{
	for (size_t i = 0; i < SNAPSHOT_METHODS; i++) {
		const char *reason;

		if (!(table->one.methods >> i & 1))
			continue;
		reason = method_refused(settings, all_methods[i]);
		if (reason) {
			fprintf(stderr, "uffdwp-bench: %s: %s is left out: %s\n", table->name, all_methods[i]->name,
			        reason);
			continue;
		}
		table->rows[table->count].method = all_methods[i];
		table->rows[table->count++].number = i;
	}
}

/* The window as asked for, or a little more than a snapshot by fork takes, which is thrown away. */
static uint64_t choose_window(const struct trial_setup *asked)
{
	struct trial_setup setup = *asked;
	static struct trial_result warm_up;

	if (asked->window_ns)
		return asked->window_ns;
	setup.kind = TRIAL_FIRST;
	setup.snapshots = 1;
	trial_run(&trial_fork, &setup, &warm_up, NULL);
	return window_length_ns(warm_up.values[TRIAL_TOTAL_NS]);
}

static void verify_all(const struct trial_setup *asked, const struct snapshot_table *table)
{
	static struct trial_result unused[2];
	struct trial_setup setup = *asked;

	setup.verify = 1;
	setup.window_ns = 0;
	setup.snapshots = setup.kind == TRIAL_FIRST ? 1 : 2;
	for (size_t i = 0; i < table->count; i++)
		trial_run(table->rows[i].method, &setup, unused, NULL);
}

static void sample_all(const struct trial_setup *asked, struct snapshot_table *table)
{
	static struct trial_result unused[2];
	struct trial_setup setup = *asked;

	setup.snapshots = setup.kind == TRIAL_FIRST ? 1 : 2;
	for (size_t i = 0; i < table->count; i++) {
		setup.sampler = &table->rows[i].memory;
		trial_run(table->rows[i].method, &setup, unused, NULL);
	}
}

/* The first snapshot of a series is not counted: of the library's it differs from the rest. */
static void repeat_all(const struct trial_setup *setup, unsigned repeat, struct snapshot_table *table)
{
	static struct trial_result series[TRIAL_SERIES_MAX];
	unsigned first = setup->kind == TRIAL_FIRST ? 0 : 1;

	for (unsigned turn = 0; turn < repeat; turn++) {
		for (size_t i = 0; i < table->count; i++) {
			struct snapshot_row *row = &table->rows[turn % 2 ? table->count - 1 - i : i];

			trial_run(row->method, setup, series, &row->timeline);
			for (unsigned k = first; k < setup->snapshots; k++)
				row->trials[row->count++] = series[k];
		}
	}
}

static struct trial_setup setup_of(const struct settings *settings, const struct snapshot_case *one)
{
	struct trial_setup setup = settings->trial;

	setup.size_bytes = one->size_bytes;
	setup.pool_bytes = one->ample ? one->size_bytes + one->size_bytes / 4 : setup.pool_bytes;
	setup.writer_count = one->writer_count;
	setup.pattern = one->pattern;
	setup.kind = one->kind;
	setup.snapshots = one->kind == TRIAL_FIRST ? 1 : settings->series + 1;
	return setup;
}

static unsigned repeat_of(const struct settings *settings, enum trial_kind kind)
{
	if (settings->repeat)
		return settings->repeat;
	return kind == TRIAL_FIRST ? REPEAT_FIRST : REPEAT_SERIES;
}

/* 1 if it was. */
static int measure(struct report *report, const struct settings *settings, const struct snapshot_case *one)
{
	static struct snapshot_table table;
	struct trial_setup setup = setup_of(settings, one);
	const char *reason = case_refused(settings, one);

	memset(&table, 0, sizeof(table));
	table.one = *one;
	table.pool_bytes = setup.pool_bytes;
	snapshot_case_name(one, table.name, sizeof(table.name));
	if (reason)
		fprintf(stderr, "uffdwp-bench: %s is left out: %s\n", table.name, reason);
	else
		choose_methods(settings, &table);
	if (!table.count)
		return 0;
	if (settings->verify)
		verify_all(&setup, &table);
	setup.window_ns = choose_window(&setup);
	table.window_ns = setup.window_ns;
	repeat_all(&setup, repeat_of(settings, one->kind), &table);
	if (settings->sample)
		sample_all(&setup, &table);
	snapshot_add(report, &table);
	if (!settings->common.json)
		snapshot_print(&table);
	snapshot_print_beyond(settings->common.json ? stderr : stdout, &table);
	if (settings->plot)
		snapshot_plot_case(&table);
	fflush(stdout);
	return 1;
}

/* 1 if it was. */
static unsigned measure_rest(struct report *report, const struct settings *settings)
{
	struct snapshot_rest_setup setup = {
	        .common = settings->common,
	        .mechanism = settings->trial.mechanism,
	        .size_bytes = settings->common.quick ? settings->sizes[0] : REST_BYTES,
	        .folder = settings->folder,
	};
	uint64_t needed = DUEL_SIDES * setup.size_bytes + SPARE_BYTES;
	uint64_t available = bench_meminfo_bytes("MemAvailable");

	if (needed > available) {
		fprintf(stderr,
		        "uffdwp-bench: at_rest is left out: it needs %llu MiB of memory, and %llu are available\n",
		        (unsigned long long)needed >> 20, (unsigned long long)available >> 20);
		return 0;
	}
	snapshot_rest(report, &setup);
	return 1;
}

static void note_settings(struct report *report, const struct settings *settings)
{
	const struct trial_setup *trial = &settings->trial;

	report_note(report, "memory",
	            "library, uffd_loop: shmem; others: private anonymous; pool of the library %llu MiB",
	            (unsigned long long)trial->pool_bytes >> 20);
	report_note(report, "mechanism", "%s", library_mechanism_name(trial->mechanism));
	report_note(report, "load",
	            "writers of 64-byte records, pinned from CPU %d on, unthrottled, or paced (zipf); zipf: theta %.2f",
	            bench_cpu(0), ZIPF_THETA);
	report_note(report, "seed", "%u for writer 0 and for the pages' ranks", LOAD_SEED);
	report_note(report, "placement", "the library's threads, and fork's child: %s",
	            trial->pin_other ? "on the second CPU" : "free");
	report_note(report, "runs", "first: %u of each method, in turns; series: %u of 1 + %u",
	            repeat_of(settings, TRIAL_FIRST), repeat_of(settings, TRIAL_REPEATED), settings->series);
	report_note(report, "images", "%s; all synced",
	            settings->verify ? "of one more compared with the memory at the cut" : "not compared");
	if (trial->window_ns)
		report_note(report, "window", "%.3f s from the call of begin on, as asked for",
		            (double)trial->window_ns / 1e9);
	else
		report_note(report, "window", "1.25 x the time of one snapshot by fork, not counted; at least 1 s");
	if (!TRIAL_HAS_KEEP)
		report_note(report, "keep", "this library arms all of a region for every snapshot, repeated ones, too");
	if (!settings->common.json)
		report_print_notes(report);
}

int snapshot_main(int argc, char **argv)
{
	static struct settings settings;
	static struct plan plan;
	struct report report;
	unsigned measured = 0;
	int code;

	settings = (struct settings){.trial = {.pool_bytes = 64 << 20, .before_ms = 400},
	                             .series = 5,
	                             .verify = 1,
	                             .sample = 1,
	                             .parent = "."};
	bench_parse(&argp, argc, argv, &settings);
	check_settings(&settings);
	make_plan(&plan, &settings);
	make_folder(&settings);
	if (settings.plot)
		snapshot_plot_open(settings.plot);
	report_init(&report, "snapshot");
	note_settings(&report, &settings);
	for (size_t i = 0; i < plan.count; i++)
		measured += measure(&report, &settings, &plan.cases[i]) ? 1 : 0;
	if (is_rest_wanted(&settings))
		measured += measure_rest(&report, &settings);
	if (!measured)
		bench_skip("none of the cases that were asked for can be measured here");
	if (settings.plot)
		snapshot_plot_close();
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
