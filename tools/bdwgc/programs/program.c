/* SPDX-License-Identifier: MIT */
/* See program.h. */
#include "program.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pauses.h"
#include "uffdwp_gc.h"

static const struct argp_option options[] = {
        {"mode", 'm', "none|mprotect|own|uffdwp", 0,
         "none: each collection stops the world for all of the heap (default); mprotect: incremental, by the "
         "collector's "
         "own means, SIGSEGV; own: by what the collector chooses itself; uffdwp: incremental, by libuffdwp",
         0},
        {"size", 's', "BYTES", 0, "Memory that stays in use; K, M, G may follow", 0},
        {"rounds", 'r', "N", 0, "End after N rounds; 0: when the time is over", 0},
        {"seconds", 't', "S", 0, "End after S seconds; 0: when the rounds are over (default)", 0},
        {"seed", 'e', "N", 0, "Seed of everything that is chosen by chance", 0},
        {"threads", 'j', "N", 0, "Threads that allocate (gcthreads)", 0},
        {"writes", 'w', "N", 0, "Writes into the old structure in each round (gcgraph)", 0},
        {"time-limit", 'l', "MS", 0, "Ask the collector for stops of this length at most (default: as it has it)", 0},
        {"stalls", 'S', NULL, 0, "Measure each allocation, too", 0},
        {"json", 'J', NULL, 0, "Print JSON", 0},
        {"blind", 'B', NULL, OPTION_HIDDEN, "For tests: do not report to the collector what was written", 0},
        {0},
};

static const char *const mode_names[] = {"none", "mprotect", "own", "uffdwp"};

static uint64_t program_parse_number(struct argp_state *state, const char *text, bool bytes)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	const char *units = "KMG", *unit = bytes && *end ? strchr(units, *end) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	if (errno || end == text || *text == '-' || end[unit ? 1 : 0] || value > UINT64_MAX >> 1 >> shift)
		argp_error(state, "'%s' is no %s", text, bytes ? "number of bytes, as 64M" : "number");
	return (uint64_t)value << shift;
}

static enum program_mode program_parse_mode(struct argp_state *state, const char *text)
{
	for (unsigned i = 0; i < sizeof(mode_names) / sizeof(mode_names[0]); i++)
		if (strcmp(text, mode_names[i]) == 0)
			return (enum program_mode)i;
	argp_error(state, "--mode takes none, mprotect, own or uffdwp, not '%s'", text);
	return MODE_NONE;
}

static void program_parse_threads(struct program *program, struct argp_state *state, const char *text)
{
	uint64_t threads = program_parse_number(state, text, false);
	if (!program->threads)
		argp_error(state, "%s has one thread", program->name);
	if (threads < 1 || threads > 64)
		argp_error(state, "--threads takes 1 to 64");
	program->threads = (unsigned)threads;
}

static void program_parse_writes(struct program *program, struct argp_state *state, const char *text)
{
	if (!program->writes)
		argp_error(state, "%s has no old structure to write into", program->name);
	program->writes = program_parse_number(state, text, false);
	if (!program->writes)
		argp_error(state, "--writes takes 1 or more");
}

static void program_parse_size(struct program *program, struct argp_state *state, const char *text)
{
	program->size_bytes = program_parse_number(state, text, true);
	if (program->size_bytes < 1 << 16 || program->size_bytes > (uint64_t)1 << 40)
		argp_error(state, "--size takes 64K to 1024G");
}

static error_t program_parse_flag(struct program *program, int key)
{
	if (key == 'S')
		program->stalls = true;
	else if (key == 'J')
		program->json = true;
	else if (key == 'B')
		program->blind = true;
	else
		return ARGP_ERR_UNKNOWN;
	return 0;
}

static error_t program_parse(int key, char *text, struct argp_state *state)
{
	struct program *program = state->input;
	if (key == 'm')
		program->mode = program_parse_mode(state, text);
	else if (key == 's')
		program_parse_size(program, state, text);
	else if (key == 'r')
		program->rounds = program_parse_number(state, text, false);
	else if (key == 't')
		program->seconds = program_parse_number(state, text, false);
	else if (key == 'e')
		program->seed = program_parse_number(state, text, false);
	else if (key == 'j')
		program_parse_threads(program, state, text);
	else if (key == 'w')
		program_parse_writes(program, state, text);
	else if (key == 'l')
		program->time_limit_ms = program_parse_number(state, text, false);
	else if (key == ARGP_KEY_ARG)
		argp_error(state, "no arguments, only options: '%s'", text);
	else if (key == ARGP_KEY_END && !program->rounds && !program->seconds)
		argp_error(state, "without an end: --rounds or --seconds");
	else if (key == ARGP_KEY_END && program->blind && program->mode != MODE_UFFDWP)
		argp_error(state, "--blind goes with --mode=uffdwp only");
	else
		return program_parse_flag(program, key);
	return 0;
}

/* The means that the collector really uses, as far as it can be seen from outside. */
static const char *program_vdb_name(void)
{
	struct sigaction action;
	struct uffdwp_gc_stats stats = {.sz = sizeof(stats)};
	uffdwp_gc_stats(&stats);
	if (!GC_is_incremental_mode())
		return "none";
	if (stats.state != UFFDWP_GC_OFF)
		return "manual, fed by libuffdwp";
	if (GC_incremental_protection_needs() == GC_PROTECTS_NONE)
		return "soft-dirty";
	sigaction(SIGSEGV, NULL, &action);
	return (action.sa_flags & SA_SIGINFO) && action.sa_sigaction ? "mprotect" : "unknown";
}

static void program_refuse(const struct program *program, const char *why)
{
	fprintf(stderr, "%s: --mode=%s is not available: %s\n", program->name, mode_names[program->mode], why);
	exit(PROGRAM_REFUSED);
}

static void program_start_uffdwp(const struct program *program)
{
	char text[512];
	struct uffdwp_gc_options wanted = UFFDWP_GC_OPTIONS_INIT;
	wanted.flags = program->blind ? UFFDWP_GC_BLIND : 0;
	if (uffdwp_gc_start(&wanted) == 0)
		return;
	uffdwp_gc_error_text(text, sizeof(text));
	program_refuse(program, text);
}

static void program_start_collector(const struct program *program)
{
	if (program->mode == MODE_MPROTECT)
		setenv("GC_USE_GETWRITEWATCH", "0", 1); /* no soft-dirty bits */
	if (program->mode == MODE_UFFDWP)
		program_start_uffdwp(program);
	GC_INIT();
	if (program->mode == MODE_MPROTECT || program->mode == MODE_OWN)
		GC_enable_incremental();
	if (program->mode == MODE_MPROTECT && strcmp(program_vdb_name(), "mprotect") != 0)
		program_refuse(program, program_vdb_name());
	if (program->mode == MODE_OWN && !GC_is_incremental_mode())
		program_refuse(program, "the collector does not switch it on");
	if (program->time_limit_ms)
		GC_set_time_limit(program->time_limit_ms);
	GC_allow_register_threads();
}

/* Page faults of all threads from now on, in user code; those that end in a signal, too. -1: not counted here. */
static int program_count_faults(void)
{
	struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE,
	                                .size = sizeof(event),
	                                .config = PERF_COUNT_SW_PAGE_FAULTS,
	                                .inherit = 1,
	                                .exclude_kernel = 1,
	                                .exclude_hv = 1};
	return (int)syscall(SYS_perf_event_open, &event, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* 0: not counted. */
static uint64_t program_faults_since_begin(const struct program *program)
{
	uint64_t count = 0;
	return program->fault_counter >= 0 && read(program->fault_counter, &count, sizeof(count)) == sizeof(count)
	               ? count
	               : 0;
}

void program_begin(struct program *program, int argc, char **argv)
{
	const struct argp argp = {options, program_parse, NULL, program->about, NULL, NULL, NULL};
	argp_err_exit_status = PROGRAM_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, program);
	if (program->stalls)
		object_measure_stalls();
	program->fault_counter = program_count_faults();
	program_start_collector(program);
	program->began_ns = pauses_now_ns();
}

void program_measure(struct program *program)
{
	uint64_t built_ns = pauses_now_ns();
	program->build_ns = built_ns - program->began_ns;
	GC_gcollect();
	pauses_begin();
	program->began_ns = pauses_now_ns();
}

void program_pause_clock(struct program *program)
{
	program->checks_ns -= pauses_now_ns();
}

void program_resume_clock(struct program *program)
{
	program->checks_ns += pauses_now_ns();
}

bool program_goes_on(const struct program *program, uint64_t rounds_done)
{
	if (program->rounds && rounds_done >= program->rounds)
		return false;
	return !program->seconds || pauses_now_ns() - program->began_ns < program->seconds * UINT64_C(1000000000);
}

static void program_json_number(struct json_object *object, const char *name, uint64_t value)
{
	json_object_object_add(object, name, json_object_new_int64((int64_t)value));
}

static void program_json_pauses(struct json_object *object, const char *name, const struct pauses_summary *summary)
{
	struct json_object *pauses = json_object_new_object();
	program_json_number(pauses, "count", summary->count);
	program_json_number(pauses, "p50_ns", summary->p50_ns);
	program_json_number(pauses, "p99_ns", summary->p99_ns);
	program_json_number(pauses, "max_ns", summary->max_ns);
	program_json_number(pauses, "total_ns", summary->total_ns);
	program_json_number(pauses, "missed", summary->missed);
	json_object_object_add(object, name, pauses);
}

static const char *program_state_name(uint32_t state)
{
	static const char *const names[] = {"off", "tracking", "everything", "child", "replaced", "waiting", "resting"};
	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static struct json_object *program_json_adapter(const struct uffdwp_gc_stats *stats)
{
	struct json_object *adapter = json_object_new_object();
	json_object_object_add(adapter, "state", json_object_new_string(program_state_name(stats->state)));
	program_json_number(adapter, "stops", stats->stops);
	program_json_number(adapter, "stops_all", stats->stops_all);
	program_json_number(adapter, "pages_fed", stats->pages_fed);
	program_json_number(adapter, "collect_ns", stats->collect_ns);
	program_json_number(adapter, "collect_max_ns", stats->collect_max_ns);
	program_json_number(adapter, "sync_count", stats->sync_count);
	program_json_number(adapter, "sync_ns", stats->sync_ns);
	program_json_number(adapter, "restarts", stats->restarts);
	program_json_number(adapter, "heap_bytes", stats->heap_bytes);
	program_json_number(adapter, "tracked_bytes", stats->tracked_bytes);
	program_json_number(adapter, "untracked_bytes", stats->untracked_bytes);
	program_json_number(adapter, "pages_ahead", stats->pages_ahead);
	program_json_number(adapter, "rests", stats->rests);
	return adapter;
}

/* Everything that is reported, once; the words for people are made from it. */
static struct json_object *program_describe(const struct program *program, uint64_t rounds, uint64_t checked,
                                            uint64_t lost)
{
	uint64_t elapsed_ns = pauses_now_ns() - program->began_ns - program->checks_ns;
	struct pauses_summary stops = pauses_stops(), stalls = pauses_stalls();
	struct uffdwp_gc_stats stats = {.sz = sizeof(stats)};
	struct json_object *all = json_object_new_object();
	uffdwp_gc_stats(&stats);
	json_object_object_add(all, "program", json_object_new_string(program->name));
	json_object_object_add(all, "mode", json_object_new_string(mode_names[program->mode]));
	json_object_object_add(all, "vdb", json_object_new_string(program_vdb_name()));
	program_json_number(all, "seed", program->seed);
	program_json_number(all, "size_bytes", program->size_bytes);
	program_json_number(all, "threads", program->threads ? program->threads : 1);
	program_json_number(all, "rounds", rounds);
	program_json_number(all, "build_ns", program->build_ns);
	program_json_number(all, "elapsed_ns", elapsed_ns);
	program_json_number(all, "checks_ns", program->checks_ns);
	program_json_number(all, "collections", GC_get_gc_no());
	program_json_number(all, "faults", program_faults_since_begin(program));
	program_json_number(all, "heap_bytes", GC_get_heap_size());
	program_json_pauses(all, "stops", &stops);
	if (program->stalls)
		program_json_pauses(all, "stalls", &stalls);
	program_json_number(all, "objects_checked", checked);
	program_json_number(all, "objects_lost", lost);
	if (stats.state != UFFDWP_GC_OFF)
		json_object_object_add(all, "adapter", program_json_adapter(&stats));
	return all;
}

static double program_number(struct json_object *object, const char *name)
{
	return json_object_get_double(json_object_object_get(object, name));
}

static void program_print_pauses(struct json_object *all, const char *name)
{
	struct json_object *pauses = json_object_object_get(all, name);
	if (pauses)
		printf("  %s: %.0f, p50 %.3f ms, p99 %.3f ms, longest %.3f ms, together %.3f ms\n", name,
		       program_number(pauses, "count"), program_number(pauses, "p50_ns") / 1e6,
		       program_number(pauses, "p99_ns") / 1e6, program_number(pauses, "max_ns") / 1e6,
		       program_number(pauses, "total_ns") / 1e6);
}

static void program_print_words(struct json_object *all)
{
	struct json_object *adapter = json_object_object_get(all, "adapter");
	printf("%s --mode=%s (dirty bits: %s), seed %.0f: built in %.3f s, %.0f rounds in %.3f s, %.0f collections, "
	       "heap of %.1f MiB\n",
	       json_object_get_string(json_object_object_get(all, "program")),
	       json_object_get_string(json_object_object_get(all, "mode")),
	       json_object_get_string(json_object_object_get(all, "vdb")), program_number(all, "seed"),
	       program_number(all, "build_ns") / 1e9, program_number(all, "rounds"),
	       program_number(all, "elapsed_ns") / 1e9, program_number(all, "collections"),
	       program_number(all, "heap_bytes") / (1 << 20));
	printf("  page faults: %.0f\n", program_number(all, "faults"));
	program_print_pauses(all, "stops");
	program_print_pauses(all, "stalls");
	if (adapter)
		printf("  adapter: %s, %.0f pages fed in %.0f stops, %.3f ms (longest %.3f ms), heap looked for %.0f "
		       "times in %.3f ms\n",
		       json_object_get_string(json_object_object_get(adapter, "state")),
		       program_number(adapter, "pages_fed"), program_number(adapter, "stops"),
		       program_number(adapter, "collect_ns") / 1e6, program_number(adapter, "collect_max_ns") / 1e6,
		       program_number(adapter, "sync_count"), program_number(adapter, "sync_ns") / 1e6);
	printf("  %.0f objects checked, %.0f lost\n", program_number(all, "objects_checked"),
	       program_number(all, "objects_lost"));
}

int program_end(const struct program *program, uint64_t rounds_done, uint64_t checked, uint64_t lost)
{
	struct json_object *all = program_describe(program, rounds_done, checked, lost);
	if (program->json)
		printf("%s\n", json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY));
	else
		program_print_words(all);
	json_object_put(all);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "%s: the report cannot be written: %s\n", program->name, strerror(errno));
		return PROGRAM_REFUSED;
	}
	return lost ? PROGRAM_LOST : 0;
}
