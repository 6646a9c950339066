/* SPDX-License-Identifier: MIT */
/*
 * See load.h. The phase is read with acquire order: whoever leaves HOLD sees what the main thread did meanwhile.
 */
#include "load.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"

#define RECORD_BYTES 64

static const char *const pattern_names[LOAD_PATTERN_COUNT] = {"uniform", "zipf", "sequential"};

const char *load_pattern_name(enum load_pattern pattern)
{
	return pattern_names[pattern];
}

int load_pattern_of(const char *name)
{
	for (int i = 0; i < LOAD_PATTERN_COUNT; i++) {
		if (!strcmp(name, pattern_names[i]))
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
	if (load->pattern == LOAD_ZIPF)
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

static uint64_t timed_write(struct load_writer *writer)
{
	char *record = writer->load->base + pick_record(writer) * RECORD_BYTES;
	uint64_t words[RECORD_BYTES / sizeof(uint64_t)];
	uint64_t from;

	for (size_t i = 0; i < RECORD_BYTES / sizeof(uint64_t); i++)
		words[i] = writer->random + i;
	from = bench_now_ns();
	count_in_timeline(writer, from);
	if (atomic_load_explicit(&writer->load->closed, memory_order_acquire))
		wait_at_gate(writer->load);
	memcpy(record, words, sizeof(words));
	/* The store must have been issued before the clock is read again. */
	atomic_signal_fence(memory_order_seq_cst);
	return bench_minus(bench_now_ns() - from, writer->load->clock_ns);
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
	uint64_t faults = own_minor_faults();

	while (atomic_load_explicit(&writer->load->phase, memory_order_acquire) == phase) {
		uint64_t took_ns = timed_write(writer);

		if (phase < LOAD_KEPT)
			histogram_record(&writer->kept[phase], took_ns);
	}
	if (phase < LOAD_KEPT)
		writer->minor_faults[phase] += own_minor_faults() - faults;
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
	load->clock_ns = bench_clock_ns();
	load->writers = malloc(writers_bytes);
	if (!load->writers)
		bench_die("no memory for %u writers", writer_count);
	/* Touches all of it, which calloc() does not: it must not be found among the memory that a snapshot takes. */
	explicit_bzero(load->writers, writers_bytes);
	pthread_mutex_init(&load->gate, NULL);
	if (pattern == LOAD_ZIPF)
		zipf_init(&load->zipf, (uint32_t)(length_bytes / page_bytes), ZIPF_THETA, LOAD_SEED);
	load->phase = LOAD_HOLD;
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
		writer->random = LOAD_SEED + i * 0x9e3779b97f4a7c15u;
		writer->next = bench_random(&writer->random) % load->records;
		bench_must(-pthread_create(&writer->thread, NULL, write_records, writer), "a writer's thread");
	}
	load_phase(load, LOAD_HOLD);
}

void load_phase(struct load *load, enum load_phase phase)
{
	atomic_store(&load->phase, phase);
	while (phase == LOAD_HOLD && atomic_load(&load->standing) != load->writer_count)
		sched_yield();
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
	/* Who has not left yet must not be counted by the next close. */
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
