/* SPDX-License-Identifier: MIT */
/*
 * Part `write`: what a write costs that is the first to its page since the last collect, by each mechanism of a track,
 * against the bare async fault: a userfaultfd with WP_ASYNC that was armed by PAGEMAP_SCAN, no library near.
 *
 * All take turns in windows (contender.h); arming is the collect of each, untimed. Three times, between which the async
 * side, the bare one and its twin change places, so that where memory lies matters to none. The answer of each collect
 * must have every page that was written, and a region must have counted one fault for each: nothing else was timed.
 * Mechanisms with faults track a region; a handler thread, where there is one, runs on the writer's CPU. Soft-dirty
 * clears the soft-dirty bits of the whole process, which would cost all others a fault each: it is measured after them,
 * beside a bare rival of its own.
 */
#include <stdio.h>
#include <string.h>

#include "contender.h"
#include "report.h"
#include "track.h"

#define ROWS_MAX 12

struct row {
	const char *name;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
};

/* What the bars are about comes first. */
static const struct row region_rows[] = {
        {"marker_inline", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_INLINE},
        {"marker_thread", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_THREAD},
        {"rearm_inline", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_INLINE},
        {"rearm_thread", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD},
        {"minor_inline", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_INLINE},
        {"minor_thread", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_THREAD},
        {"mprotect_inline", UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE},
};

enum { FIRST, BARE, AGAIN, REGIONS };

/* `library` is what the contender's functions know as self. */
struct tracked {
	struct library library;
	struct uffdwp_track *track;
	void (*close)(void *self);
};

static struct {
	const struct track_settings *settings;
	enum uffdwp_memory memory;
	int soft_dirty;
	size_t count;
	struct contender contenders[ROWS_MAX];
	struct area areas[REGIONS];           /* where the collectors work, in turns */
	struct collector collectors[REGIONS]; /* those without a region */
	struct tracked tracked[ROWS_MAX];
	struct histogram all[ROWS_MAX];
	uint64_t judged[ROWS_MAX]; /* writes of this attempt that are in an answer */
	uint64_t writes;           /* of each, in all attempts */
	unsigned attempts;
} field;

static uint64_t writes_of(size_t i)
{
	return field.contenders[i].hist[ORDER_SEQUENTIAL].count + field.contenders[i].hist[ORDER_RANDOM].count;
}

/* An answer must have each page that was written since the last; a round writes each once. */
static void judge(size_t i, uint64_t bytes)
{
	const struct contender *contender = &field.contenders[i];
	uint64_t written = (writes_of(i) - field.judged[i]) * contender->area.page_bytes;

	if (bytes < written)
		bench_die("%s: %llu bytes were written, the answer has %llu", contender->name,
		          (unsigned long long)written, (unsigned long long)bytes);
	field.judged[i] = writes_of(i);
}

static void nothing(void *self)
{
	(void)self;
}

/* ------------------------------------------------------------------------- collectors, which the kernel arms -- */

static void arm_collector(void *self)
{
	struct collector *collector = self;

	judge((size_t)(collector - field.collectors), collector->collect(collector));
}

static void close_collector(void *self)
{
	collector_close(self);
}

static void set_up_collector(size_t i, const char *name)
{
	struct contender *contender = &field.contenders[i];

	memset(contender, 0, sizeof(*contender));
	area_map_touched(&field.areas[i], field.memory, field.settings->written_bytes);
	contender->name = name;
	contender->area = field.areas[i];
	contender->self = &field.collectors[i];
	contender->arm = arm_collector;
	contender->enter = nothing;
	contender->close = close_collector;
}

static void open_collectors(unsigned turn)
{
	for (size_t i = 0; i < REGIONS; i++) {
		struct collector_setup setup = {.vector = field.settings->vector, .soft_dirty = field.soft_dirty};

		field.contenders[i].area = field.areas[track_place(i, turn)];
		collector_whole(&setup, &field.contenders[i].area);
		if (i == FIRST)
			collector_open_library(&field.collectors[i], &setup);
		else
			collector_open_bare(&field.collectors[i], &setup);
		field.judged[i] = writes_of(i);
	}
}

static void close_collectors(void)
{
	for (size_t i = 0; i < REGIONS; i++)
		field.contenders[i].close(field.contenders[i].self);
}

/* ---------------------------------------------------------------------------------------------------- regions -- */

static void arm_region(void *self)
{
	struct tracked *tracked = self;
	struct uffdwp_collect call = UFFDWP_COLLECT_INIT;

	bench_must(uffdwp_track_collect(tracked->track, &call), "uffdwp_track_collect");
	judge((size_t)(tracked - field.tracked), call.bytes);
}

static void close_region(void *self)
{
	struct tracked *tracked = self;

	library_expect_faults(&tracked->library, field.writes);
	bench_must(uffdwp_track_stop(tracked->track), "uffdwp_track_stop");
	tracked->close(self);
}

static void open_region(size_t i, const struct row *row)
{
	struct tracked *tracked = &field.tracked[i];
	struct contender *contender = &field.contenders[i];
	struct library_setup setup = {
	        .memory = field.memory,
	        .mechanism = row->mechanism,
	        .delivery = row->delivery,
	        .handler_threads = 1,
	        .cpu = bench_cpu(0),
	        .length_bytes = field.settings->written_bytes,
	};

	memset(tracked, 0, sizeof(*tracked));
	contender_library(contender, row->name, &tracked->library, &setup);
	bench_must(uffdwp_track_start(tracked->library.runtime, NULL, &tracked->track), "uffdwp_track_start");
	bench_must(uffdwp_track_add(tracked->track, contender->area.base, contender->area.length_bytes, 0),
	           "uffdwp_track_add");
	tracked->close = contender->close;
	contender->arm = arm_region;
	contender->close = close_region;
}

/* ---------------------------------------------------------------------------------------------------- the field -- */

static void say_missing(const char *name, const char *reason)
{
	fprintf(field.settings->common.json ? stderr : stdout, "%-16s not offered here: %s\n", name, reason);
}

static void set_up_bare_field(const char *first, int soft_dirty)
{
	field.soft_dirty = soft_dirty;
	set_up_collector(FIRST, first);
	set_up_collector(BARE, "bare");
	set_up_collector(AGAIN, "bare_again");
	field.count = REGIONS;
	field.writes = 0;
	field.attempts = 0;
}

/* All are the library's, which installs its handlers once: no side may put back what was there before. */
static void keep_handlers(void)
{
	for (size_t i = REGIONS; i < field.count; i++) {
		sigaction(SIGBUS, NULL, &field.tracked[i].library.bus);
		sigaction(SIGSEGV, NULL, &field.tracked[i].library.segment);
	}
}

static void open_region_rows(void)
{
	for (size_t i = 0; i < sizeof(region_rows) / sizeof(region_rows[0]); i++) {
		const struct row *row = &region_rows[i];
		const char *reason = library_refuses(field.memory, row->mechanism, row->delivery);

		if (reason)
			say_missing(row->name, reason);
		else
			open_region(field.count++, row);
	}
	keep_handlers();
}

static double quantile_ratio(size_t i, double quantile)
{
	return histogram_quantile(&field.all[i], quantile) / histogram_quantile(&field.all[BARE], quantile);
}

/* How far the bare rival is from itself. */
static double noise(void)
{
	double ratio = quantile_ratio(AGAIN, 0.5);

	return ratio < 1 ? 1 / ratio - 1 : ratio - 1;
}

static void measure_turn(unsigned turn)
{
	const struct area *area = &field.contenders[0].area;

	bench_pin(BENCH_ANY_CPU);
	open_collectors(turn);
	bench_pin(bench_cpu(0));
	contender_measure(field.contenders, field.count, field.settings->write_rounds);
	close_collectors();
	field.writes += field.settings->write_rounds * (area->length_bytes / area->page_bytes);
}

static void measure_once(void)
{
	for (size_t i = 0; i < field.count; i++) {
		for (int order = 0; order < ORDER_COUNT; order++)
			histogram_clear(&field.contenders[i].hist[order]);
		field.judged[i] = 0;
	}
	for (unsigned turn = 0; turn < DUEL_TURNS; turn++)
		measure_turn(turn);
	for (size_t i = 0; i < field.count; i++)
		contender_merged(&field.contenders[i], &field.all[i]);
	field.attempts++;
}

static const struct {
	const char *name;
	double quantile;
} quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};

#define QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

static void print_row(size_t i)
{
	printf("%-6s %-16s", area_memory_name(field.memory), field.contenders[i].name);
	for (size_t k = 0; k < QUANTILES; k++)
		printf(" %9.2f", histogram_quantile(&field.all[i], quantiles[k].quantile) / 1e3);
	for (size_t k = 0; i != BARE && k < QUANTILES; k++)
		printf(" %9.3f", quantile_ratio(i, quantiles[k].quantile));
	if (i == AGAIN && noise() > 0.10)
		printf("  noise in attempt %u: cannot resolve 10 %%", field.attempts);
	else if (i == AGAIN && field.attempts > 1)
		printf("  attempt %u, for noise", field.attempts);
	printf("\n");
}

static void report_row(struct report *report, const char *prefix, size_t i)
{
	const char *name = field.contenders[i].name;

	for (size_t k = 0; k < QUANTILES; k++)
		report_add(report, histogram_quantile(&field.all[i], quantiles[k].quantile), "%s.%s.%s_ns", prefix,
		           name, quantiles[k].name);
	for (size_t k = 0; i != BARE && k < QUANTILES; k++)
		report_add(report, quantile_ratio(i, quantiles[k].quantile), "%s.%s.%s_ratio_bare", prefix, name,
		           quantiles[k].name);
}

/* Measures what is open, again while the noise is too large, and closes it. */
static void measure_field(struct report *report, const char *part)
{
	char prefix[48];

	snprintf(prefix, sizeof(prefix), "%s.%s", part, area_memory_name(field.memory));
	do
		measure_once();
	while (noise() > 0.10 && field.attempts < DUEL_ATTEMPTS && bench_now_ns() < field.settings->retry_until_ns);
	for (size_t i = 0; i < field.count; i++) {
		report_row(report, prefix, i);
		if (!field.settings->common.json)
			print_row(i);
	}
	report_add(report, noise(), "%s.noise", prefix);
	report_add(report, field.attempts, "%s.attempts", prefix);
	for (size_t i = field.count; i-- > REGIONS;)
		field.contenders[i].close(field.contenders[i].self);
	for (size_t i = 0; i < REGIONS; i++)
		area_unmap(&field.areas[i]);
}

static void measure_soft_dirty(struct report *report)
{
	const char *reason = collector_soft_dirty_refused();

	if (reason) {
		say_missing("soft_dirty", reason);
		return;
	}
	set_up_bare_field("soft_dirty", 1);
	measure_field(report, "write_soft_dirty");
}

void track_write(struct report *report, const struct track_settings *settings)
{
	static const enum uffdwp_memory memories[] = {UFFDWP_MEMORY_ANON, UFFDWP_MEMORY_SHMEM};

	field.settings = settings;
	if (!settings->common.json)
		printf("\nwrite: the first write to a page after a collect, microseconds, and over the bare async "
		       "fault\n"
		       "%-6s %-16s %9s %9s %9s %9s %9s %9s\n",
		       "memory", "side", "p50", "p99", "p99.9", "p50/bare", "p99/bare", "p99.9/b.");
	for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++) {
		if (!(settings->memories >> memories[i] & 1))
			continue;
		field.memory = memories[i];
		bench_pin(BENCH_ANY_CPU);
		set_up_bare_field("async", 0);
		open_region_rows();
		measure_field(report, "write");
	}
	field.memory = UFFDWP_MEMORY_ANON;
	measure_soft_dirty(report);
}
