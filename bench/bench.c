/* SPDX-License-Identifier: MIT */
/*
 * The small services of bench.h. The CPUs that the program may use are read once, before any thread is pinned.
 *
 * Threads: bench_pin(), bench_now_ns() and bench_preemptions() from any; the rest from the main thread before others
 * run.
 */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { OPTION_JSON = 0x100, OPTION_CHECK, OPTION_QUICK, OPTION_BARS, OPTION_BAR };

static cpu_set_t given_cpus;

static const struct argp_option common_options[] = {
        {"json", OPTION_JSON, NULL, 0, "Print the figures as JSON instead of a table", 1},
        {"check", OPTION_CHECK, NULL, 0, "Compare with the bars: a line for each that is missed, then exit 1", 1},
        {"bars", OPTION_BARS, "FILE", 0, "The bars (default: bench/bars.txt of the source)", 1},
        {"bar", OPTION_BAR, "PATTERN", 0,
         "--check with the bars of these figures only, such as 'snapshot.*.pause_ratio_fork'", 1},
        {"quick", OPTION_QUICK, NULL, 0, "Small sizes: shows that it runs, the figures mean nothing", 1},
        {0},
};

static error_t parse_common(int key, char *argument, struct argp_state *state)
{
	struct bench_settings *settings = state->input;

	switch (key) {
	case OPTION_JSON:
		settings->json = 1;
		return 0;
	case OPTION_CHECK:
		settings->check = 1;
		return 0;
	case OPTION_BAR:
		settings->check = 1;
		settings->bar = argument;
		return 0;
	case OPTION_QUICK:
		settings->quick = 1;
		return 0;
	case OPTION_BARS:
		settings->bars = argument;
		return 0;
	case ARGP_KEY_INIT:
		settings->bars = UFFDWP_BENCH_BARS;
		return 0;
	case ARGP_KEY_END:
		if (settings->check && settings->quick)
			argp_error(state, "--check needs full sizes: leave --quick out");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp bench_argp = {common_options, parse_common, NULL, NULL, NULL, NULL, NULL};

__attribute__((format(printf, 1, 0))) static void vsay(const char *format, va_list arguments)
{
	fflush(stdout);
	fputs("uffdwp-bench: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
}

void bench_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsay(format, arguments);
	va_end(arguments);
	exit(BENCH_EXIT_ERROR);
}

void bench_skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsay(format, arguments);
	va_end(arguments);
	exit(BENCH_EXIT_SKIPPED);
}

void bench_must(int result, const char *what)
{
	if (result < 0)
		bench_die("%s: %s", what, strerror(-result));
}

void bench_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	argp_err_exit_status = BENCH_EXIT_ERROR;
	if (argp_parse(argp, argc, argv, 0, NULL, input))
		bench_die("the options cannot be parsed");
}

static void learn_cpus(void)
{
	if (CPU_COUNT(&given_cpus) == 0 && sched_getaffinity(0, sizeof(given_cpus), &given_cpus))
		bench_die("sched_getaffinity: %s", strerror(errno));
}

int bench_cpus(void)
{
	learn_cpus();
	return CPU_COUNT(&given_cpus);
}

int bench_cpu(int n)
{
	int cpu = 0;

	for (n = n % bench_cpus() + 1; n; cpu++)
		n -= CPU_ISSET((size_t)cpu, &given_cpus) ? 1 : 0;
	return cpu - 1;
}

uint64_t bench_meminfo_bytes(const char *key)
{
	FILE *file = fopen("/proc/meminfo", "re");
	size_t key_length = strlen(key);
	char line[128];
	uint64_t kib = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, key, key_length) && line[key_length] == ':')
			kib = strtoull(line + key_length + 1, NULL, 10);
	}
	if (file)
		fclose(file);
	return kib << 10;
}

void bench_pin(int cpu)
{
	cpu_set_t set;

	learn_cpus();
	CPU_ZERO(&set);
	if (cpu != BENCH_ANY_CPU)
		CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), cpu == BENCH_ANY_CPU ? &given_cpus : &set))
		bench_skip("cannot run on CPU %d: %s", cpu, strerror(errno));
}

uint64_t bench_size(const char *text)
{
	char *end;
	unsigned shift = 0;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end != '\0' && end[1] == '\0') {
		const char *units = "KMGT";
		const char *unit = strchr(units, *end);

		shift = unit ? 10 * (unsigned)(unit - units + 1) : 64;
	} else if (*end != '\0') {
		shift = 64;
	}
	if (errno || end == text || *text == '-' || shift == 64 || value == 0 || value > UINT64_MAX >> shift)
		bench_die("%s: not a size such as 64M or 1G", text);
	return (uint64_t)value << shift;
}

void bench_size_name(uint64_t bytes, char *name, size_t size)
{
	const uint64_t gib = UINT64_C(1) << 30;
	const uint64_t mib = UINT64_C(1) << 20;

	if (bytes % gib == 0)
		snprintf(name, size, "%llug", (unsigned long long)(bytes / gib));
	else if (bytes % mib == 0)
		snprintf(name, size, "%llum", (unsigned long long)(bytes / mib));
	else
		snprintf(name, size, "%llub", (unsigned long long)bytes);
}

unsigned bench_number(const char *text, unsigned most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value < 1 || value > most)
		bench_die("%s: not a number from 1 to %u", text, most);
	return (unsigned)value;
}

long bench_preemptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nivcsw;
}

uint64_t bench_clock_ns(void)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 10000; i++) {
		uint64_t from = bench_now_ns();
		uint64_t took = bench_now_ns() - from;

		if (took < least)
			least = took;
	}
	return least;
}
