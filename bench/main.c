/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-bench: asks one question at a time. This file knows their names only; each parses its own options.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

struct question {
	const char *name;
	const char *about;
	int (*run)(int argc, char **argv);
};

static const struct question questions[] = {
        {"faults", "the first write to an armed page: the library by each mechanism, against the bare calls",
         faults_main},
        {"handlers", "how many handler threads, and on which CPUs", handlers_main},
        {"snapshot", "a live snapshot: the library against fork() and what one could write by hand", snapshot_main},
        {"disk", "an undisturbed image, and back: as fast as dd on the same disk?", disk_main},
        {"track", "which pages were written: the library against the bare ioctl and the older methods", track_main},
        {"fork", "a child that has all memory: uffdwp_fork() against fork()", fork_main},
        {"redis", "redis-server's saves: plain, and under uffdwp-ctl fork", redis_main},
        {"serve", "faults of another process: by the library, and by a loop written by hand", serve_main},
        {"gc", "a garbage collector's pauses: with the library's write barrier, with its own, with none", gc_main},
};

#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

static void help(FILE *to)
{
	fputs("Usage: uffdwp-bench QUESTION [OPTION...]\n\nQuestions:\n", to);
	for (size_t i = 0; i < QUESTIONS; i++)
		fprintf(to, "  %-10s %s\n", questions[i].name, questions[i].about);
	fputs("\nuffdwp-bench QUESTION --help lists its options. bench/README.md says how to read the answers.\n"
	      "Exit: 0 measured (and every bar held), 1 a bar was missed, 2 an error, 77 this machine lacks "
	      "something.\n",
	      to);
}

/* Also after --help, which ends inside of argp. Figures that were not written are no success. */
static void close_output(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return;
	fputs("uffdwp-bench: the output could not be written\n", stderr);
	_exit(BENCH_EXIT_ERROR);
}

int main(int argc, char **argv)
{
	atexit(close_output);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?") || !strcmp(argv[1], "help"))) {
		help(stdout);
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < QUESTIONS; i++) {
		if (!strcmp(argv[1], questions[i].name))
			return questions[i].run(argc - 1, argv + 1);
	}
	help(stderr);
	return BENCH_EXIT_ERROR;
}
