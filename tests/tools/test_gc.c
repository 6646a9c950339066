/* SPDX-License-Identifier: MIT */
/*
 * The adapter for the garbage collector, by programs that check themselves: every object of theirs carries an identity,
 * and which refers to which is kept where the collector does not look. Objects that a collection freed though they were
 * in use are counted (INV-GC). Each kind of program is run blind, too: the adapter collects and reports nothing to the
 * collector, and the programs must find objects lost, or their checks are worth nothing.
 *
 * The programs lie in the build folder (UFFDWP_BUILD). The seeds of what they choose by chance are in their output,
 * which is printed when a test fails.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "scratch.h"
#include "support.h"

#define OUTPUT_BYTES 65536
#define ARGUMENTS 8

#define LOST 1 /* exit codes of the programs, tools/bdwgc/programs/object.h */
#define USAGE 2
#define REFUSED 3

static char folder[SCRATCH_PATH];

struct run {
	const char *program;
	const char *arguments[ARGUMENTS];
	const char *environment[4]; /* NAME=value */
	int preload;
	int no_uffd; /* the kernel refuses every access to userfaultfd */
};

static char output[OUTPUT_BYTES]; /* what it said, on both streams */

static void become(const struct run *run, int out)
{
	char path[SCRATCH_PATH + 64], preload[SCRATCH_PATH + 64];
	char *arguments[ARGUMENTS + 2] = {path};
	snprintf(path, sizeof(path), "%s/bin/%s", folder, run->program);
	snprintf(preload, sizeof(preload), "%s/lib/libuffdwp_gc_preload.so", folder);
	for (int i = 0; i < ARGUMENTS && run->arguments[i]; i++)
		memcpy(&arguments[i + 1], &run->arguments[i], sizeof(arguments[0]));
	for (int i = 0; i < 4 && run->environment[i]; i++)
		must(putenv(strdup(run->environment[i])) == 0);
	if (run->preload)
		must(setenv("LD_PRELOAD", preload, 1) == 0);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	if (run->no_uffd)
		must(filter_userfaultfd(EPERM) == 0);
	execv(path, arguments);
	_exit(127);
}

static void read_all(int in)
{
	size_t length = 0;
	ssize_t got;
	while ((got = read(in, output + length, OUTPUT_BYTES - 1 - length)) > 0)
		length += (size_t)got;
	output[length] = 0;
}

/* The exit code; 1000 and more: killed by a signal. */
static int outcome_of(struct run run)
{
	int ends[2], status;
	must(pipe(ends) == 0);
	pid_t child = fork();
	must(child >= 0);
	if (child == 0)
		become(&run, ends[1]);
	close(ends[1]);
	read_all(ends[0]);
	close(ends[0]);
	must(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void expect(struct run run, int code, const char *words)
{
	int found = outcome_of(run);
	ck_assert_msg(found == code, "%s %s: exit code %d, not %d:\n%s", run.program,
	              run.arguments[0] ? run.arguments[0] : "", found, code, output);
	ck_assert_msg(!words || strstr(output, words), "%s says nothing of '%s':\n%s", run.program, words, output);
}

static const char *json_text(struct json_object *all, const char *name)
{
	return json_object_get_string(json_object_object_get(all, name));
}

static int64_t json_number(struct json_object *all, const char *name)
{
	return json_object_get_int64(json_object_object_get(all, name));
}

/* ---------------------------------------------------------------------------------------------------- programs -- */

static const struct {
	struct run run;
	const char *vdb;
} programs[] = {
        {{.program = "gcbench", .arguments = {"--json", "--mode=none", "--size=4M", "--rounds=4"}}, "none"},
        {{.program = "gcbench", .arguments = {"--json", "--mode=mprotect", "--size=4M", "--rounds=4"}}, "mprotect"},
        {{.program = "gcbench", .arguments = {"--json", "--mode=uffdwp", "--size=4M", "--rounds=8"}}, "manual"},
        {{.program = "gcgraph", .arguments = {"--json", "--mode=none", "--size=16M", "--rounds=100"}}, "none"},
        {{.program = "gcgraph", .arguments = {"--json", "--mode=mprotect", "--size=16M", "--rounds=100"}}, "mprotect"},
        {{.program = "gcgraph", .arguments = {"--json", "--mode=uffdwp", "--size=16M", "--rounds=200"}}, "manual"},
        {{.program = "gcthreads", .arguments = {"--json", "--mode=none", "--size=8M", "--rounds=8"}}, "none"},
        {{.program = "gcthreads", .arguments = {"--json", "--mode=mprotect", "--size=8M", "--rounds=8"}}, "mprotect"},
        {{.program = "gcthreads", .arguments = {"--json", "--mode=uffdwp", "--size=8M", "--rounds=20"}}, "manual"},
        {{.program = "gcthreads",
          .arguments = {"--json", "--mode=uffdwp", "--size=8M", "--rounds=20", "--time-limit=1"}},
         "manual"},
        {{.program = "gcgraph", .arguments = {"--json", "--mode=uffdwp", "--size=16M", "--time-limit=1", "--stalls"}},
         "manual"},
};

#define PROGRAMS ((int)(sizeof(programs) / sizeof(programs[0])))

START_TEST(test_no_object_in_use_is_freed)
{
	expect(programs[_i].run, 0, NULL);
	struct json_object *all = json_tokener_parse(output);
	ck_assert_msg(all != NULL, "no JSON:\n%s", output);
	ck_assert_int_eq(json_number(all, "objects_lost"), 0);
	ck_assert_int_gt(json_number(all, "objects_checked"), 10000);
	ck_assert_int_gt(json_number(all, "collections"), 2);
	ck_assert_msg(strstr(json_text(all, "vdb"), programs[_i].vdb) != NULL, "dirty bits: %s", json_text(all, "vdb"));
	json_object_put(all);
}
END_TEST

/* What the adapter counts, against what the collector and the program know. */
START_TEST(test_statistics_agree_with_the_program)
{
	struct run run = {.program = "gcgraph", .arguments = {"--json", "--mode=uffdwp", "--size=16M", "--rounds=200"}};
	expect(run, 0, NULL);
	struct json_object *all = json_tokener_parse(output), *adapter = NULL;
	ck_assert(json_object_object_get_ex(all, "adapter", &adapter));
	ck_assert_str_eq(json_text(adapter, "state"), "tracking");
	ck_assert_int_ge(json_number(adapter, "stops"), json_number(json_object_object_get(all, "stops"), "count"));
	ck_assert_int_eq(json_number(adapter, "stops_all"), 0);
	ck_assert_int_eq(json_number(adapter, "untracked_bytes"), 0);
	int64_t heap = json_number(adapter, "heap_bytes"), tracked = json_number(adapter, "tracked_bytes");
	ck_assert_int_ge(tracked, heap);
	ck_assert_msg(tracked <= heap + heap / 64, "of %lld bytes that are tracked %lld are heap", (long long)tracked,
	              (long long)heap);
	ck_assert_int_gt(json_number(adapter, "pages_ahead"), 1000);
	ck_assert_int_gt(json_number(adapter, "pages_fed"), 1000);
	json_object_put(all);
}
END_TEST

static const struct run blind[] = {
        {.program = "gcbench", .arguments = {"--mode=uffdwp", "--blind"}},
        {.program = "gcgraph", .arguments = {"--mode=uffdwp", "--blind", "--size=16M"}},
        {.program = "gcthreads", .arguments = {"--mode=uffdwp", "--blind", "--size=8M", "--rounds=20"}},
        {.program = "gcstock",
         .arguments = {"init"},
         .environment = {"UFFDWP_GC_TEST_BLIND=1", "UFFDWP_GC=require"},
         .preload = 1},
        {.program = "gcstock",
         .arguments = {"threads"},
         .environment = {"UFFDWP_GC_TEST_BLIND=1", "UFFDWP_GC=require"},
         .preload = 1},
        {.program = "gcstock",
         .arguments = {"init"},
         .environment = {"UFFDWP_GC_TEST_BLIND=1", "UFFDWP_GC_LONG_MS=0"},
         .preload = 1},
        {.program = "gcstock",
         .arguments = {"init", "300"},
         .environment = {"UFFDWP_GC_TEST_BLIND=1", "UFFDWP_GC_LONG_MS=0", "UFFDWP_GC_TEST_REST=5"},
         .preload = 1},
};

START_TEST(test_without_the_barrier_lost_objects_are_found)
{
	expect(blind[_i], LOST, "lost");
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- cases -- */

static const struct {
	const char *name;
	const char *words;
} cases[] = {
        {"fork", NULL},
        {"late", NULL},
        {"twice", NULL},
        {"options", "unknown flag 0x2"},
        {"incremental-before", "incremental already"},
        {"not-incremental", "GC_DISABLE_INCREMENTAL"},
        {"own-event", NULL},
        {"calls", NULL},
        {"unmap", NULL},
        {"large", NULL},
        {"uncollectable", NULL},
        {"read", NULL},
        {"neighbours", NULL},
        {"finalizers", NULL},
        {"exec", NULL},
};

#define CASES ((int)(sizeof(cases) / sizeof(cases[0])))

START_TEST(test_what_programs_do_to_a_collector_loses_nothing)
{
	struct run run = {.program = "gccases", .arguments = {cases[_i].name}};
	expect(run, 0, cases[_i].words);
}
END_TEST

START_TEST(test_every_case_is_in_this_list)
{
	int lines = 0;
	expect((struct run){.program = "gccases"}, USAGE, "usage: gccases CASE");
	for (const char *at = output; (at = strchr(at, '\n')); at++)
		lines++;
	ck_assert_int_eq(lines - 1, CASES);
}
END_TEST

/* ----------------------------------------------------------------------------------------------- the preload form --
 */

static const char *const methods[] = {"init", "malloc", "incremental", "threads", "fork", "churn"};

#define METHODS ((int)(sizeof(methods) / sizeof(methods[0])))

START_TEST(test_preloaded_it_serves_programs_that_know_nothing_of_it)
{
	struct run run = {.program = "gcstock",
	                  .arguments = {methods[_i]},
	                  .environment = {"UFFDWP_GC=require", "UFFDWP_GC_STATS=1"},
	                  .preload = 1};
	expect(run, 0, "incremental 1");
	ck_assert_msg(strstr(output, ": tracking, ") != NULL, "%s", output);
	ck_assert_msg(strstr(output, " 0 lost") != NULL, "%s", output);
}
END_TEST

/* A number in the line of statistics, before `words`. */
static long statistic(const char *words)
{
	const char *at = strstr(output, words);
	ck_assert_msg(at != NULL, "nothing of '%s':\n%s", words, output);
	for (at--; at > output && at[-1] >= '0' && at[-1] <= '9'; at--)
		continue;
	return strtol(at, NULL, 10);
}

/* Stops are never long, then. */
START_TEST(test_preloaded_it_leaves_a_collector_alone_whose_stops_are_short)
{
	struct run run = {.program = "gcstock",
	                  .arguments = {methods[_i]},
	                  .environment = {"UFFDWP_GC_LONG_MS=1000000", "UFFDWP_GC_STATS=1"},
	                  .preload = 1};
	int asks = strcmp(methods[_i], "incremental") == 0;
	expect(run, 0, asks ? "incremental 1" : "incremental 0");
	ck_assert_msg(strstr(output, asks ? ": tracking, " : ": waiting, ") != NULL, "%s", output);
	ck_assert_msg(strstr(output, " 0 lost") != NULL, "%s", output);
}
END_TEST

/* And here the first is long: generations begin in the middle of the program. */
START_TEST(test_preloaded_it_switches_on_when_a_stop_was_long)
{
	struct run run = {.program = "gcstock",
	                  .arguments = {methods[_i]},
	                  .environment = {"UFFDWP_GC_LONG_MS=0", "UFFDWP_GC_STATS=1"},
	                  .preload = 1};
	expect(run, 0, "incremental 1");
	ck_assert_msg(strstr(output, " 0 lost") != NULL, "%s", output);
	ck_assert_int_gt(statistic(" stops ("), 2);
}
END_TEST

/* Generations that are left off and taken up again, again and again: what is written in a rest is not forgotten after
 * it. That there are generations between the rests is shown by the blind run above. */
START_TEST(test_preloaded_a_rest_loses_nothing)
{
	struct run run = {.program = "gcstock",
	                  .arguments = {methods[_i], "160"},
	                  .environment = {"UFFDWP_GC_LONG_MS=0", "UFFDWP_GC_STATS=1",
	                                  _i % 2 ? "UFFDWP_GC_TEST_REST=1" : "UFFDWP_GC_TEST_REST=3"},
	                  .preload = 1};
	expect(run, 0, "incremental 1");
	ck_assert_msg(strstr(output, " 0 lost") != NULL, "%s", output);
	ck_assert_int_gt(statistic(" rests\n"), 1);
}
END_TEST

START_TEST(test_preloaded_it_refuses_numbers_that_are_none)
{
	struct run run = {
	        .program = "gcstock", .arguments = {"init"}, .environment = {"UFFDWP_GC_LONG_MS=soon"}, .preload = 1};
	expect(run, 1, "UFFDWP_GC_LONG_MS takes a number");
}
END_TEST

START_TEST(test_preloaded_it_can_be_left_off)
{
	struct run run = {.program = "gcstock", .arguments = {"init"}, .environment = {"UFFDWP_GC=off"}, .preload = 1};
	expect(run, 0, "incremental 0");
	run.environment[0] = "UFFDWP_GC=perhaps";
	expect(run, 1, "UFFDWP_GC takes on, off or require, not 'perhaps'");
}
END_TEST

/* --------------------------------------------------------------------------------------------------- refusals -- */

START_TEST(test_without_userfaultfd_it_is_refused_with_the_reason)
{
	struct run linked = {.program = "gcgraph", .arguments = {"--mode=uffdwp"}, .no_uffd = 1};
	struct run stock = {.program = "gcstock", .arguments = {"init"}, .preload = 1, .no_uffd = 1};
	expect(linked, REFUSED, "--mode=uffdwp is not available: ");
	expect(stock, 0, "uffdwp-gc: not switched on: ");
	ck_assert_msg(strstr(output, "incremental 0") != NULL, "the program goes on as it was:\n%s", output);
	stock.environment[0] = "UFFDWP_GC=require";
	expect(stock, 1, "uffdwp-gc: not switched on: ");
}
END_TEST

START_TEST(test_bad_options_are_refused)
{
	static const struct {
		const char *option;
		const char *words;
	} bad[] = {
	        {"--mode=fast", "--mode takes"},       {"--size=12x", "'12x' is no number of bytes"},
	        {"--size=1K", "--size takes"},         {"--seed=-1", "'-1' is no number"},
	        {"--rounds=0", "without an end"},      {"--blind", "--blind goes with"},
	        {"--threads=2", "has one thread"},     {"--writes=0", "--writes takes"},
	        {"--nonsense", "unrecognized option"}, {"argument", "no arguments"},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect((struct run){.program = "gcgraph", .arguments = {bad[i].option}}, USAGE, bad[i].words);
	expect((struct run){.program = "gcthreads", .arguments = {"--threads=0"}}, USAGE, "1 to 64");
}
END_TEST

static Suite *suite_new(void)
{
	Suite *suite = suite_create(TEST_NAME);
	TCase *all = tcase_create("gc");
	tcase_set_timeout(all, 300);
	tcase_add_loop_test(all, test_no_object_in_use_is_freed, 0, PROGRAMS);
	tcase_add_test(all, test_statistics_agree_with_the_program);
	tcase_add_loop_test(all, test_without_the_barrier_lost_objects_are_found, 0,
	                    (int)(sizeof(blind) / sizeof(blind[0])));
	tcase_add_loop_test(all, test_what_programs_do_to_a_collector_loses_nothing, 0, CASES);
	tcase_add_test(all, test_every_case_is_in_this_list);
	tcase_add_loop_test(all, test_preloaded_it_serves_programs_that_know_nothing_of_it, 0, METHODS);
	tcase_add_loop_test(all, test_preloaded_it_leaves_a_collector_alone_whose_stops_are_short, 0, METHODS);
	tcase_add_loop_test(all, test_preloaded_it_switches_on_when_a_stop_was_long, 0, METHODS);
	tcase_add_loop_test(all, test_preloaded_a_rest_loses_nothing, 0, METHODS);
	tcase_add_test(all, test_preloaded_it_refuses_numbers_that_are_none);
	tcase_add_test(all, test_preloaded_it_can_be_left_off);
	tcase_add_test(all, test_without_userfaultfd_it_is_refused_with_the_reason);
	tcase_add_test(all, test_bad_options_are_refused);
	suite_add_tcase(suite, all);
	return suite;
}

/* 1: the adapter can be switched on here; else its reason is in `output`. */
static int works_here(void)
{
	struct run run = {.program = "gcgraph", .arguments = {"--mode=uffdwp", "--rounds=1", "--size=1M"}};
	return outcome_of(run) == 0;
}

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *build = getenv("UFFDWP_BUILD"), *sanitize = getenv("UFFDWP_SANITIZE");
	support_begin(TEST_NAME, &needs);
	snprintf(folder, sizeof(folder), "%s", build ? build : "build");
	if (sanitize && *sanitize)
		return support_skip(
		        "a collector that scans stacks, and a preloaded library, do not go with sanitizers");
	if (!works_here())
		return support_skip(output);
	return support_run(suite_new());
}
