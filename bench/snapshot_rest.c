/* SPDX-License-Identifier: MIT */
/*
 * Case at_rest: what a write costs to a region whose snapshot is over and was not kept, against memory of the same kind
 * that never was a region. A side for each delivery and each method of arming that this machine offers.
 *
 * A trial is one pass over all pages in a random order, a word each. The passes that are timed are never the first ones
 * after the snapshot: what a first touch costs is not the rest (shared memory is read-only, or not mapped, until then).
 * A duel (duel.h) has the turns; each turn opens all sides anew, so that none keeps its place in memory.
 *
 * Threads: the main thread writes, on the program's first CPU. Some pages are written while the snapshot runs, so that
 * it had faults, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "duel.h"
#include "snapshot.h"

#define TOLERANCE 0.02
#define BUDGET_NS UINT64_C(4000000000)
#define RETRY_NS UINT64_C(40000000000)
#define WRITTEN_SHARE 8 /* one page of so many is written during the snapshot */

enum { NEVER, NEVER_AGAIN };

struct rest_side {
	const char *name; /* in figures */
	enum uffdwp_delivery delivery;
	enum uffdwp_arming arming;
	struct area area;
	struct uffdwp_region *region; /* NULL: never one */
};

static const struct rest_side all_sides[] = {
        {.name = "never"},
        {.name = "never_again"},
        {.name = "inline_rounds", .delivery = UFFDWP_DELIVERY_INLINE, .arming = UFFDWP_ARMING_ROUNDS},
        {.name = "thread_rounds", .delivery = UFFDWP_DELIVERY_THREAD, .arming = UFFDWP_ARMING_ROUNDS},
        {.name = "thread_move", .delivery = UFFDWP_DELIVERY_THREAD, .arming = UFFDWP_ARMING_MOVE},
        {.name = "inline_move", .delivery = UFFDWP_DELIVERY_INLINE, .arming = UFFDWP_ARMING_MOVE},
};

#define SIDES (sizeof(all_sides) / sizeof(all_sides[0]))

_Static_assert(SIDES <= DUEL_SIDES, "a duel has room for all sides");

static struct {
	const struct snapshot_rest_setup *setup;
	struct uffdwp *runtime;
	struct rest_side sides[SIDES];
	size_t count;
	uint32_t *order;
	size_t pages;
	struct duel duel;
} rest;

/* Why a side is not available here, or NULL. */
static const char *side_refused(const struct rest_side *side)
{
	if (!side->arming)
		return NULL;
	if (side->arming == UFFDWP_ARMING_MOVE && library_refuses_move(UFFDWP_MEMORY_SHMEM))
		return library_refuses_move(UFFDWP_MEMORY_SHMEM);
	return library_refuses(UFFDWP_MEMORY_SHMEM, rest.setup->mechanism, side->delivery);
}

static void write_pages(const struct area *area, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t page = rest.order[i];
		size_t offset = page * sizeof(uint64_t) % area->page_bytes; /* not all in the same lines of a cache */

		*(volatile uint64_t *)(void *)(area->base + page * area->page_bytes + offset) = i;
	}
}

static uint64_t write_all(void *self, int *disturbed)
{
	const struct rest_side *side = self;
	long before = bench_preemptions();
	uint64_t from_ns = bench_now_ns();
	uint64_t took_ns;

	write_pages(&side->area, rest.pages);
	took_ns = bench_now_ns() - from_ns;
	*disturbed = bench_preemptions() != before;
	return took_ns;
}

static void choose_order(void *user, uint64_t seed)
{
	(void)user;
	contender_shuffle(rest.order, rest.pages, seed);
}

static void take_snapshot(const struct rest_side *side)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot *snapshot;
	char path[512];

	snprintf(path, sizeof(path), "%s/rest", rest.setup->folder);
	options.path = path;
	options.arming = side->arming;
	bench_must(uffdwp_snapshot_begin(side->region, &options, &snapshot), "uffdwp_snapshot_begin");
	write_pages(&side->area, rest.pages / WRITTEN_SHARE);
	bench_must(uffdwp_snapshot_wait(snapshot, -1, &progress), "the snapshot");
	if (progress.arming != side->arming)
		bench_die("at_rest: %s was not armed as asked for", side->name);
	bench_must(uffdwp_snapshot_free(snapshot), "uffdwp_snapshot_free");
	unlink(path);
}

static void open_side(struct rest_side *side)
{
	struct library_setup setup = {
	        .memory = UFFDWP_MEMORY_SHMEM,
	        .mechanism = rest.setup->mechanism,
	        .delivery = side->delivery,
	        .length_bytes = rest.setup->size_bytes,
	};

	side->region = NULL;
	if (side->arming)
		library_region(rest.runtime, &setup, &side->region, &side->area);
	else
		area_map(&side->area, UFFDWP_MEMORY_SHMEM, rest.setup->size_bytes);
	if (side->region)
		take_snapshot(side);
	write_pages(&side->area, rest.pages);
}

static void close_side(struct rest_side *side)
{
	if (side->region)
		bench_must(uffdwp_region_close(side->region), "uffdwp_region_close");
	else
		area_unmap(&side->area);
}

/* The sides begin in another order in each turn. */
static void fight_turn(void)
{
	size_t first = rest.duel.turn + rest.duel.attempts;

	bench_pin(BENCH_ANY_CPU);
	rest.runtime = library_runtime(0, NULL);
	bench_pin(bench_cpu(0));
	choose_order(NULL, 1);
	for (size_t i = 0; i < rest.count; i++)
		open_side(&rest.sides[(i + first) % rest.count]);
	duel_turn(&rest.duel);
	for (size_t i = 0; i < rest.count; i++)
		close_side(&rest.sides[i]);
	bench_must(uffdwp_close(rest.runtime), "uffdwp_close");
}

static void choose_sides(void)
{
	rest.count = 0;
	for (size_t i = 0; i < SIDES; i++) {
		const char *reason = side_refused(&all_sides[i]);

		if (reason)
			fprintf(stderr, "uffdwp-bench: at_rest: %s is left out: %s\n", all_sides[i].name, reason);
		else
			rest.sides[rest.count++] = all_sides[i];
	}
}

static void set_up_duel(void)
{
	memset(&rest.duel, 0, sizeof(rest.duel));
	rest.duel.count = rest.count;
	rest.duel.bare = NEVER;
	rest.duel.again = NEVER_AGAIN;
	rest.duel.tolerance = TOLERANCE;
	rest.duel.budget_ns = rest.setup->common.quick ? 1 : BUDGET_NS;
	rest.duel.rounds_min = rest.setup->common.quick ? 2 : 15;
	rest.duel.retry_until_ns = bench_now_ns() + (rest.setup->common.quick ? 0 : RETRY_NS);
	rest.duel.before_round = choose_order;
	for (size_t i = 0; i < rest.count; i++)
		rest.duel.sides[i] = (struct duel_side){rest.sides[i].name, &rest.sides[i], write_all};
}

static void print_table(void)
{
	printf("\nat_rest: all pages of %llu MiB in random order, the second time after a snapshot, microseconds\n"
	       "%-15s %10s %10s  %s\n",
	       (unsigned long long)rest.setup->size_bytes >> 20, "", "p50", "p99", "of never");
	for (size_t i = 0; i < rest.count; i++) {
		printf("%-15s", rest.sides[i].name);
		duel_print_times(&rest.duel, i);
		printf("  %.3f", duel_ratio(&rest.duel, i, NEVER).value);
		if (i == NEVER_AGAIN)
			duel_print_noise(&rest.duel);
		printf("\n");
	}
}

void snapshot_rest(struct report *report, const struct snapshot_rest_setup *setup)
{
	rest.setup = setup;
	rest.pages = setup->size_bytes / area_page_bytes(UFFDWP_MEMORY_SHMEM);
	rest.order = calloc(rest.pages, sizeof(*rest.order));
	if (!rest.order)
		bench_die("no memory for an order of pages");
	choose_sides();
	set_up_duel();
	while (!duel_is_decided(&rest.duel))
		fight_turn();
	duel_report(&rest.duel, report, "at_rest");
	if (!setup->common.json)
		print_table();
	free(rest.order);
	bench_pin(BENCH_ANY_CPU);
}
