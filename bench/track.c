/* SPDX-License-Identifier: MIT */
/*
 * Question: what does it cost to know which pages were written since the last time, and how much of that is the
 * library's?
 *
 * Parts: `collect` (the call that reports and arms again), `pieces` (the same of 10,000 ranges), `write` (the first
 * write to a page afterwards), `cycle` (write 1 % and collect, by every means). What a part compares takes turns within
 * one run: duel.h says how, and what becomes of noise; contender.h for single writes.
 *
 * Placement: all that is timed runs on the first CPU of the program. Under async no other thread takes part; handler
 * threads of the mechanisms that have faults run on that CPU, too.
 */
#include "track.h"

#include <stdio.h>
#include <string.h>

#include "report.h"

static const struct {
	const char *name;
	void (*run)(struct report *report, const struct track_settings *settings);
} parts[TRACK_PARTS] = {
        [TRACK_COLLECT] = {"collect", track_collect},
        [TRACK_PIECES] = {"pieces", track_pieces},
        [TRACK_WRITE] = {"write", track_write},
        [TRACK_CYCLE] = {"cycle", track_cycle},
};

enum { KEY_MEMORY = 'm', KEY_SIZE = 's', KEY_PART = 'p', KEY_VECTOR = 'v', KEY_BUDGET = 'b', KEY_RANGES = 'n' };
enum { KEY_TIME_LIMIT = 'w' };

static const struct argp_option options[] = {
        {"part", KEY_PART, "NAME,...", 0, "Of collect, pieces, write, cycle these only", 0},
        {"memory", KEY_MEMORY, "TYPE", 0, "anon or shmem only (default: both)", 0},
        {"size", KEY_SIZE, "BYTES", 0, "Size of each side's memory (default 1G)", 0},
        {"vector", KEY_VECTOR, "N", 0, "Ranges that one answer has room for (default 4096)", 0},
        {"ranges", KEY_RANGES, "N", 0, "Ranges of the part `pieces` (default 10000)", 0},
        {"budget", KEY_BUDGET, "MS", 0, "Time for one comparison (default 100)", 0},
        {"time-limit", KEY_TIME_LIMIT, "SECONDS", 0,
         "What was too noisy is measured again while the run is younger (default 60)", 0},
        {0},
};

static unsigned parts_of(char *names)
{
	unsigned bits = 0;

	for (char *name; (name = strsep(&names, ",")) != NULL;) {
		unsigned part = 0;

		while (part < TRACK_PARTS && strcmp(name, parts[part].name) != 0)
			part++;
		if (part == TRACK_PARTS)
			bench_die("%s: no such part; collect, pieces, write or cycle", name);
		bits |= 1u << part;
	}
	return bits;
}

static unsigned memory_bit(const char *name)
{
	enum uffdwp_memory memory = area_memory_of(name);

	if (memory == UFFDWP_MEMORY_HUGETLB)
		bench_die("hugetlb is not measured here; anon or shmem");
	return 1u << memory;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct track_settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_PART:
		settings->parts = parts_of(argument);
		return 0;
	case KEY_MEMORY:
		settings->memories = memory_bit(argument);
		return 0;
	case KEY_SIZE:
		settings->size_bytes = bench_size(argument);
		return 0;
	case KEY_VECTOR:
		settings->vector = bench_number(argument, 1u << 24);
		return 0;
	case KEY_RANGES:
		settings->pieces = bench_number(argument, 1u << 20);
		return 0;
	case KEY_BUDGET:
		settings->budget_ns = bench_number(argument, 1000000) * UINT64_C(1000000);
		return 0;
	case KEY_TIME_LIMIT:
		settings->time_limit_s = bench_number(argument, 1000000);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse,
        NULL,     "Which pages were written: the library's track against the bare ioctl and the older methods.",
        children, NULL,
        NULL};

static void choose(void *user, uint64_t seed)
{
	struct track_bout *bout = user;

	pages_choose(&bout->pages, pages_share(bout->pages.total, bout->density->permille), bout->density->spread,
	             seed);
}

void track_duel(struct duel *duel, const struct track_settings *settings, struct track_bout *bout)
{
	memset(duel, 0, sizeof(*duel));
	duel->tolerance = 0.10;
	duel->budget_ns = settings->budget_ns;
	duel->rounds_min = settings->rounds_min;
	duel->retry_until_ns = settings->retry_until_ns;
	duel->before_round = choose;
	duel->user = bout;
}

static int are_decided(const struct duel *duels, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!duel_is_decided(&duels[i]))
			return 0;
	}
	return 1;
}

static void fight_turn(const struct track_match *match, struct duel *duels, size_t count, unsigned turn)
{
	bench_pin(BENCH_ANY_CPU);
	match->open(turn);
	bench_pin(bench_cpu(0));
	for (size_t i = 0; i < count; i++) {
		if (duel_is_decided(&duels[i]))
			continue;
		match->enter(i);
		duel_turn(&duels[i]);
	}
	match->close();
}

void track_fight(const struct track_match *match, struct duel *duels, size_t count)
{
	while (!are_decided(duels, count)) {
		for (unsigned turn = 0; turn < DUEL_TURNS; turn++)
			fight_turn(match, duels, count, turn);
	}
}

static void make_quick(struct track_settings *settings)
{
	settings->size_bytes = 32 << 20;
	settings->budget_ns = 10000000;
	settings->rounds_min = 1;
	settings->time_limit_s = 5;
	settings->pieces = 500;
	settings->written_bytes = 1 << 20;
	settings->write_rounds = 2;
}

static void check_settings(struct track_settings *settings)
{
	size_t page_bytes = area_page_bytes(UFFDWP_MEMORY_ANON);
	const char *reason = collector_bare_refused();

	if (settings->common.quick)
		make_quick(settings);
	if (settings->size_bytes % page_bytes || settings->size_bytes / page_bytes < 1000)
		bench_die("a size in whole pages of %zu bytes, of at least 1000 of them", page_bytes);
	if (settings->size_bytes / page_bytes > UINT32_MAX)
		bench_die("at most %llu GiB", (unsigned long long)UINT32_MAX * page_bytes >> 30);
	if (reason)
		bench_skip("nothing to compare with: %s", reason);
}

static void add_notes(struct report *report, const struct track_settings *settings)
{
	report_note(report, "memory", "%llu MiB each, vectors of %zu ranges",
	            (unsigned long long)settings->size_bytes >> 20, settings->vector);
	report_note(report, "placement", "all on CPU %d, handler threads too", bench_cpu(0));
	report_note(report, "noise", "what the bare rival and its twin differ by (A/A): see README.md");
}

int track_main(int argc, char **argv)
{
	struct track_settings settings = {
	        .size_bytes = 1 << 30,
	        .vector = 4096,
	        .budget_ns = 100000000,
	        .rounds_min = 2,
	        .time_limit_s = 60,
	        .pieces = 10000,
	        .written_bytes = 32 << 20,
	        .write_rounds = 2,
	        .parts = (1u << TRACK_PARTS) - 1,
	        .memories = 1u << UFFDWP_MEMORY_ANON | 1u << UFFDWP_MEMORY_SHMEM,
	};
	struct report report;
	int code;

	bench_parse(&argp, argc, argv, &settings);
	check_settings(&settings);
	settings.retry_until_ns = bench_now_ns() + settings.time_limit_s * UINT64_C(1000000000);
	report_init(&report, "track");
	add_notes(&report, &settings);
	if (!settings.common.json)
		report_print_notes(&report);
	for (unsigned part = 0; part < TRACK_PARTS; part++) {
		if (settings.parts >> part & 1)
			parts[part].run(&report, &settings);
		fflush(stdout);
	}
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
