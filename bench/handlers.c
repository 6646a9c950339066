/* SPDX-License-Identifier: MIT */
/*
 * Question: how many handler threads should a runtime have, and where should they run? The library's defaults follow
 * from this measurement.
 *
 * Each setting has a runtime with one region for each of two writers, which are pinned to the first two CPUs and write
 * their armed pages in random order at the same time. The settings take turns within each round. Figures: the latency
 * of a write, and the faults per second of both writers together.
 *
 * Threads: the writers of a round are started for it; handlers sleep while it is not their turn.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "contender.h"
#include "report.h"

#define WRITERS 2

enum cpus { CPUS_ANY, CPUS_FIRST, CPUS_SECOND };

struct setting {
	const char *name;
	uint32_t handler_threads;
	enum cpus cpus;
};

static const struct setting settings_measured[] = {
        {"one_any", 1, CPUS_ANY},       {"two_any", 2, CPUS_ANY},     {"one_first", 1, CPUS_FIRST},
        {"one_second", 1, CPUS_SECOND}, {"two_first", 2, CPUS_FIRST},
};

#define SETTINGS (sizeof(settings_measured) / sizeof(settings_measured[0]))

struct writer {
	struct uffdwp_region *region;
	struct area area;
	uint32_t *order;
	pthread_t thread;
	pthread_barrier_t *start;
	int cpu;
	uint64_t clock_ns;
	uint64_t from_ns;
	uint64_t until_ns;
	struct histogram times;
};

struct subject {
	struct uffdwp *runtime;
	struct writer writers[WRITERS];
	uint64_t busy_ns; /* with a single writer, and with both */
	uint64_t busy_alone_ns;
	struct histogram alone;
};

struct settings {
	struct bench_settings common;
	uint64_t size_bytes;
	unsigned rounds;
};

enum { KEY_SIZE = 's', KEY_ROUNDS = 'r' };

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES", 0, "Size of each region (default 16M)", 0},
        {"rounds", KEY_ROUNDS, "N", 0, "Times that all pages are written (default 6)", 0},
        {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_SIZE:
		settings->size_bytes = bench_size(argument);
		return 0;
	case KEY_ROUNDS:
		settings->rounds = bench_number(argument, 10000);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {options,  parse, NULL, "How many handler threads, and on which CPUs.",
                                 children, NULL,  NULL};

static void open_subject(struct subject *subject, const struct setting *setting, uint64_t size_bytes)
{
	struct library_setup setup = {.memory = UFFDWP_MEMORY_SHMEM, .length_bytes = size_bytes};
	char cpus[16];

	memset(subject, 0, sizeof(*subject));
	snprintf(cpus, sizeof(cpus), "%d", bench_cpu(setting->cpus == CPUS_SECOND ? 1 : 0));
	subject->runtime = library_runtime(setting->handler_threads, setting->cpus == CPUS_ANY ? NULL : cpus);
	for (int i = 0; i < WRITERS; i++) {
		struct writer *writer = &subject->writers[i];
		size_t pages;

		library_region(subject->runtime, &setup, &writer->region, &writer->area);
		pages = writer->area.length_bytes / writer->area.page_bytes;
		writer->order = calloc(pages, sizeof(*writer->order));
		if (!writer->order)
			bench_die("no memory for an order of pages");
		writer->cpu = bench_cpu(i);
		writer->clock_ns = bench_clock_ns();
		contender_shuffle(writer->order, pages, (uint64_t)i + 1);
	}
}

static void close_subject(struct subject *subject)
{
	for (int i = 0; i < WRITERS; i++) {
		free(subject->writers[i].order);
		bench_must(uffdwp_region_close(subject->writers[i].region), "uffdwp_region_close");
	}
	bench_must(uffdwp_close(subject->runtime), "uffdwp_close");
}

static void *write_pages(void *argument)
{
	struct writer *writer = argument;
	size_t pages = writer->area.length_bytes / writer->area.page_bytes;

	bench_pin(writer->cpu);
	pthread_barrier_wait(writer->start);
	writer->from_ns = bench_now_ns();
	for (size_t i = 0; i < pages; i++) {
		volatile char *byte = writer->area.base + writer->order[i] * writer->area.page_bytes;
		uint64_t from = bench_now_ns();

		*byte = (char)i;
		histogram_record(&writer->times, bench_minus(bench_now_ns() - from, writer->clock_ns));
	}
	writer->until_ns = bench_now_ns();
	return NULL;
}

/* The first `count` writers at once. How long it took. */
static uint64_t write_at_once(struct subject *subject, unsigned count)
{
	pthread_barrier_t start;
	uint64_t from_ns = UINT64_MAX;
	uint64_t until_ns = 0;

	pthread_barrier_init(&start, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		struct writer *writer = &subject->writers[i];

		bench_must(uffdwp_region_arm(writer->region, 0, writer->area.length_bytes), "uffdwp_region_arm");
		writer->start = &start;
	}
	for (unsigned i = 0; i < count; i++)
		bench_must(-pthread_create(&subject->writers[i].thread, NULL, write_pages, &subject->writers[i]),
		           "a writer's thread");
	for (unsigned i = 0; i < count; i++) {
		const struct writer *writer = &subject->writers[i];

		pthread_join(writer->thread, NULL);
		from_ns = writer->from_ns < from_ns ? writer->from_ns : from_ns;
		until_ns = writer->until_ns > until_ns ? writer->until_ns : until_ns;
	}
	pthread_barrier_destroy(&start);
	return until_ns - from_ns;
}

static void measure_turn(struct subject *subject)
{
	struct histogram *first = &subject->writers[0].times;
	static struct histogram kept;

	kept = *first;
	histogram_clear(first);
	subject->busy_alone_ns += write_at_once(subject, 1);
	histogram_merge(&subject->alone, first);
	*first = kept;
	subject->busy_ns += write_at_once(subject, WRITERS);
}

static void report_times(struct report *report, int silent, const char *name, const struct histogram *times,
                         uint64_t busy_ns)
{
	double per_s = (double)times->count * 1e9 / (double)busy_ns;

	report_add(report, histogram_quantile(times, 0.5), "%s.p50_ns", name);
	report_add(report, histogram_quantile(times, 0.99), "%s.p99_ns", name);
	report_add(report, per_s, "%s.faults_per_s", name);
	if (!silent)
		printf("  %9.2f %9.2f %9.0f", histogram_quantile(times, 0.5) / 1e3,
		       histogram_quantile(times, 0.99) / 1e3, per_s);
}

static void report_subject(struct report *report, int silent, const struct setting *setting, struct subject *subject)
{
	char name[48];

	if (!silent)
		printf("%-12s", setting->name);
	snprintf(name, sizeof(name), "%s.one_writer", setting->name);
	report_times(report, silent, name, &subject->alone, subject->busy_alone_ns);
	histogram_merge(&subject->writers[0].times, &subject->writers[1].times);
	snprintf(name, sizeof(name), "%s.two_writers", setting->name);
	report_times(report, silent, name, &subject->writers[0].times, subject->busy_ns);
	if (!silent)
		printf("\n");
}

static void measure(struct report *report, const struct settings *settings)
{
	static struct subject subjects[SETTINGS];

	for (size_t i = 0; i < SETTINGS; i++)
		open_subject(&subjects[i], &settings_measured[i], settings->size_bytes);
	for (unsigned round = 0; round < settings->rounds; round++) {
		for (size_t i = 0; i < SETTINGS; i++)
			measure_turn(&subjects[i]);
	}
	for (size_t i = 0; i < SETTINGS; i++) {
		report_subject(report, settings->common.json, &settings_measured[i], &subjects[i]);
		close_subject(&subjects[i]);
	}
}

int handlers_main(int argc, char **argv)
{
	struct settings settings = {.size_bytes = 16 << 20, .rounds = 6};
	struct report report;
	int code;

	bench_parse(&argp, argc, argv, &settings);
	if (bench_cpus() < WRITERS)
		bench_skip("needs %d CPUs", WRITERS);
	if (settings.common.quick) {
		settings.rounds = 1;
		settings.size_bytes = 1 << 20;
	}
	if (settings.rounds < 1)
		bench_die("at least 1 round");
	report_init(&report, "handlers");
	report_note(&report, "memory", "shmem, a region of %llu KiB for each writer, %u rounds",
	            (unsigned long long)settings.size_bytes >> 10, settings.rounds);
	report_note(&report, "placement", "writers on CPU %d and %d; handlers any, or on the first or second of these",
	            bench_cpu(0), bench_cpu(1));
	if (!settings.common.json) {
		report_print_notes(&report);
		printf("\n%-12s  %-29s  %-29s\n%-12s  %9s %9s %9s  %9s %9s %9s\n", "", "one writer", "two writers",
		       "handlers", "p50 us", "p99 us", "faults/s", "p50 us", "p99 us", "faults/s");
	}
	measure(&report, &settings);
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
