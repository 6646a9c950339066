/* SPDX-License-Identifier: MIT */
/*
 * See load.h. The phase is read with acquire order: a writer that leaves HOLD sees what the main thread did meanwhile.
 */
#include "load.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"
#include "window.h"

#define RECORD_BYTES 64

static const struct {
	const char *name;
	uint64_t writes_per_s;
} patterns[LOAD_PATTERN_COUNT] = {
        [LOAD_UNIFORM] = {"uniform", 0},
        [LOAD_ZIPF] = {"zipf", 0},
        [LOAD_SEQUENTIAL] = {"sequential", 0},
        [LOAD_PACED_20K] = {"paced_20k", 20000},
        [LOAD_PACED_100K] = {"paced_100k", 100000},
};

const char *load_pattern_name(enum load_pattern pattern)
{
	return patterns[pattern].name;
}

uint64_t load_pattern_rate(enum load_pattern pattern)
{
	return patterns[pattern].writes_per_s;
}

int load_pattern_of(const char *name)
{
	for (int i = 0; i < LOAD_PATTERN_COUNT; i++) {
		if (!strcmp(name, patterns[i].name))
			return i;
	}
	return -1;
}

static uint64_t own_minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (uint64_t)usage.ru_minflt;
}

static uint64_t pick_record(struct load_writer *writer)
{
	const struct load *load = writer->load;

	if (load->pattern == LOAD_UNIFORM)
		return (uint64_t)(((unsigned __int128)bench_random(&writer->random) * load->records) >> 64);
	if (load->pattern != LOAD_SEQUENTIAL)
		return zipf_draw(&load->zipf, &writer->random) * load->page_records +
		       bench_random(&writer->random) % load->page_records;
	writer->next = writer->next + 1 == load->records ? 0 : writer->next + 1;
	return writer->next;
}

static void wait_at_gate(struct load *load)
{
	atomic_fetch_add(&load->waiting, 1);
	pthread_mutex_lock(&load->gate);
	pthread_mutex_unlock(&load->gate);
	atomic_fetch_sub(&load->waiting, 1);
}

static void count_in_timeline(struct load_writer *writer, uint64_t at_ns)
{
	uint64_t slot = (at_ns - writer->load->origin_ns) >> LOAD_SLOT_SHIFT;

	if (slot < LOAD_SLOTS)
		writer->timeline[slot]++;
}

struct write_times {
	uint64_t from_ns;
	uint64_t done_ns;
};

static struct write_times timed_write(struct load_writer *writer)
{
	char *record = writer->load->base + pick_record(writer) * RECORD_BYTES;
	uint64_t words[RECORD_BYTES / sizeof(uint64_t)];
	struct write_times times;

	for (size_t i = 0; i < RECORD_BYTES / sizeof(uint64_t); i++)
		words[i] = writer->random + i;
	times.from_ns = bench_now_ns();
	count_in_timeline(writer, times.from_ns);
	if (atomic_load_explicit(&writer->load->closed, memory_order_acquire))
		wait_at_gate(writer->load);
	memcpy(record, words, sizeof(words));
	/* The store must have been issued before the clock is read again. */
	atomic_signal_fence(memory_order_seq_cst);
	times.done_ns = bench_now_ns();
	return times;
}

static void count_in_window(struct load_writer *writer, uint64_t done_ns)
{
	uint64_t from_ns = atomic_load_explicit(&writer->load->window_from_ns, memory_order_relaxed);
	uint64_t until_ns = atomic_load_explicit(&writer->load->window_until_ns, memory_order_relaxed);

	writer->window += (uint64_t)window_holds(from_ns, until_ns, done_ns);
}

/* From now on the thread's faults are those of `phase`. */
static void count_faults(struct load_writer *writer, unsigned phase)
{
	uint64_t faults;

	if (phase == writer->phase)
		return;
	faults = own_minor_faults();
	if (writer->phase < LOAD_KEPT)
		writer->minor_faults[writer->phase] += faults - writer->faults_before;
	writer->phase = phase;
	writer->faults_before = faults;
}

static void stand_still(struct load *load)
{
	atomic_fetch_add(&load->standing, 1);
	while (atomic_load_explicit(&load->phase, memory_order_acquire) == LOAD_HOLD)
		sched_yield();
	atomic_fetch_sub(&load->standing, 1);
}

static void write_in_phase(struct load_writer *writer, unsigned phase)
{
	count_faults(writer, phase);
	while (atomic_load_explicit(&writer->load->phase, memory_order_acquire) == phase) {
		struct write_times times = timed_write(writer);

		count_in_window(writer, times.done_ns);
		if (phase < LOAD_KEPT)
			histogram_record(&writer->kept[phase],
			                 bench_minus(times.done_ns - times.from_ns, writer->load->clock_ns));
	}
	count_faults(writer, LOAD_HOLD);
}

/* 1: it is due. 0: writers were to stand still, or to end, before it was. */
static int wait_until_due(const struct load *load, uint64_t due_ns)
{
	for (;;) {
		unsigned phase = atomic_load_explicit(&load->phase, memory_order_acquire);

		if (phase >= LOAD_HOLD && due_ns >= atomic_load_explicit(&load->since_ns[phase], memory_order_relaxed))
			return 0;
		if (bench_now_ns() >= due_ns)
			return 1;
	}
}

/* Until the writers are to stand still, through all phases. */
static void write_by_rate(struct load_writer *writer)
{
	struct load *load = writer->load;
	uint64_t origin_ns = atomic_load_explicit(&load->started_ns, memory_order_relaxed);
	uint64_t due_ns = origin_ns;

	for (uint64_t number = 1; wait_until_due(load, due_ns); number++) {
		unsigned phase = load_phase_at(load, due_ns);
		struct write_times times;

		count_faults(writer, phase);
		times = timed_write(writer);
		count_in_window(writer, times.done_ns);
		if (phase < LOAD_KEPT)
			histogram_record(&writer->kept[phase], bench_minus(times.done_ns - due_ns, load->clock_ns));
		due_ns = window_due_ns(origin_ns, number, load->writes_per_s);
	}
	count_faults(writer, LOAD_HOLD);
}

static void *write_records(void *argument)
{
	struct load_writer *writer = argument;
	struct load *load = writer->load;
	unsigned phase;

	bench_pin(bench_cpu((int)writer->number));
	while ((phase = atomic_load_explicit(&load->phase, memory_order_acquire)) != LOAD_END) {
		if (phase == LOAD_HOLD)
			stand_still(load);
		else if (load->writes_per_s)
			write_by_rate(writer);
		else
			write_in_phase(writer, phase);
	}
	return NULL;
}

static void init(struct load *load, enum load_pattern pattern, char *base, size_t length_bytes, unsigned writer_count)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	size_t writers_bytes = writer_count * sizeof(*load->writers);

	memset(load, 0, sizeof(*load));
	load->base = base;
	load->records = length_bytes / RECORD_BYTES;
	load->page_records = page_bytes / RECORD_BYTES;
	load->pattern = pattern;
	load->writes_per_s = load_pattern_rate(pattern);
	load->clock_ns = bench_clock_ns();
	load->writers = malloc(writers_bytes);
	if (!load->writers)
		bench_die("no memory for %u writers", writer_count);
	/* Touches all of it, which calloc() does not: it must not be found among the memory that a snapshot takes. */
	explicit_bzero(load->writers, writers_bytes);
	pthread_mutex_init(&load->gate, NULL);
	if (pattern == LOAD_ZIPF || load->writes_per_s)
		zipf_init(&load->zipf, (uint32_t)(length_bytes / page_bytes), ZIPF_THETA, LOAD_SEED);
	load->phase = LOAD_HOLD;
	load->window_from_ns = UINT64_MAX;
	load->origin_ns = bench_now_ns();
}

void load_start(struct load *load, enum load_pattern pattern, char *base, size_t length_bytes, unsigned writer_count)
{
	init(load, pattern, base, length_bytes, writer_count);
	load->writer_count = writer_count;
	for (unsigned i = 0; i < writer_count; i++) {
		struct load_writer *writer = &load->writers[i];

		writer->load = load;
		writer->number = i;
		writer->phase = LOAD_HOLD;
		writer->random = LOAD_SEED + i * 0x9e3779b97f4a7c15u;
		writer->next = bench_random(&writer->random) % load->records;
		bench_must(-pthread_create(&writer->thread, NULL, write_records, writer), "a writer's thread");
	}
	load_phase(load, LOAD_HOLD);
}

unsigned load_phase_at(const struct load *load, uint64_t at_ns)
{
	unsigned found = LOAD_HOLD;
	uint64_t latest_ns = 0;

	for (unsigned phase = 0; phase < LOAD_PHASES; phase++) {
		uint64_t since_ns = atomic_load_explicit(&load->since_ns[phase], memory_order_relaxed);

		if (since_ns > latest_ns && since_ns <= at_ns) {
			latest_ns = since_ns;
			found = phase;
		}
	}
	return found;
}

/* A writer that sees one of the two bounds old finds no window. */
void load_open_window(struct load *load, uint64_t from_ns, uint64_t length_ns)
{
	atomic_store(&load->window_from_ns, UINT64_MAX);
	atomic_store(&load->window_until_ns, from_ns + length_ns);
	atomic_store(&load->window_from_ns, from_ns);
}

uint64_t load_window_writes(const struct load *load)
{
	uint64_t writes = 0;

	for (unsigned i = 0; i < load->writer_count; i++)
		writes += load->writers[i].window;
	return writes;
}

void load_phase(struct load *load, enum load_phase phase)
{
	unsigned former = atomic_load(&load->phase);
	uint64_t now_ns = bench_now_ns();

	if (former == LOAD_HOLD && phase != LOAD_HOLD)
		atomic_store(&load->started_ns, now_ns);
	atomic_store(&load->since_ns[phase], now_ns);
	atomic_store(&load->phase, phase);
	if (phase == LOAD_HOLD)
		load->hold_seen_ns = bench_now_ns();
	while (phase == LOAD_HOLD && atomic_load(&load->standing) != load->writer_count)
		sched_yield();
	while (former == LOAD_HOLD && phase != LOAD_HOLD && atomic_load(&load->standing))
		sched_yield();
}

uint64_t load_due_writes(const struct load *load, uint64_t *most)
{
	uint64_t from_ns = load->started_ns;

	*most = load->writer_count * window_due_count(from_ns, load->hold_seen_ns, load->writes_per_s);
	return load->writer_count * window_due_count(from_ns, load->since_ns[LOAD_HOLD], load->writes_per_s);
}

void load_close_gate(struct load *load)
{
	pthread_mutex_lock(&load->gate);
	atomic_store(&load->closed, 1);
	while (atomic_load(&load->waiting) + atomic_load(&load->standing) != load->writer_count)
		sched_yield();
}

void load_open_gate(struct load *load)
{
	atomic_store(&load->closed, 0);
	pthread_mutex_unlock(&load->gate);
	/* A writer that has not left yet must not be counted by the next close. */
	while (atomic_load(&load->waiting))
		sched_yield();
}

uint64_t load_timeline(const struct load *load, size_t slot)
{
	uint64_t writes = 0;

	for (unsigned i = 0; i < load->writer_count; i++)
		writes += load->writers[i].timeline[slot];
	return writes;
}

void load_forget(struct load *load, enum load_phase phase)
{
	for (unsigned i = 0; i < load->writer_count; i++) {
		histogram_clear(&load->writers[i].kept[phase]);
		load->writers[i].minor_faults[phase] = 0;
	}
}

void load_stop(struct load *load)
{
	load_phase(load, LOAD_END);
	for (unsigned i = 0; i < load->writer_count; i++)
		pthread_join(load->writers[i].thread, NULL);
}

void load_result(const struct load *load, enum load_phase phase, struct load_result *result)
{
	memset(result, 0, sizeof(*result));
	for (unsigned i = 0; i < load->writer_count; i++) {
		histogram_merge(&result->times, &load->writers[i].kept[phase]);
		result->minor_faults += load->writers[i].minor_faults[phase];
	}
}

void load_free(struct load *load)
{
	free(load->writers);
	load->writers = NULL;
	zipf_fini(&load->zipf);
	pthread_mutex_destroy(&load->gate);
}
