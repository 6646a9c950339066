/* SPDX-License-Identifier: MIT */
/*
 * Part of the question `faults`: what uffdwp_prepare_write() costs where there is nothing to do. A region is armed and
 * all of it disarmed again; then a page after the other, in random order, is announced as about to be written, in
 * windows whose time is taken. Beside it stands the same loop with an empty function: what the measurement itself
 * costs, which is taken off, window by window in turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "contender.h"
#include "duel.h"
#include "prepare.h"

#define WINDOWS 201
#define CALLS 4096 /* of a window */

typedef int (*prepare_fn)(struct uffdwp_region *region, uint64_t offset, uint64_t length);

__attribute__((noinline)) static int nothing(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	__asm__ volatile("" : : "r"(region), "r"(offset), "r"(length) : "memory");
	return 0;
}

/* Nanoseconds of a call, over one window. */
static double time_window(prepare_fn prepare, struct uffdwp_region *region, const uint32_t *order, size_t pages,
                          size_t first)
{
	uint64_t from = bench_now_ns();

	for (size_t i = 0; i < CALLS; i++)
		bench_must(prepare(region, (uint64_t)order[(first + i) % pages] * 4096, 64), "uffdwp_prepare_write");
	return (double)(bench_now_ns() - from) / CALLS;
}

static double measure(struct uffdwp_region *region, const uint32_t *order, size_t pages, double *net)
{
	static double calls[WINDOWS];
	/* Through memory that the compiler cannot see into: both loops call by the same means. */
	prepare_fn volatile both[2] = {uffdwp_prepare_write, nothing};

	for (size_t i = 0; i < WINDOWS; i++) {
		double with = time_window(both[0], region, order, pages, i * CALLS);
		double without = time_window(both[1], region, order, pages, i * CALLS);

		calls[i] = with;
		net[i] = with > without ? with - without : 0;
	}
	return duel_median(calls, WINDOWS, &(double){0});
}

static void report_state(struct report *report, struct uffdwp_region *region, const uint32_t *order, size_t pages,
                         const char *state)
{
	static double net[WINDOWS];
	double gross = measure(region, order, pages, net);

	report_add(report, gross, "prepare.%s.with_loop_ns", state);
	report_add_median(report, net, WINDOWS, "prepare.%s.p50_ns", state);
}

void prepare_measure(struct report *report, enum uffdwp_memory memory, uint64_t size_bytes, int print)
{
	struct library_setup setup = {
	        .memory = memory,
	        .mechanism = library_best(memory),
	        .delivery = UFFDWP_DELIVERY_INLINE,
	        .length_bytes = size_bytes,
	};
	struct uffdwp *runtime = library_runtime(0, NULL);
	struct uffdwp_region *region;
	struct area area;
	size_t pages;
	uint32_t *order;

	library_region(runtime, &setup, &region, &area);
	pages = area.length_bytes / 4096;
	order = calloc(pages, sizeof(*order));
	if (!order)
		bench_die("no memory for the order of %zu pages", pages);
	contender_shuffle(order, pages, 1);
	report_state(report, region, order, pages, "never_armed");
	bench_must(uffdwp_region_arm(region, 0, area.length_bytes), "uffdwp_region_arm");
	bench_must(uffdwp_prepare_write(region, 0, area.length_bytes), "uffdwp_prepare_write");
	report_state(report, region, order, pages, "disarmed");
	if (print)
		printf("uffdwp_prepare_write() of 64 bytes, nothing to do: %.1f ns on memory that was never armed, "
		       "%.1f ns "
		       "on a page that was disarmed\n\n",
		       report_find(report, "faults.prepare.never_armed.p50_ns")->value,
		       report_find(report, "faults.prepare.disarmed.p50_ns")->value);
	free(order);
	bench_must(uffdwp_region_close(region), "uffdwp_region_close");
	bench_must(uffdwp_close(runtime), "uffdwp_close");
	if (memory == UFFDWP_MEMORY_ANON)
		area_unmap(&area);
}
