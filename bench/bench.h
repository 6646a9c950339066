/* SPDX-License-Identifier: MIT */
/*
 * What all questions of the benchmark share: the clock, the CPUs, the common options, and how it ends.
 *
 * A question is one subcommand in one file. It measures its contenders in turns within one run, puts each figure into a
 * report under a systematic name (question.case.contender.figure_unit), prints a table for people, and leaves JSON and
 * the bars to the report.
 *
 * A benchmark that cannot measure what it says must not print a figure: whatever fails ends the program, by bench_die()
 * (exit 2) or, where this machine lacks something, by bench_skip() (exit 77). Exit 1 means that a bar was missed.
 */
#ifndef UFFDWP_BENCH_BENCH_H
#define UFFDWP_BENCH_BENCH_H

#include <argp.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define BENCH_EXIT_MISSED 1
#define BENCH_EXIT_ERROR 2
#define BENCH_EXIT_SKIPPED 77

#define BENCH_ANY_CPU (-1)

/* Options that every question takes. */
struct bench_settings {
	int json;
	int check;
	int quick;
	const char *bars; /* path of the bars */
	const char *bar;  /* check these figures only: a pattern of the shell; NULL: all */
};

/* Parses the common options; a child of each question's parser, whose input is a struct bench_settings. */
extern const struct argp bench_argp;

/* Parses `argv` with the question's own options and the common ones; refuses --check with --quick. */
void bench_parse(const struct argp *argp, int argc, char **argv, void *input);

_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void bench_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* bench_die() with what and the text of the error where result is a negative errno. */
void bench_must(int result, const char *what);

/* Runs the calling thread (and threads that it starts later) on one CPU, or on all that the program was given. */
void bench_pin(int cpu);

/* How many CPUs the program was given, and the number of the n-th of them (0 is the first). */
int bench_cpus(void);
int bench_cpu(int n);

/* A size such as 64M or 1G; bench_die() for anything else. */
uint64_t bench_size(const char *text);

/* The name of a size in figures: "1g", "256m"; below a MiB in bytes. */
void bench_size_name(uint64_t bytes, char *name, size_t size);

/* A number from 1 to `most`, or the end with a message. */
unsigned bench_number(const char *text, unsigned most);

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* How often the calling thread had to leave its CPU against its will. */
long bench_preemptions(void);

/* What two calls of the clock cost one after the other: to be taken off each measured time. */
uint64_t bench_clock_ns(void);

/* A line of /proc/meminfo, in bytes; 0: it is not there. */
uint64_t bench_meminfo_bytes(const char *key);

/* a - b, or 0. */
static inline uint64_t bench_minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* xorshift64*: G. Marsaglia's generator; *state is never 0. */
static inline uint64_t bench_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1du;
}

/* The questions. */
int faults_main(int argc, char **argv);
int handlers_main(int argc, char **argv);
int snapshot_main(int argc, char **argv);
int disk_main(int argc, char **argv);
int track_main(int argc, char **argv);
int gc_main(int argc, char **argv);
int fork_main(int argc, char **argv);
int redis_main(int argc, char **argv);
int serve_main(int argc, char **argv);

#endif
