/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl: the library's face on the command line. A command is a row of the table below: a name, an argp parser,
 * and a function that ends with one of the exit codes of doctor.h.
 *
 * Rules: findings go to stdout, complaints to stderr; a command line that is not understood changes nothing and ends
 * with 2; output that could not be written is a failure (4), not a success that was not seen.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirty.h"
#include "doctor.h"
#include "fork.h"
#include "image.h"
#include "live.h"
#include "serve.h"

#define PROGRAM "uffdwp-ctl"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
};

/* ------------------------------------------------------------------------------------------------------- doctor -- */

enum color { COLOR_AUTO, COLOR_NEVER, COLOR_ALWAYS };

struct doctor_arguments {
	int json;
	enum color color;
};

static const char doctor_doc[] =
        "Reports what this kernel, this user and this container can do for write protection by userfaultfd, by trying "
        "it "
        "on "
        "scratch memory, and what to change where something is missing. It changes nothing and takes some milliseconds."
        "\v"
        "What is tried: each kind of access to a userfaultfd; for shared memory, huge pages and private anonymous "
        "memory, whether "
        "a "
        "page that was armed stays armed when it was never touched, thrown out of the page table, punched, swapped out "
        "(where swap is on) or moved; every mechanism by which the library could watch that memory, the best first: "
        "marker, rearm, minor, mprotect, and async and soft-dirty, which are for tracking only; io_uring; "
        "PAGEMAP_SCAN.\n"
        "\n"
        "Exit codes:\n"
        "  0  every type of memory that is here can be armed (huge pages: if free)\n"
        "  1  nothing works: no memory can be armed\n"
        "  2  the command line was not understood\n"
        "  3  it works with limits: some memory is refused or left to minor or\n"
        "     mprotect, or only faults of user code are caught\n"
        "  4  the program could not do its work: no memory, output not writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl doctor\n"
        "  uffdwp-ctl doctor --json | jq -r .memory.shmem.mechanism\n"
        "  uffdwp-ctl doctor --json | jq .memory.shmem.ladder.rearm\n"
        "  uffdwp-ctl doctor --json | jq -r '.advice[] | .what, .changes[]'\n"
        "  setpriv --reuid=65534 --clear-groups uffdwp-ctl doctor   # without rights\n";

static const struct argp_option doctor_options[] = {
        {"json", 'j', NULL, 0,
         "For programs: one JSON object with stable names (share/doc/uffdwp/uffdwp-ctl.md lists them)", 0},
        {"color", 'c', "WHEN", 0, "Colour in the text: auto (the default: on a terminal), never, always", 0},
        {0},
};

static error_t main_parse_color(struct argp_state *state, const char *when, enum color *color)
{
	if (strcmp(when, "auto") == 0)
		*color = COLOR_AUTO;
	else if (strcmp(when, "never") == 0)
		*color = COLOR_NEVER;
	else if (strcmp(when, "always") == 0)
		*color = COLOR_ALWAYS;
	else
		argp_error(state, "--color takes auto, never or always, not '%s'", when);
	return 0;
}

static error_t main_parse_doctor(int key, char *argument, struct argp_state *state)
{
	struct doctor_arguments *arguments = state->input;

	switch (key) {
	case 'j':
		arguments->json = 1;
		return 0;
	case 'c':
		return main_parse_color(state, argument, &arguments->color);
	case ARGP_KEY_ARG:
		argp_error(state, "doctor takes no argument, but got '%s'", argument);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* https://no-color.org: any value that is not empty. */
static int main_use_color(enum color color)
{
	const char *no_color = getenv("NO_COLOR");

	if (color != COLOR_AUTO)
		return color == COLOR_ALWAYS;
	return isatty(STDOUT_FILENO) && !(no_color && no_color[0]);
}

/* In a child: only whether it lives matters. */
static void main_look_once(void)
{
	static struct found found;

	(void)found_look(&found);
}

static int main_look(struct doctor *doctor)
{
	int error;

	facts_look(&doctor->facts);
	if (killed_look(main_look_once, &doctor->facts)) {
		advice_form(doctor);
		return 0;
	}
	error = found_look(&doctor->probe);
	if (error) {
		(void)fprintf(stderr, PROGRAM ": the probe could not run: %s\n", strerror(-error));
		return error;
	}
	advice_form(doctor);
	return 0;
}

static int main_run_doctor(int argc, char **argv)
{
	static const struct argp argp = {doctor_options, main_parse_doctor, NULL, doctor_doc, NULL, NULL, NULL};
	struct doctor_arguments arguments = {.json = 0, .color = COLOR_AUTO};
	struct doctor doctor = {0};
	int failed;

	if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) != 0)
		return EXIT_USAGE;
	if (main_look(&doctor) != 0)
		return EXIT_BROKEN;
	failed = arguments.json ? json_print(&doctor, stdout)
	                        : text_print(&doctor, stdout, main_use_color(arguments.color));
	return failed ? EXIT_BROKEN : (int)doctor.verdict;
}

/* ------------------------------------------------------------------------------------------------------ version -- */

static void main_print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	(void)fprintf(stream, PROGRAM " %d.%d.%d (libuffdwp %s)\n", UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR,
	              UFFDWP_VERSION_PATCH, uffdwp_version());
}

static error_t main_parse_version(int key, char *argument, struct argp_state *state)
{
	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	argp_error(state, "version takes no argument, but got '%s'", argument);
	return 0;
}

static int main_run_version(int argc, char **argv)
{
	static const char doc[] = "Prints the version of this program and of the library that it runs with.";
	static const struct argp argp = {NULL, main_parse_version, NULL, doc, NULL, NULL, NULL};

	if (argp_parse(&argp, argc, argv, 0, NULL, NULL) != 0)
		return EXIT_USAGE;
	main_print_version(stdout, NULL);
	return EXIT_ALL;
}

/* --------------------------------------------------------------------------------------------------------- main -- */

static const struct command commands[] = {
        {"abort", run_abort},     {"arm", run_arm},       {"audit", run_audit},
        {"dirty", run_dirty},     {"disarm", run_disarm}, {"doctor", main_run_doctor},
        {"fork", run_fork},       {"image", run_image},   {"list", run_list},
        {"metrics", run_metrics}, {"serve", run_serve},   {"snapshot", run_snapshot},
        {"stat", run_stat},       {"trace", run_trace},   {"version", main_run_version},
        {"watch", run_watch},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const char main_doc[] =
        "Looks after libuffdwp, the runtime that reports to a program which page is about to be written."
        "\v"
        "Commands:\n"
        "  dirty     run a program and show what memory it writes, over time\n"
        "  doctor    what this kernel, user and container can do, and what to change\n"
        "  fork      run a program whose fork() does not grow with its heap\n"
        "  image     look at images and deltas, check, merge, restore, compare them\n"
        "  serve     restore and snapshot memory of virtual machine monitors\n"
        "  version   which version this is\n"
        "\n"
        "Commands for live processes, those with a control socket (UFFDWP_CONTROL=1):\n"
        "  list      which there are, and their regions\n"
        "  stat      everything about a region\n"
        "  watch     the same on a screen, again and again\n"
        "  snapshot  take a snapshot of a region\n"
        "  abort     end a snapshot without an image\n"
        "  audit     look for pages that lost their protection\n"
        "  arm       protect pages\n"
        "  disarm    unprotect pages\n"
        "  trace     which thread writes where\n"
        "  metrics   figures for Prometheus\n"
        "\n"
        "'uffdwp-ctl COMMAND --help' explains a command, its exit codes and its output.\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl doctor            # can snapshots be taken here?\n"
        "  uffdwp-ctl doctor --json     # the same for a script\n"
        "  uffdwp-ctl dirty --svg heat.svg -- sqlite3 bank.db <load.sql\n"
        "  uffdwp-ctl watch             # what goes on in live processes?\n"
        "\n"
        "Exit codes:\n  0  all is well\n  1  nothing works here; a live process refused it\n  2  the command line was "
        "not understood\n"
        "  3  it works with limits; no such process or region\n"
        "  4  the program could not do its work; a process answers nonsense\n"
        "  (dirty and fork end as the program that they run; image diff ends with 1 where images differ)\n";

struct main_arguments {
	const struct command *command;
	int argc;
	char **argv;
};

static const struct command *main_find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* "abort, arm, ... and watch" */
static void main_name_commands(char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < COMMANDS && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s",
		                         i == 0              ? ""
		                         : i + 1 == COMMANDS ? " and "
		                                             : ", ",
		                         commands[i].name);
}

/* The first word is the command; all after it is the command's own. */
static error_t main_parse(int key, char *argument, struct argp_state *state)
{
	struct main_arguments *arguments = state->input;
	char names[256];

	main_name_commands(names, sizeof(names));
	switch (key) {
	case ARGP_KEY_ARG:
		arguments->command = main_find_command(argument);
		if (!arguments->command)
			argp_error(state, "unknown command '%s'; the commands are %s", argument, names);
		arguments->argc = state->argc - state->next + 1;
		arguments->argv = state->argv + state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a command is missing: %s", names);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int main_run_command(const struct main_arguments *arguments)
{
	char name[64];
	char *first = arguments->argv[0];
	int result;

	(void)snprintf(name, sizeof name, PROGRAM " %s", first);
	arguments->argv[0] = name;
	result = arguments->command->run(arguments->argc, arguments->argv);
	arguments->argv[0] = first;
	return result;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {NULL, main_parse, "COMMAND [OPTION...]", main_doc, NULL, NULL, NULL};
	struct main_arguments arguments = {0};
	int result;
	int unwritten;

	argp_err_exit_status = EXIT_USAGE;
	argp_program_version_hook = main_print_version;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &arguments) != 0 || !arguments.command)
		return EXIT_USAGE;
	result = main_run_command(&arguments);
	unwritten = ferror(stdout);
	if (fclose(stdout) != 0 || unwritten) {
		(void)fprintf(stderr, PROGRAM ": the output could not be written: %s\n", strerror(errno));
		return EXIT_BROKEN;
	}
	return result;
}
