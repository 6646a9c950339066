/* SPDX-License-Identifier: MIT */
/*
 * Part `collect`: the library's call against the bare ioctl, for each type of memory, each place for the answer, each
 * share of written pages. A round chooses pages; each side writes them to memory of its own, untimed, and collects,
 * timed. The answer is judged after each trial, so that both did the same work and missed nothing.
 *
 * Where both types of memory are measured, shared memory is so with the most useful rows only: the kernel walks the
 * same page tables.
 */
#include <stdio.h>
#include <string.h>

#include "report.h"
#include "track.h"

static const struct track_density densities[] = {
        {"clean", "nothing", 0, PAGES_CLUSTERED},
        {"clustered_0p1", "0.1 % clustered", 1, PAGES_CLUSTERED},
        {"scattered_0p1", "0.1 % scattered", 1, PAGES_SCATTERED},
        {"clustered_1", "1 % clustered", 10, PAGES_CLUSTERED},
        {"scattered_1", "1 % scattered", 10, PAGES_SCATTERED},
        {"clustered_12", "12 % clustered", 120, PAGES_CLUSTERED},
        {"scattered_12", "12 % scattered", 120, PAGES_SCATTERED},
        {"all", "all", 1000, PAGES_CLUSTERED},
};

#define DENSITIES (sizeof(densities) / sizeof(densities[0]))
#define ROWS_MAX (COLLECTOR_SHAPES * DENSITIES)

enum { LIBRARY, BARE, AGAIN, SIDES };

static const char *const names[SIDES] = {"library", "bare", "bare_again"};

struct row {
	enum collector_shape shape;
	const struct track_density *density;
};

static struct {
	const struct track_settings *settings;
	const char *memory;
	int populated;
	struct area areas[SIDES];
	struct collector collectors[SIDES];
	struct track_bout bout;
	struct row rows[ROWS_MAX];
	struct duel duels[ROWS_MAX];
	size_t count;
} field;

static void open_sides(unsigned turn)
{
	struct collector_setup setup = {
	        .vector = field.settings->vector,
	        .populated = field.populated,
	        .pages = &field.bout.pages,
	};

	for (size_t i = 0; i < SIDES; i++) {
		collector_whole(&setup, &field.areas[track_place(i, turn)]);
		if (i == LIBRARY)
			collector_open_library(&field.collectors[i], &setup);
		else
			collector_open_bare(&field.collectors[i], &setup);
	}
}

static void enter_row(size_t row)
{
	field.bout.density = field.rows[row].density;
	for (size_t i = 0; i < SIDES; i++)
		field.collectors[i].shape = field.rows[row].shape;
}

static void close_sides(void)
{
	for (size_t i = 0; i < SIDES; i++)
		collector_close(&field.collectors[i]);
}

static const struct track_match match = {open_sides, enter_row, close_sides};

static void add_row(enum collector_shape shape, const struct track_density *density)
{
	struct duel *duel = &field.duels[field.count];

	field.rows[field.count++] = (struct row){shape, density};
	track_duel(duel, field.settings, &field.bout);
	duel->count = SIDES;
	duel->bare = BARE;
	duel->again = AGAIN;
	for (size_t i = 0; i < SIDES; i++)
		duel->sides[i] = (struct duel_side){names[i], &field.collectors[i], collector_trial};
}

/* Scattered pages make the longest answers, with the most for the library to do. */
static void add_rows(int all)
{
	unsigned shapes = field.populated ? 1 : COLLECTOR_SHAPES;

	field.count = 0;
	for (unsigned shape = 0; shape < shapes; shape++) {
		for (size_t i = 0; i < DENSITIES; i++) {
			if (all || shape == COLLECTOR_RANGES ||
			    (densities[i].spread == PAGES_SCATTERED && densities[i].permille >= 10))
				add_row((enum collector_shape)shape, &densities[i]);
		}
	}
}

static void print_rows(void)
{
	printf("\ncollect: %s%s, microseconds\n%-9s %-16s %10s %10s %10s %10s  %s\n", field.memory,
	       field.populated ? ", populated only" : "", "into", "written", "p50", "p99", "bare p50", "bare p99",
	       "the library takes");
	for (size_t i = 0; i < field.count; i++) {
		const struct duel *duel = &field.duels[i];

		printf("%-9s %-16s", collector_shape_names[field.rows[i].shape], field.rows[i].density->text);
		duel_print_times(duel, LIBRARY);
		duel_print_times(duel, BARE);
		printf("  %.3f of bare (bare_again: %.3f)", duel_ratio(duel, LIBRARY, BARE).value,
		       duel_ratio(duel, AGAIN, BARE).value);
		duel_print_noise(duel);
		printf("\n");
	}
}

static void measure_rows(struct report *report, int populated, int all)
{
	field.populated = populated;
	add_rows(all);
	track_fight(&match, field.duels, field.count);
	for (size_t i = 0; i < field.count; i++) {
		const struct row *row = &field.rows[i];
		char prefix[64];

		snprintf(prefix, sizeof(prefix), "collect.%s%s.%s.%s", field.memory, populated ? "_populated" : "",
		         collector_shape_names[row->shape], row->density->name);
		duel_report(&field.duels[i], report, prefix);
	}
	if (!field.settings->common.json)
		print_rows();
}

static void measure_memory(struct report *report, enum uffdwp_memory memory, int all)
{
	field.memory = area_memory_name(memory);
	for (size_t i = 0; i < SIDES; i++)
		area_map_touched(&field.areas[i], memory, field.settings->size_bytes);
	pages_init(&field.bout.pages, field.areas[0].length_bytes / field.areas[0].page_bytes);
	measure_rows(report, 0, all);
	if (all)
		measure_rows(report, 1, 1);
	pages_fini(&field.bout.pages);
	for (size_t i = 0; i < SIDES; i++)
		area_unmap(&field.areas[i]);
}

void track_collect(struct report *report, const struct track_settings *settings)
{
	unsigned anon = 1u << UFFDWP_MEMORY_ANON;
	unsigned shmem = 1u << UFFDWP_MEMORY_SHMEM;

	field.settings = settings;
	if (settings->memories & anon)
		measure_memory(report, UFFDWP_MEMORY_ANON, 1);
	if (settings->memories & shmem)
		measure_memory(report, UFFDWP_MEMORY_SHMEM, !(settings->memories & anon));
}
