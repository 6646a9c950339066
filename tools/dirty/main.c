/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-dirty [OPTION...] -- PROGRAM [ARGUMENT...]: the command line, and the files that the reports go to.
 * `uffdwp-ctl dirty` executes it, with that as argv[0].
 *
 * All that can be refused is refused before the program starts: an option, a program that cannot be tracked, a kernel
 * without asynchronous tracking, a file that cannot be written. From then on this process ends as the program ends.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"
#include "say.h"
#include "uffdwp.h"

#define PROGRAM "uffdwp-dirty"
#define CTL_DIRTY "uffdwp-ctl dirty"

#define EXCLUDED_MAX 32
#define INTERVAL_LEAST_S 0.01
#define INTERVAL_MOST_S 3600

/* A report's output. */
struct output {
	const char *path; /* NULL: not wanted; "-": stdout */
	FILE *file;
	int created;
	int (*write)(const struct report *report, FILE *out);
};

enum { OUTPUT_TEXT, OUTPUT_JSON, OUTPUT_SVG, OUTPUTS };

struct dirty {
	struct run run;
	struct output outputs[OUTPUTS];
	const char *excluded[EXCLUDED_MAX + 1];
	unsigned excluded_count;
	int quiet;
};

/* -------------------------------------------------------------------------------------------------- command line -- */

enum { KEY_SMALL_PAGES = 256, KEY_LIVE };

static const char main_doc[] =
        "Runs a program and shows which memory it writes, over time: its heap, anonymous mappings, stack, shared "
        "memory "
        "and written data segments. How fast, how many different pages, in which mappings, and how large a snapshot "
        "and "
        "its increments would be. The program, its output, its exit status and its signals stay as they are."
        "\v"
        "What is measured is pages: a page that is written a thousand times between two looks counts once. Nothing of "
        "it runs in the program but a shim that works before main(); the looking is done from outside, by the kernel's "
        "own wp bits. Children are not measured. The program is followed when it replaces itself by exec.\n"
        "\n"
        "The summary goes to stderr when the program has ended. Meanwhile, if stderr is a terminal, the state of "
        "affairs "
        "is shown there; if not, a line each second.\n"
        "\n"
        "Not seen: memory that came and went between two looks; pages that the program writes by other mappings "
        "of the same memory are seen there. Programs that are linked statically, made for another machine or that get "
        "other rights when they start are refused. A program that uses userfaultfd itself cannot register what is "
        "watched: leave that out by --exclude.\n"
        "\n"
        "Exit codes: those of the program, and dies of the same signal; besides\n"
        "  125  not understood, not to be tracked here (the program did not run),\n"
        "       or the program ended with 0 and a report could not be written\n"
        "  126  the program was found and cannot be run\n"
        "  127  the program was not found\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl dirty -- python3 -c 'x = list(range(10**7))'\n"
        "  uffdwp-ctl dirty --svg heat.svg --json heat.json -- sqlite3 :memory: <load.sql\n"
        "  uffdwp-ctl dirty -q -o summary.txt -i 1s -- redis-server --port 7777\n"
        "  uffdwp-ctl dirty -q --json - -- ./program >all.json   # if the program prints nothing\n";

static const struct argp_option main_options[] = {
        {"interval", 'i', "TIME", 0,
         "Look so often: 100ms, 0.5s, 2 (seconds); 10ms to 3600s. The default: 100ms, and up to 2s where a program "
         "writes so many pages that looks would slow it",
         0},
        {"output", 'o', "FILE", 0, "The summary goes to FILE, not to stderr", 0},
        {"json", 'j', "FILE", 0,
         "All figures for programs go to FILE, - is stdout (share/doc/uffdwp/uffdwp-ctl-dirty.md lists them)", 0},
        {"svg", 's', "FILE", 0, "A picture, addresses by time, goes to FILE, - is stdout", 0},
        {"exclude", 'x', "PATTERN", 0,
         "Leave mappings out whose name in /proc/PID/maps matches (*, ?, []), or a kind: heap, stack, anon, shared, "
         "data. May be given often",
         0},
        {"live", KEY_LIVE, "WHEN", 0, "auto (the default), lines: plain lines also on a terminal, never", 0},
        {"quiet", 'q', NULL, 0, "Nothing on stderr: no live view, and no summary but to --output", 0},
        {"small-pages", KEY_SMALL_PAGES, NULL, 0,
         "Run the program (and its children) without transparent huge pages, of which one written byte counts as 2 MiB",
         0},
        {0},
};

/* "100ms", "0.1s", "0.1"; 0: not understood. */
static double main_parse_time(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text)
		return 0;
	if (strcmp(end, "ms") == 0)
		value /= 1000;
	else if (*end && strcmp(end, "s") != 0)
		return 0;
	return value >= INTERVAL_LEAST_S && value <= INTERVAL_MOST_S ? value : 0;
}

static error_t main_take_interval(struct argp_state *state, struct dirty *dirty, const char *text)
{
	dirty->run.interval_s = main_parse_time(text);
	dirty->run.widens = 0;
	if (dirty->run.interval_s <= 0)
		argp_error(state, "--interval takes a time of 10ms to 3600s such as 100ms or 0.5s, not '%s'", text);
	return 0;
}

static error_t main_take_live(struct argp_state *state, struct dirty *dirty, const char *when)
{
	if (strcmp(when, "auto") == 0)
		dirty->run.live_mode = LIVE_AUTO;
	else if (strcmp(when, "lines") == 0)
		dirty->run.live_mode = LIVE_LINES;
	else if (strcmp(when, "never") == 0)
		dirty->run.live_mode = LIVE_NEVER;
	else
		argp_error(state, "--live takes auto, lines or never, not '%s'", when);
	return 0;
}

static error_t main_take_excluded(struct argp_state *state, struct dirty *dirty, const char *pattern)
{
	if (dirty->excluded_count == EXCLUDED_MAX)
		argp_error(state, "--exclude can be given %d times", EXCLUDED_MAX);
	else
		dirty->excluded[dirty->excluded_count++] = pattern;
	return 0;
}

/* The first word that is no option is the program; all after it is the program's own. */
static error_t main_take_program(struct argp_state *state, struct dirty *dirty)
{
	dirty->run.argv = state->argv + state->next - 1;
	state->next = state->argc;
	return 0;
}

static error_t main_parse(int key, char *argument, struct argp_state *state)
{
	struct dirty *dirty = state->input;

	switch (key) {
	case 'i':
		return main_take_interval(state, dirty, argument);
	case 'o':
		dirty->outputs[OUTPUT_TEXT].path = argument;
		return 0;
	case 'j':
		dirty->outputs[OUTPUT_JSON].path = argument;
		return 0;
	case 's':
		dirty->outputs[OUTPUT_SVG].path = argument;
		return 0;
	case 'x':
		return main_take_excluded(state, dirty, argument);
	case 'q':
		dirty->quiet = 1;
		return 0;
	case KEY_LIVE:
		return main_take_live(state, dirty, argument);
	case KEY_SMALL_PAGES:
		dirty->run.flags |= HELLO_SMALL_PAGES;
		return 0;
	case ARGP_KEY_ARG:
		return main_take_program(state, dirty);
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a program is missing: %s -- PROGRAM [ARGUMENT...]", say_name());
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---------------------------------------------------------------------------------------------- before the start -- */

/* The library's own trial: the mechanism that tracks take is the one that is used here. */
static int main_judge_kernel(void)
{
	struct uffdwp_probe_rung rung = {.sz = sizeof rung};
	struct uffdwp_probe *probe = NULL;
	int error = uffdwp_probe_run(&probe);

	if (!error)
		error = uffdwp_probe_rung(probe, UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_ASYNC, &rung);
	(void)uffdwp_probe_free(probe);

	if (error) {
		say("the probe could not run: %s", strerror(-error));
		return LAUNCH_BROKEN;
	}
	if (rung.works)
		return 0;
	say("this needs asynchronous tracking (mechanism async), which does not work here: %s", rung.reason);
	say("see uffdwp-ctl doctor for what to change");
	return LAUNCH_BROKEN;
}

static int main_open_output(struct output *output)
{
	int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY;
	int fd;

	if (!output->path)
		return 0;
	if (strcmp(output->path, "-") == 0) {
		output->file = stdout;
		return 0;
	}
	fd = open(output->path, flags | O_EXCL, 0666);
	output->created = fd >= 0;
	if (fd < 0)
		fd = open(output->path, flags | O_TRUNC, 0666);
	output->file = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (output->file)
		return 0;
	say("%s cannot be written: %s", output->path, strerror(errno));
	return LAUNCH_BROKEN;
}

static int main_open_outputs(struct dirty *dirty)
{
	unsigned to_stdout = 0;
	int code = 0;

	for (int i = 0; i < OUTPUTS && !code; i++) {
		to_stdout += dirty->outputs[i].path && strcmp(dirty->outputs[i].path, "-") == 0;
		code = main_open_output(&dirty->outputs[i]);
	}
	if (!code && to_stdout > 1) {
		say("only one report can go to stdout (-)");
		code = LAUNCH_BROKEN;
	}
	return code;
}

/* The program did not run: no empty files are left. */
static void main_drop_outputs(struct dirty *dirty)
{
	for (int i = 0; i < OUTPUTS; i++) {
		if (dirty->outputs[i].file && dirty->outputs[i].file != stdout)
			(void)fclose(dirty->outputs[i].file);
		if (dirty->outputs[i].created)
			(void)unlink(dirty->outputs[i].path);
	}
}

/* ------------------------------------------------------------------------------------------------- after the end -- */

static int main_write_output(const struct output *output, const struct report *report)
{
	int failed = output->write(report, output->file) != 0;

	failed |= ferror(output->file) != 0;
	failed |= output->file == stdout ? fflush(stdout) != 0 : fclose(output->file) != 0;
	if (failed)
		say("%s could not be written: %s", output->path, strerror(errno));
	return failed;
}

static int main_write_outputs(struct dirty *dirty)
{
	int failed = 0;

	if (!dirty->quiet && !dirty->outputs[OUTPUT_TEXT].path) {
		(void)report_text(&dirty->run.report, stderr);
		(void)fflush(stderr);
	}
	for (int i = 0; i < OUTPUTS; i++) {
		if (dirty->outputs[i].file)
			failed |= main_write_output(&dirty->outputs[i], &dirty->run.report);
	}
	return failed;
}

static void main_set_defaults(struct dirty *dirty)
{
	dirty->run.interval_s = 0.1;
	dirty->run.widens = 1;
	dirty->run.live_mode = LIVE_AUTO;
	dirty->run.excluded = dirty->excluded;
	dirty->outputs[OUTPUT_TEXT].write = report_text;
	dirty->outputs[OUTPUT_JSON].write = report_json;
	dirty->outputs[OUTPUT_SVG].write = report_svg;
}

static int main_prepare(struct dirty *dirty)
{
	int code = launch_judge(dirty->run.argv[0]);

	if (!code)
		code = main_judge_kernel();
	if (!code)
		code = main_open_outputs(dirty);
	dirty->run.lines = dirty->outputs[OUTPUT_TEXT].file;
	if (dirty->quiet)
		dirty->run.live_mode = LIVE_NEVER;
	return code;
}

static int main_run(int argc, char **argv)
{
	static const struct argp argp = {main_options, main_parse, "[--] PROGRAM [ARGUMENT...]", main_doc, NULL,
	                                 NULL,         NULL};
	static struct dirty dirty;
	int code;

	argp_err_exit_status = LAUNCH_BROKEN;
	main_set_defaults(&dirty);
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &dirty) != 0)
		return LAUNCH_BROKEN;
	code = main_prepare(&dirty);
	if (!code)
		code = run_program(&dirty.run);
	if (code) {
		main_drop_outputs(&dirty);
		run_fini(&dirty.run);
		return code;
	}
	code = main_write_outputs(&dirty) ? LAUNCH_BROKEN : 0;
	run_fini(&dirty.run);
	if (code && WIFEXITED(dirty.run.launch.status) && WEXITSTATUS(dirty.run.launch.status) == 0)
		return code;
	launch_end(&dirty.run.launch);
}

static void main_print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	(void)fprintf(stream, "%s %d.%d.%d (libuffdwp %s)\n", strcmp(say_name(), PROGRAM) ? "uffdwp-ctl" : PROGRAM,
	              UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR, UFFDWP_VERSION_PATCH, uffdwp_version());
}

int main(int argc, char **argv)
{
	if (argc > 0 && strcmp(argv[0], CTL_DIRTY) == 0)
		say_as(CTL_DIRTY);
	argp_program_version_hook = main_print_version;
	return main_run(argc, argv);
}
