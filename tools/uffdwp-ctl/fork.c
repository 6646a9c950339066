/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl fork [OPTION...] -- PROGRAM [ARGUMENT...]: this process becomes the program, with libuffdwp-fork.so, and
 * an allocator where it has none of its own, preloaded. Nothing of this command stays.
 *
 * What can be refused is refused before: a program into which nothing can be loaded, an allocator that is not there.
 * What the kernel refuses is found out by the program itself, which then runs as ever (tools/fork/start.c), and by
 * --check.
 */
#include "fork.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access.h"
#include "allocator.h"
#include "base/escape.h"
#include "beside.h"
#include "launch_codes.h"
#include "loadable.h"
#include "names.h"
#include "reword.h"
#include "uffdwp.h"

#define OBJECT "libuffdwp-fork.so"
#define VARIABLES 14

enum {
	KEY_MALLOC = 256,
	KEY_DELIVERY,
	KEY_CAPACITY,
	KEY_PRIVATE,
	KEY_WINDOW,
	KEY_NICE,
	KEY_SMALL,
	KEY_FROM,
	KEY_FOLLOW,
	KEY_CHECK
};

static const char fork_doc[] =
        "Runs a program whose fork() then takes the same short time at any size of its heap: Redis that saves, a "
        "server "
        "that makes a dump in a child. The program is not changed; its allocator gets its memory from a region of "
        "libuffdwp, and fork() becomes the library's."
        "\v"
        "The allocator is jemalloc, mimalloc or tcmalloc. A program that has one of these, linked or inside, keeps it; "
        "a "
        "program with the C library's malloc() gets jemalloc (Debian: libjemalloc2). Whatever is not possible here, "
        "the "
        "program runs on as without this command, and says so once on stderr. "
        "share/doc/uffdwp/uffdwp-ctl-fork.md is the guide, uffdwp-ctl-fork(1) the manual.\n"
        "\n"
        "Sizes are bytes, or end in K, M, G or T.\n"
        "\n"
        "Exit codes: those of the program; with --check 0: forks would be the library's, 1: they would not; besides\n"
        "  125  not understood, or the program cannot be run so (it did not run)\n"
        "  126  the program was found and cannot be run\n"
        "  127  the program was not found\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl fork --check -- redis-server\n"
        "  uffdwp-ctl fork -- redis-server /etc/redis/redis.conf\n"
        "  uffdwp-ctl fork --verbose --malloc=jemalloc -- python3 server.py\n";

static const struct argp_option fork_options[] = {
        {"check", KEY_CHECK, NULL, 0, "Only say what would work, line by line; the program does not run", 0},
        {"malloc", KEY_MALLOC, "WHICH", 0,
         "auto (the default), jemalloc, mimalloc or tcmalloc: preload that; none: preload nothing; or the path of a "
         "library",
         0},
        {"delivery", KEY_DELIVERY, "HOW", 0,
         "thread (the default): a thread resolves faults, and system calls that write into the heap work; inline: the "
         "writer does, in a signal handler, and such system calls fail with EFAULT while a child lives; a thread that "
         "blocks SIGBUS is then killed by its first write, which needs thread",
         0},
        {"capacity", KEY_CAPACITY, "SIZE", 0,
         "Address space for the heap. The default: twice the memory and swap, at least 64G", 0},
        {"private", KEY_PRIVATE, "SIZE", 0,
         "Bound on the memory that one child takes for pages that the program writes meanwhile; beyond it the writer "
         "waits for the child, for 10 s, then the child is ended. The default: none",
         0},
        {"window", KEY_WINDOW, "N", 0,
         "Most pages that one write copies for a child, 1 to 64: where the program writes without a pause while a "
         "child "
         "lives, its neighbours are copied along, which costs memory sooner and the program fewer stops. 1: only what "
         "is written. The default: 64",
         0},
        {"nice", KEY_NICE, "N", 0,
         "Children run at a nice value that is higher by N, 0 to 19, so that the program finds a CPU where there are "
         "few; also what they become by exec. The default: 0",
         0},
        {"small", KEY_SMALL, "SIZE", 0, "So much of the heap forks as ever. The default: 16M", 0},
        {"from", KEY_FROM, "WHAT", 0,
         "Which memory counts: of the allocator (auto, the default), of the program's own calls of mmap() too "
         "(program), of all (all)",
         0},
        {"follow", KEY_FOLLOW, NULL, 0,
         "Programs that are started by the program run so, too; each start costs 3 to 40 ms", 0},
        {"verbose", 'v', NULL, 0, "A line on stderr for each fork", 0},
        {"quiet", 'q', NULL, 0, "Nothing on stderr, not even that something is not available", 0},
        {0},
};

struct fork {
	char **argv;
	int check;
	const char *malloc;
	const char *values[VARIABLES]; /* of UFFDWP_FORK_*, by enum fork_variable */
	char object[LOADABLE_PATH];    /* libuffdwp-fork.so */
	char program[LOADABLE_PATH];   /* the file that is loaded: of a script its interpreter */
	struct allocator allocator;
	const char *library; /* the allocator that is preloaded, or NULL */
	char *chosen;        /* its path, where the user gave one */
};

enum fork_variable { DELIVERY, CAPACITY, PRIVATE, WINDOW, NICE, SMALL, FROM, FOLLOW, VERBOSE, QUIET, HINTS, PRELOADED };
static const char *const fork_names[] = {"DELIVERY", "CAPACITY", "PRIVATE", "WINDOW", "NICE",  "SMALL",
                                         "FROM",     "FOLLOW",   "VERBOSE", "QUIET",  "HINTS", "PRELOADED"};

__attribute__((format(printf, 1, 2))) static void fork_say(const char *format, ...)
{
	char line[2048];
	char escaped[4096];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	(void)escape_text(escaped, sizeof(escaped), line, 0);
	(void)fprintf(stderr, "uffdwp-ctl fork: %s\n", escaped);
}

/* -------------------------------------------------------------------------------------------------- command line -- */

static int fork_is_size(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	return end != text && *text != '-' && value <= UINT64_MAX >> 40 && (!*end || (strchr("KMGT", *end) && !end[1]));
}

static error_t fork_take_size(struct argp_state *state, const char *option, enum fork_variable which, char *value)
{
	struct fork *fork = state->input;

	if (!fork_is_size(value))
		argp_error(state, "%s takes a size such as 512M or 64G, not '%s'", option, value);
	fork->values[which] = value;
	return 0;
}

struct fork_number {
	const char *option;
	const char *what;
	enum fork_variable which;
	unsigned long least;
	unsigned long most;
};

static error_t fork_take_number(struct argp_state *state, const struct fork_number *of, char *value)
{
	struct fork *fork = state->input;
	char *end;
	unsigned long number = strtoul(value, &end, 10);

	if (end == value || *end || number < of->least || number > of->most)
		argp_error(state, "%s takes %s from %lu to %lu, not '%s'", of->option, of->what, of->least, of->most,
		           value);
	fork->values[of->which] = value;
	return 0;
}

static error_t fork_take_word(struct argp_state *state, const char *option, enum fork_variable which, char *value,
                              const char *const *words)
{
	struct fork *fork = state->input;
	size_t i = 0;

	while (words[i] && strcmp(words[i], value) != 0)
		i++;
	if (!words[i])
		argp_error(state, "%s does not take '%s': see --help", option, value);
	fork->values[which] = value;
	return 0;
}

static error_t fork_take_program(struct argp_state *state)
{
	struct fork *fork = state->input;

	fork->argv = state->argv + state->next - 1;
	state->next = state->argc;
	return 0;
}

static error_t fork_parse_values(int key, char *argument, struct argp_state *state)
{
	static const char *const deliveries[] = {"thread", "inline", NULL};
	static const char *const froms[] = {"auto", "program", "all", NULL};
	static const struct fork_number window = {"--window", "a number of pages", WINDOW, 1, 64};
	static const struct fork_number nice = {"--nice", "a number", NICE, 0, 19};

	switch (key) {
	case KEY_DELIVERY:
		return fork_take_word(state, "--delivery", DELIVERY, argument, deliveries);
	case KEY_FROM:
		return fork_take_word(state, "--from", FROM, argument, froms);
	case KEY_CAPACITY:
		return fork_take_size(state, "--capacity", CAPACITY, argument);
	case KEY_PRIVATE:
		return fork_take_size(state, "--private", PRIVATE, argument);
	case KEY_WINDOW:
		return fork_take_number(state, &window, argument);
	case KEY_NICE:
		return fork_take_number(state, &nice, argument);
	case KEY_SMALL:
		return fork_take_size(state, "--small", SMALL, argument);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t fork_parse(int key, char *argument, struct argp_state *state)
{
	struct fork *fork = state->input;

	switch (key) {
	case KEY_MALLOC:
		fork->malloc = argument;
		return 0;
	case KEY_CHECK:
		fork->check = 1;
		return 0;
	case KEY_FOLLOW:
		fork->values[FOLLOW] = "1";
		return 0;
	case 'v':
		fork->values[VERBOSE] = "1";
		return 0;
	case 'q':
		fork->values[QUIET] = "1";
		return 0;
	case ARGP_KEY_ARG:
		return fork_take_program(state);
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a program is missing: uffdwp-ctl fork -- PROGRAM [ARGUMENT...]");
		return 0;
	default:
		return fork_parse_values(key, argument, state);
	}
}

/* ------------------------------------------------------------------------------------------------------ shells -- */

/* What `sh` is a link to counts. */
static int fork_is_shell(const struct fork *fork)
{
	char *path = realpath(fork->program, NULL);
	const char *name = path ? strrchr(path, '/') : NULL;
	int is_shell = name && names_is_shell(name + 1);

	free(path);
	return is_shell;
}

static int fork_leaves_alone(const struct fork *fork)
{
	return !fork->values[FOLLOW] && !fork->values[FROM] && fork_is_shell(fork);
}

static const char fork_shell_text[] =
        "is a shell, whose own forks are quick: it runs as ever. For a program that it starts "
        "write uffdwp-ctl fork before that, or give --follow";

/* -------------------------------------------------------------------------------------------- program, allocator -- */

static int fork_judge_program(struct fork *fork)
{
	enum loadable why = loadable_look(fork->argv[0], getenv("PATH"), fork->program);

	if (why == LOADABLE_YES)
		return 0;
	if (why == LOADABLE_NOT_FOUND || why == LOADABLE_NOT_ALLOWED) {
		fork_say("%s: %s", fork->argv[0], loadable_reason(why));
		return why == LOADABLE_NOT_FOUND ? LAUNCH_NOT_FOUND : LAUNCH_NOT_RUN;
	}
	fork_say("%s cannot be run so: %s %s", fork->argv[0], fork->program, loadable_reason(why));
	return LAUNCH_BROKEN;
}

static int fork_find_object(struct fork *fork)
{
	if (!beside_find(OBJECT, fork->object)) {
		fork_say(OBJECT
		         " is neither beside this program (../lib) nor at %s: install it (Debian: libuffdwp-fork), or "
		         "run uffdwp-ctl from its build folder",
		         fork->object);
		return LAUNCH_BROKEN;
	}
	if (strcspn(fork->object, " :") == strlen(fork->object))
		return 0;
	fork_say("%s: the dynamic linker takes no path with blanks or colons: install it elsewhere", fork->object);
	return LAUNCH_BROKEN;
}

static int fork_choose_path(struct fork *fork)
{
	fork->chosen = realpath(fork->malloc, NULL);
	if (fork->chosen && strcspn(fork->chosen, " :") == strlen(fork->chosen)) {
		fork->library = fork->chosen;
		return allocator_look(fork->program, fork->library, &fork->allocator) ? LAUNCH_BROKEN : 0;
	}
	fork_say("--malloc=%s: %s", fork->malloc,
	         fork->chosen ? "the dynamic linker takes no path with blanks or colons" : strerror(errno));
	return LAUNCH_BROKEN;
}

static int fork_preload_kind(struct fork *fork, enum allocator_kind kind)
{
	static const char *const packages[] = {"", "libjemalloc2", "libmimalloc2.0", "libtcmalloc-minimal4"};

	fork->library = allocator_find_library(fork->program, kind);
	if (fork->library)
		return 0;
	fork_say("the dynamic linker finds no library of %s: install it (on Debian %s), or choose another by --malloc",
	         allocator_name(kind), packages[kind]);
	return LAUNCH_BROKEN;
}

static int fork_choose_automatically(struct fork *fork)
{
	if ((fork->allocator.kind != ALLOCATOR_NONE && fork->allocator.gives_malloc) || fork_leaves_alone(fork))
		return 0;
	return fork_preload_kind(fork, ALLOCATOR_JEMALLOC);
}

/* The allocator that the program has, and one that it gets. */
static int fork_choose_allocator(struct fork *fork)
{
	const char *wanted = fork->malloc ? fork->malloc : "auto";

	if (allocator_look(fork->program, "", &fork->allocator)) {
		fork_say("the dynamic linker did not say what %s is linked with", fork->program);
		return LAUNCH_BROKEN;
	}
	if (fork->allocator.is_sanitized) {
		fork_say("%s is built with a sanitizer, which has to be loaded first", fork->program);
		return LAUNCH_BROKEN;
	}
	if (strcmp(wanted, "auto") == 0)
		return fork_choose_automatically(fork);
	for (int kind = ALLOCATOR_JEMALLOC; kind <= ALLOCATOR_TCMALLOC; kind++) {
		if (strcmp(wanted, allocator_name((enum allocator_kind)kind)) == 0)
			return fork_preload_kind(fork, (enum allocator_kind)kind);
	}
	if (strcmp(wanted, "none") == 0)
		return 0;
	if (strchr(wanted, '/'))
		return fork_choose_path(fork);
	fork_say("--malloc takes auto, jemalloc, mimalloc, tcmalloc, none or a path, not '%s'", wanted);
	return LAUNCH_BROKEN;
}

/* ------------------------------------------------------------------------------------------------------- start -- */

static int fork_set(const char *name, const char *value)
{
	return setenv(name, value, 1);
}

static int fork_set_preload(const struct fork *fork)
{
	const char *others = getenv("LD_PRELOAD");
	char *list = NULL;
	int error;

	if (asprintf(&list, "%s%s%s%s%s", fork->object, fork->library ? ":" : "", fork->library ? fork->library : "",
	             others && *others ? ":" : "", others ? others : "") < 0)
		return -1;
	error = fork_set("LD_PRELOAD", list);
	free(list);
	return error;
}

/* What libuffdwp-fork.so reads; its own settings.h says what each means. */
static int fork_set_environment(struct fork *fork)
{
	char name[64];
	int error = fork_set_preload(fork);

	fork->values[PRELOADED] = fork->library ? "2" : "1";
	if (fork->allocator.kind == ALLOCATOR_MIMALLOC || (fork->library && strstr(fork->library, "mimalloc")))
		fork->values[HINTS] = "1";
	if (fork->allocator.is_inside && !fork->values[FROM])
		fork->values[FROM] = "program";
	if (fork->allocator.kind == ALLOCATOR_TCMALLOC || (fork->library && strstr(fork->library, "tcmalloc")))
		error |= setenv("TCMALLOC_SKIP_SBRK", "1", 0); /* memory of sbrk(2) stays outside */
	for (size_t i = 0; i < sizeof(fork_names) / sizeof(fork_names[0]); i++) {
		(void)snprintf(name, sizeof(name), "UFFDWP_FORK_%s", fork_names[i]);
		if (fork->values[i])
			error |= fork_set(name, fork->values[i]);
	}
	return error;
}

static int fork_become(struct fork *fork)
{
	int error;

	if (fork_leaves_alone(fork)) {
		if (!fork->values[QUIET])
			fork_say("%s %s", fork->program, fork_shell_text);
	} else if (fork_set_environment(fork) != 0) {
		fork_say("no memory for the environment");
		return LAUNCH_BROKEN;
	}
	(void)fflush(stdout);
	execvp(fork->argv[0], fork->argv);
	error = errno;
	fork_say("%s: %s", fork->argv[0], strerror(error));
	return error == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_NOT_RUN;
}

/* ------------------------------------------------------------------------------------------------------- check -- */

static void fork_print(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fork_print(const char *what, const char *format, ...)
{
	char line[2048];
	char escaped[4096];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	(void)escape_text(escaped, sizeof(escaped), line, 0);
	(void)printf("%-10s %s\n", what, escaped);
}

static int fork_try_once(struct uffdwp *runtime, char *text, size_t size)
{
	int status = 0;
	struct uffdwp_fork_options options = {.sz = sizeof(options), .flags = UFFDWP_FORK_BARE};
	pid_t pid = uffdwp_fork(runtime, &options, NULL);

	if (pid == 0)
		_exit(0);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (pid > 0 && status) {
		(void)snprintf(text, size, "a child that was tried has ended by signal %d", WTERMSIG(status));
		return -ECHILD;
	}
	return pid < 0 ? (int)pid : 0;
}

/* What the program would try, in this process. */
static int fork_try(const struct fork *fork, char *text, size_t size)
{
	const char *delivery = fork->values[DELIVERY] ? fork->values[DELIVERY] : "thread";
	struct uffdwp_region_options options = {.sz = sizeof(options),
	                                        .delivery = strcmp(delivery, "inline") == 0 ? UFFDWP_DELIVERY_INLINE
	                                                                                    : UFFDWP_DELIVERY_THREAD};
	struct uffdwp_region *region = NULL;
	struct uffdwp *runtime = NULL;
	char said[REWORD_BYTES];
	int error = access_check(options.delivery, text, size);

	if (error)
		return error;
	error = uffdwp_open(NULL, &runtime);
	if (!error)
		error = uffdwp_region_create(runtime, (uint64_t)2 << 20, &options, &region);
	if (!error)
		error = fork_try_once(runtime, text, size);
	if (error && !text[0]) {
		if (!uffdwp_error_text(said, sizeof(said)))
			(void)snprintf(said, sizeof(said), "%s", strerror(-error));
		(void)reword(REWORD_FORK, said, text, size);
	}
	(void)uffdwp_region_close(region);
	(void)uffdwp_close(runtime);
	return error;
}

static void fork_print_allocator(const struct fork *fork)
{
	const char *name = allocator_name(fork->allocator.kind);

	if (fork->library)
		fork_print("malloc", "%s is preloaded", fork->library);
	else if (fork->allocator.kind == ALLOCATOR_NONE)
		fork_print("malloc",
		           "the C library's, whose memory stays outside: only what the program maps itself by mmap() "
		           "is covered; choose another by --malloc");
	else if (fork->allocator.is_inside)
		fork_print("malloc", "%s, inside of the program", name);
	else
		fork_print("malloc", "%s, linked as %s", name, fork->allocator.library);
}

/* The C library's own calls of mmap(2) pass us by. */
static int fork_covers_nothing(const struct fork *fork)
{
	return !fork->library && fork->allocator.kind == ALLOCATOR_NONE && !fork->values[FROM];
}

static int fork_overcommits(void)
{
	FILE *file = fopen("/proc/sys/vm/overcommit_memory", "re");
	int mode = 0;

	if (!file)
		return 1;
	mode = fgetc(file);
	(void)fclose(file);
	return mode != '2';
}

static int fork_check(const struct fork *fork)
{
	char text[512] = "";
	int error;

	fork_print("program", "%s can have " OBJECT " preloaded", fork->program);
	fork_print_allocator(fork);
	if (fork_leaves_alone(fork)) {
		fork_print("fork", "not the library's: %s %s", fork->program, fork_shell_text);
		return 1;
	}
	if (!fork_overcommits())
		fork_print("memory",
		           "vm.overcommit_memory is 2: jemalloc and mimalloc then map memory that stays outside");
	error = fork_try(fork, text, sizeof(text));
	if (!error && fork_covers_nothing(fork)) {
		fork_print("fork",
		           "not the library's: nothing that malloc() gives is covered. If what the program maps itself "
		           "is meant, say so by --from=all");
		return 1;
	}
	if (error)
		fork_print("fork", "not the library's here: %s", text);
	else
		fork_print("fork", "works: tried with an empty region");
	return error ? 1 : 0;
}

static int fork_prepare(struct fork *fork)
{
	int code = fork_judge_program(fork);

	if (!code)
		code = fork_find_object(fork);
	return code ? code : fork_choose_allocator(fork);
}

int run_fork(int argc, char **argv)
{
	static const struct argp argp = {fork_options, fork_parse, "[--] PROGRAM [ARGUMENT...]", fork_doc, NULL,
	                                 NULL,         NULL};
	static struct fork fork;
	int code;

	argp_err_exit_status = LAUNCH_BROKEN;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &fork) != 0)
		return LAUNCH_BROKEN;
	code = fork_prepare(&fork);
	if (!code)
		code = fork.check ? fork_check(&fork) : fork_become(&fork);
	free(fork.chosen);
	return code;
}
