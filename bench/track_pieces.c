/* SPDX-License-Identifier: MIT */
/*
 * Part `pieces`: what it costs that memory is tracked as thousands of ranges. The same number of pages (1 GiB) is
 * tracked as 10,000 ranges, with pages between them that are mapped and not tracked, and as one range. Both by the
 * library and by the bare ioctl: what the kernel itself takes for so many mappings (each range that is registered
 * becomes one) must not be mistaken for the library's.
 *
 * Cases: `near`, one page between two ranges; `far`, eight.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "track.h"

/* Three with many ranges, then three with one; within each three they change places. */
enum { MANY, BARE_MANY, BARE_MANY_AGAIN, ONE, BARE_ONE, BARE_ONE_AGAIN, SIDES };

static const char *const names[SIDES] = {"many", "bare_many", "bare_many_again", "one", "bare_one", "bare_one_again"};

struct gap {
	const char *name;
	size_t pages;
};

static const struct gap gaps[] = {{"near", 1}, {"far", 8}};

static const struct track_density densities[] = {
        {"clean", "nothing", 0, PAGES_CLUSTERED},
        {"scattered_1", "1 % scattered", 10, PAGES_SCATTERED},
        {"scattered_12", "12 % scattered", 120, PAGES_SCATTERED},
        {"all", "all", 1000, PAGES_CLUSTERED},
};

#define DENSITIES (sizeof(densities) / sizeof(densities[0]))

static struct {
	const struct track_settings *settings;
	const struct gap *gap;
	struct area areas[SIDES];
	struct collector collectors[SIDES];
	struct track_bout bout;
	struct duel duels[DENSITIES];
	uint64_t added_ns[SIDES]; /* in the last turn */
} field;

static size_t piece_pages(void)
{
	size_t pages = field.settings->size_bytes / area_page_bytes(UFFDWP_MEMORY_ANON) / field.settings->pieces;

	return pages ? pages : 1;
}

static int is_many(size_t side)
{
	return side <= BARE_MANY_AGAIN;
}

static void open_side(size_t side, const struct area *area)
{
	size_t pieces = field.settings->pieces;
	struct collector_setup setup = {
	        .area = *area,
	        .pieces = is_many(side) ? pieces : 1,
	        .piece_pages = is_many(side) ? piece_pages() : pieces * piece_pages(),
	        .stride_pages = piece_pages() + field.gap->pages,
	        .vector = field.settings->vector,
	        .pages = &field.bout.pages,
	};

	if (side == MANY || side == ONE)
		collector_open_library(&field.collectors[side], &setup);
	else
		collector_open_bare(&field.collectors[side], &setup);
	field.added_ns[side] = field.collectors[side].added_ns;
}

static void open_sides(unsigned turn)
{
	for (size_t i = 0; i < SIDES; i++)
		open_side(i, &field.areas[i / DUEL_TURNS * DUEL_TURNS + track_place(i % DUEL_TURNS, turn)]);
}

static void enter_density(size_t i)
{
	field.bout.density = &densities[i];
}

static void close_sides(void)
{
	for (size_t i = 0; i < SIDES; i++)
		collector_close(&field.collectors[i]);
}

static const struct track_match match = {open_sides, enter_density, close_sides};

static void set_up(struct duel *duel)
{
	track_duel(duel, field.settings, &field.bout);
	duel->count = SIDES;
	duel->bare = BARE_ONE;
	duel->again = BARE_ONE_AGAIN;
	duel->tolerance = 0.20;
	for (size_t i = 0; i < SIDES; i++)
		duel->sides[i] = (struct duel_side){names[i], &field.collectors[i], collector_trial};
}

static void print_row(const struct duel *duel, const struct track_density *density)
{
	printf("%-5s %-15s", field.gap->name, density->text);
	duel_print_times(duel, MANY);
	duel_print_times(duel, BARE_MANY);
	duel_print_times(duel, ONE);
	printf("  %.2f of one, %.3f of bare_many (which is %.2f of bare_one)", duel_ratio(duel, MANY, ONE).value,
	       duel_ratio(duel, MANY, BARE_MANY).value, duel_ratio(duel, BARE_MANY, BARE_ONE).value);
	duel_print_noise(duel);
	printf("\n");
}

static void report_rows(struct report *report)
{
	char prefix[64];

	for (size_t i = 0; i < DENSITIES; i++) {
		snprintf(prefix, sizeof(prefix), "pieces.%s.%s", field.gap->name, densities[i].name);
		duel_report(&field.duels[i], report, prefix);
		duel_report_ratio(&field.duels[i], report, prefix, MANY, ONE);
		duel_report_ratio(&field.duels[i], report, prefix, MANY, BARE_MANY);
		duel_report_ratio(&field.duels[i], report, prefix, BARE_MANY_AGAIN, BARE_MANY);
		if (!field.settings->common.json)
			print_row(&field.duels[i], &densities[i]);
	}
	for (size_t side = 0; side < SIDES; side++)
		report_add(report, (double)field.added_ns[side], "pieces.%s.%s.add_ns", field.gap->name, names[side]);
	if (!field.settings->common.json)
		printf("%-5s adding them took the library %.1f ms, the bare calls %.1f ms\n", field.gap->name,
		       (double)field.added_ns[MANY] / 1e6, (double)field.added_ns[BARE_MANY] / 1e6);
}

static void measure_gap(struct report *report, const struct gap *gap)
{
	size_t pieces = field.settings->pieces;
	size_t page_bytes = area_page_bytes(UFFDWP_MEMORY_ANON);

	field.gap = gap;
	for (size_t i = 0; i < SIDES; i++)
		area_map_touched(&field.areas[i], UFFDWP_MEMORY_ANON,
		                 pieces * (piece_pages() + (is_many(i) ? gap->pages : 0)) * page_bytes);
	pages_init(&field.bout.pages, pieces * piece_pages());
	for (size_t i = 0; i < DENSITIES; i++)
		set_up(&field.duels[i]);
	track_fight(&match, field.duels, DENSITIES);
	report_rows(report);
	pages_fini(&field.bout.pages);
	for (size_t i = 0; i < SIDES; i++)
		area_unmap(&field.areas[i]);
}

/* 1: each range and each gap can be a mapping, of three sides; else says what to change. */
static int has_room(const struct track_settings *settings)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	char line[32] = "";
	unsigned long room = file && fgets(line, sizeof(line), file) ? strtoul(line, NULL, 10) : 0;
	size_t wanted = 3 * 2 * settings->pieces + 1000;

	if (file)
		fclose(file);
	if (room >= wanted)
		return 1;
	fprintf(stderr, "uffdwp-bench: vm.max_map_count is %lu, part pieces needs %zu: left out (or --ranges less)\n",
	        room, wanted);
	return 0;
}

void track_pieces(struct report *report, const struct track_settings *settings)
{
	if (!has_room(settings))
		return;
	field.settings = settings;
	if (!settings->common.json)
		printf("\npieces: anon, many (%zu ranges of %zu pages) and one range of as many pages, microseconds\n"
		       "%-5s %-15s %10s %10s %10s %10s %10s %10s  %s\n",
		       settings->pieces, piece_pages(), "gaps", "written", "many p50", "p99", "bare p50", "p99",
		       "one p50", "p99", "many take");
	for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++)
		measure_gap(report, &gaps[i]);
}
