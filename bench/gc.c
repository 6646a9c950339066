/* SPDX-License-Identifier: MIT */
/*
 * Question: what does the write barrier of this library do for a garbage collector?
 *
 * The programs of tools/bdwgc are run as they are, in three modes: `none` (each collection stops the world for all of
 * the heap), `mprotect` (the collector's own incremental mode), `uffdwp` (incremental by this library). Each program
 * checks by itself that nothing in use was freed, and says which dirty bits it really had; a run that fails in either
 * ends the benchmark. The modes take turns, a new process each, and each repetition begins with another one; ratios are
 * medians over the repetitions, of pairs of the same.
 *
 * A pause is the time for which the world is stopped, measured by the collector's own events in the process.
 *
 * Threads: the programs run on all CPUs that the benchmark was given, one program at a time.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "duel.h"
#include "report.h"

#define REPEATS_MAX 100
#define NOISE_REPEATS 3 /* at least, to say anything of it */

/* Exit codes of the programs. */
enum { PROGRAM_LOST = 1, PROGRAM_REFUSED = 3 };

enum mode { MODE_NONE, MODE_MPROTECT, MODE_UFFDWP, MODES };

/* How a mode is called, and how its dirty bits begin. */
static const struct {
	const char *name;
	const char *dirty_bits;
} modes[MODES] = {{"none", "none"}, {"mprotect", "mprotect"}, {"uffdwp", "manual"}};

struct program {
	const char *name;
	const char *about;
	const char *size;
	const char *rounds;
	const char *quick_size;
	const char *quick_rounds;
};

static const struct program programs[] = {
        {"gcbench", "binary trees, most of them short-lived", "32M", "10", "4M", "2"},
        {"gcgraph", "a large old structure, few writes into it, much garbage", "128M", "300", "8M", "20"},
        {"gcthreads", "several threads that build, link and drop", "32M", "12", "4M", "3"},
};

#define PROGRAMS (sizeof(programs) / sizeof(programs[0]))

enum measure { TOTAL_NS, PAUSE_P50_NS, PAUSE_P99_NS, PAUSE_MAX_NS, PAUSES, COLLECTIONS, FAULTS, FIGURES };

/* What a fault takes in addition on a machine where it leaves the guest. */
#define DEAR_FAULT_NS 20000.0

static const struct {
	const char *name;   /* in the report */
	const char *key;    /* in the program's JSON */
	int is_of_stops;    /* below "stops" there */
	const char *column; /* in the table; NULL: not there */
	double unit;
} figures[FIGURES] = {
        [TOTAL_NS] = {"total_ns", "elapsed_ns", 0, "total ms", 1e6},
        [PAUSE_P50_NS] = {"pause_p50_ns", "p50_ns", 1, "p50 ms", 1e6},
        [PAUSE_P99_NS] = {"pause_p99_ns", "p99_ns", 1, "p99 ms", 1e6},
        [PAUSE_MAX_NS] = {"pause_max_ns", "max_ns", 1, "max ms", 1e6},
        [PAUSES] = {"pauses", "count", 1, "pauses", 1},
        [COLLECTIONS] = {"collections", "collections", 0, "collections", 1},
        [FAULTS] = {"faults", "faults", 0, "faults", 1},
};

struct settings {
	struct bench_settings common;
	const char *folder;  /* NULL: that of this program */
	const char *program; /* NULL: all */
	unsigned repeats;
	unsigned timeout_s;
	unsigned seed;
};

/* All runs of one program. */
struct outcome {
	double values[MODES][FIGURES][REPEATS_MAX];
	unsigned repeats;
};

enum { KEY_FOLDER = 'd', KEY_PROGRAM = 'p', KEY_REPEATS = 'r', KEY_TIMEOUT = 't', KEY_SEED = 'e' };

static const struct argp_option options[] = {
        {"programs", KEY_FOLDER, "DIR", 0, "Where gcbench, gcgraph, gcthreads are (default: beside this program)", 0},
        {"program", KEY_PROGRAM, "NAME", 0, "This one only", 0},
        {"repeats", KEY_REPEATS, "N", 0, "Runs of each program in each mode (default 5)", 0},
        {"timeout", KEY_TIMEOUT, "SECONDS", 0, "What one run may take (default 120)", 0},
        {"seed", KEY_SEED, "N", 0, "Seed of the first repetition; the next has the next (default 1)", 0},
        {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_FOLDER:
		settings->folder = argument;
		return 0;
	case KEY_PROGRAM:
		settings->program = argument;
		return 0;
	case KEY_REPEATS:
		settings->repeats = bench_number(argument, REPEATS_MAX);
		return 0;
	case KEY_TIMEOUT:
		settings->timeout_s = bench_number(argument, 100000);
		return 0;
	case KEY_SEED:
		settings->seed = bench_number(argument, 1u << 30);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "A garbage collector with the library's write barrier, with its own, and with none.",
        children, NULL,  NULL};

/* ------------------------------------------------------------------------------------------------------- a run -- */

static double number_of(struct json_object *object, const char *key, const char *program)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value) ||
	    (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double)))
		bench_die("%s: its JSON has no number '%s'", program, key);
	return json_object_get_double(value);
}

/* Nothing that was in use may have been freed, something must have been looked at, and the mode be what it was to be.
 */
static void judge(struct json_object *object, const char *program, enum mode mode)
{
	struct json_object *bits = json_object_object_get(object, "vdb");
	const char *name = bits ? json_object_get_string(bits) : NULL;

	if (number_of(object, "objects_lost", program) != 0 || number_of(object, "objects_checked", program) < 1)
		bench_die("%s --mode=%s: objects in use were freed, or none was checked", program, modes[mode].name);
	if (!name || strncmp(name, modes[mode].dirty_bits, strlen(modes[mode].dirty_bits)) != 0)
		bench_die("%s --mode=%s: its dirty bits are '%s'", program, modes[mode].name,
		          name ? name : "not reported");
}

static void take_figures(const char *output, const char *program, enum mode mode, struct outcome *outcome)
{
	struct json_object *object = json_tokener_parse(output);
	struct json_object *stops;

	if (!object || !json_object_object_get_ex(object, "stops", &stops))
		bench_die("%s --mode=%s: no JSON with 'stops' came out of it", program, modes[mode].name);
	judge(object, program, mode);
	for (int i = 0; i < FIGURES; i++)
		outcome->values[mode][i][outcome->repeats] =
		        number_of(figures[i].is_of_stops ? stops : object, figures[i].key, program);
	json_object_put(object);
}

static void run(const struct settings *settings, const struct program *program, enum mode mode, struct outcome *outcome)
{
	static char output[65536];
	char path[4096];
	char arguments[4][64];
	char json[] = "--json";
	char *argv[] = {path, arguments[0], arguments[1], arguments[2], arguments[3], json, NULL};
	int code;

	child_beside(settings->folder, program->name, path, sizeof(path));
	snprintf(arguments[0], sizeof(arguments[0]), "--mode=%s", modes[mode].name);
	snprintf(arguments[1], sizeof(arguments[1]), "--size=%s",
	         settings->common.quick ? program->quick_size : program->size);
	snprintf(arguments[2], sizeof(arguments[2]), "--rounds=%s",
	         settings->common.quick ? program->quick_rounds : program->rounds);
	snprintf(arguments[3], sizeof(arguments[3]), "--seed=%u", settings->seed + outcome->repeats);
	code = child_run(argv, settings->timeout_s, output, sizeof(output));
	if (code == PROGRAM_REFUSED)
		bench_skip("%s --mode=%s is not available here", program->name, modes[mode].name);
	if (code == PROGRAM_LOST)
		bench_die("%s %s %s %s %s: it lost objects that were in use", program->name, arguments[0], arguments[1],
		          arguments[2], arguments[3]);
	if (code == -ETIMEDOUT)
		bench_die("%s %s %s %s %s: not ready after %u s (--timeout), killed", program->name, arguments[0],
		          arguments[1], arguments[2], arguments[3], settings->timeout_s);
	if (code < 0)
		bench_die("%s: %s", path, strerror(-code));
	if (code > 0)
		bench_die("%s --mode=%s ended with %d", program->name, modes[mode].name, code);
	take_figures(output, program->name, mode, outcome);
}

/* -------------------------------------------------------------------------------------------------- the table -- */

static double median_of(const double *values, unsigned count)
{
	double copy[REPEATS_MAX];
	double half;

	memcpy(copy, values, count * sizeof(copy[0]));
	return duel_median(copy, count, &half);
}

/* The median of pairs. Where one had no pause at all there is nothing to compare: 0. */
static double ratio_of(const struct outcome *outcome, enum measure figure, enum mode mode, enum mode other)
{
	double ratios[REPEATS_MAX];
	double half;

	for (unsigned i = 0; i < outcome->repeats; i++) {
		double below = outcome->values[other][figure][i];

		ratios[i] = below > 0 ? outcome->values[mode][figure][i] / below : 0;
	}
	return duel_median(ratios, outcome->repeats, &half);
}

/* How far one mode is from itself, from one repetition to the next. */
static double noise_of(const struct outcome *outcome, enum measure figure, enum mode mode)
{
	double ratios[REPEATS_MAX];
	const double *values = outcome->values[mode][figure];
	double half;
	double median;

	if (outcome->repeats < NOISE_REPEATS)
		return 0;
	for (unsigned i = 0; i + 1 < outcome->repeats; i++)
		ratios[i] = values[i] > 0 ? values[i + 1] / values[i] : 1;
	median = duel_median(ratios, outcome->repeats - 1, &half);
	return (median < 1 ? 1 - median : median - 1) + half;
}

static void add_ratio(struct report *report, const struct program *program, const struct outcome *outcome,
                      enum measure figure, enum mode other)
{
	report_add(report, ratio_of(outcome, figure, MODE_UFFDWP, other), "%s.uffdwp.%.*s_ratio_%s", program->name,
	           (int)(strlen(figures[figure].name) - strlen("_ns")), figures[figure].name, modes[other].name);
}

/* Total times as they would be if each fault took DEAR_FAULT_NS more: the median of pairs. */
static double dear_ratio_of(const struct outcome *outcome, enum mode mode, enum mode other)
{
	double ratios[REPEATS_MAX];
	double half;

	for (unsigned i = 0; i < outcome->repeats; i++)
		ratios[i] = (outcome->values[mode][TOTAL_NS][i] + outcome->values[mode][FAULTS][i] * DEAR_FAULT_NS) /
		            (outcome->values[other][TOTAL_NS][i] + outcome->values[other][FAULTS][i] * DEAR_FAULT_NS);
	return duel_median(ratios, outcome->repeats, &half);
}

/* Where this process may not count faults there is no figure, and its bar is missed. */
static void add_faults(struct report *report, const struct program *program, const struct outcome *outcome)
{
	if (outcome->values[MODE_MPROTECT][FAULTS][0] < 1)
		return;
	report_add(report, ratio_of(outcome, FAULTS, MODE_UFFDWP, MODE_MPROTECT), "%s.uffdwp.faults_ratio_mprotect",
	           program->name);
	report_add(report, dear_ratio_of(outcome, MODE_UFFDWP, MODE_MPROTECT), "%s.uffdwp.dear_total_ratio_mprotect",
	           program->name);
}

static void add_figures(struct report *report, const struct program *program, const struct outcome *outcome)
{
	for (int mode = 0; mode < MODES; mode++) {
		for (int i = 0; i < FIGURES; i++) {
			double copy[REPEATS_MAX];

			memcpy(copy, outcome->values[mode][i], outcome->repeats * sizeof(copy[0]));
			report_add_median(report, copy, outcome->repeats, "%s.%s.%s", program->name, modes[mode].name,
			                  figures[i].name);
		}
	}
	for (int other = MODE_NONE; other <= MODE_MPROTECT; other++) {
		for (int i = TOTAL_NS; i <= PAUSE_MAX_NS; i++)
			add_ratio(report, program, outcome, (enum measure)i, (enum mode)other);
	}
	add_faults(report, program, outcome);
	if (outcome->repeats >= NOISE_REPEATS)
		report_add(report, noise_of(outcome, TOTAL_NS, MODE_MPROTECT), "%s.mprotect.total_noise",
		           program->name);
}

/* "7 % slower than" or the like. */
static void say_speed(double ratio, const char *than)
{
	double percent = (ratio > 1 ? ratio - 1 : 1 - ratio) * 100;

	if (percent < 0.5)
		printf(" as fast as %s", than);
	else
		printf(" %.0f %% %s than %s", percent, ratio > 1 ? "SLOWER" : "faster", than);
}

static void print_mode(const struct outcome *outcome, enum mode mode)
{
	printf("%-9s", modes[mode].name);
	for (int i = 0; i < FIGURES; i++)
		printf(i >= PAUSES ? " %11.0f" : " %11.2f",
		       median_of(outcome->values[mode][i], outcome->repeats) / figures[i].unit);
	for (int other = MODE_MPROTECT; mode == MODE_UFFDWP && other >= MODE_NONE; other--)
		printf(" %15.3f %7.3f", ratio_of(outcome, TOTAL_NS, mode, (enum mode)other),
		       ratio_of(outcome, PAUSE_P50_NS, mode, (enum mode)other));
	printf("\n");
}

static void print_program(const struct program *program, const struct outcome *outcome)
{
	printf("\n%s: %s\n%-9s", program->name, program->about, "mode");
	for (int i = 0; i < FIGURES; i++)
		printf(" %11s", figures[i].column);
	printf(" %15s %7s %15s %7s\n", "/mprotect total", "p50", "/none total", "p50");
	for (unsigned mode = 0; mode < MODES; mode++)
		print_mode(outcome, (enum mode)mode);
	printf("in all, uffdwp is");
	say_speed(ratio_of(outcome, TOTAL_NS, MODE_UFFDWP, MODE_MPROTECT), "mprotect");
	printf(" and");
	say_speed(ratio_of(outcome, TOTAL_NS, MODE_UFFDWP, MODE_NONE), "none");
	if (outcome->repeats >= NOISE_REPEATS)
		printf("; mprotect differs from itself by up to %.0f %%",
		       noise_of(outcome, TOTAL_NS, MODE_MPROTECT) * 100);
	printf("\n");
}

/* ---------------------------------------------------------------------------------------------------- measuring -- */

static void measure_program(struct report *report, const struct settings *settings, const struct program *program)
{
	static struct outcome outcome;

	memset(&outcome, 0, sizeof(outcome));
	for (; outcome.repeats < settings->repeats; outcome.repeats++) {
		for (unsigned i = 0; i < MODES; i++)
			run(settings, program, (enum mode)((i + outcome.repeats) % MODES), &outcome);
	}
	add_figures(report, program, &outcome);
	if (!settings->common.json) {
		print_program(program, &outcome);
		fflush(stdout);
	}
}

static int is_wanted(const struct settings *settings, const struct program *program)
{
	return !settings->program || !strcmp(settings->program, program->name);
}

/* Before anything is measured: all that is wanted must be there. */
static void find_programs(const struct settings *settings)
{
	unsigned wanted = 0;
	char path[4096];

	for (size_t i = 0; i < PROGRAMS; i++) {
		if (!is_wanted(settings, &programs[i]))
			continue;
		wanted++;
		child_beside(settings->folder, programs[i].name, path, sizeof(path));
		if (access(path, X_OK))
			bench_skip("%s is not there: build tools/bdwgc (it needs libgc-dev), or say --programs=DIR",
			           path);
	}
	if (!wanted)
		bench_die("%s: no such program; gcbench, gcgraph or gcthreads", settings->program);
}

static void add_notes(struct report *report, const struct settings *settings)
{
	report_note(report, "runs", "%u of each program in each mode, in turns, seeds from %u on", settings->repeats,
	            settings->seed);
	report_note(report, "pauses", "the world is stopped: by the collector's events, in the program");
	for (size_t i = 0; i < PROGRAMS; i++)
		report_note(report, programs[i].name, "--size=%s --rounds=%s",
		            settings->common.quick ? programs[i].quick_size : programs[i].size,
		            settings->common.quick ? programs[i].quick_rounds : programs[i].rounds);
}

int gc_main(int argc, char **argv)
{
	struct settings settings = {.repeats = 5, .timeout_s = 120, .seed = 1};
	struct report report;
	int code;

	bench_parse(&argp, argc, argv, &settings);
	if (settings.common.quick)
		settings.repeats = 2;
	find_programs(&settings);
	report_init(&report, "gc");
	add_notes(&report, &settings);
	if (!settings.common.json)
		report_print_notes(&report);
	for (size_t i = 0; i < PROGRAMS; i++) {
		if (is_wanted(&settings, &programs[i]))
			measure_program(&report, &settings, &programs[i]);
	}
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
