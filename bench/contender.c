/* SPDX-License-Identifier: MIT */
/*
 * The measurement itself: see contender.h. The calling thread is the writer; the caller has pinned it.
 */
#include "contender.h"

#include <stdlib.h>

#include "bench.h"

#define WINDOW_PAGES 1024

static void fill(uint32_t *order, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		order[i] = (uint32_t)i;
}

void contender_shuffle(uint32_t *order, size_t pages, uint64_t seed)
{
	uint64_t state = seed;

	fill(order, pages);
	for (size_t i = pages - 1; i > 0; i--) {
		size_t other = (size_t)(bench_random(&state) % (i + 1));
		uint32_t page = order[i];

		order[i] = order[other];
		order[other] = page;
	}
}

static void write_window(struct contender *contender, enum contender_order order, const uint32_t *pages, size_t count,
                         uint64_t clock_ns)
{
	struct histogram *histogram = &contender->hist[order];

	contender->enter(contender->self);
	for (size_t i = 0; i < count; i++) {
		volatile char *byte = contender->area.base + pages[i] * contender->area.page_bytes;
		uint64_t from = bench_now_ns();
		uint64_t took;

		*byte = (char)i;
		took = bench_now_ns() - from;
		histogram_record(histogram, bench_minus(took, clock_ns));
	}
}

static void round_of(struct contender *contenders, size_t count, enum contender_order order, const uint32_t *pages,
                     size_t page_count, uint64_t clock_ns)
{
	for (size_t i = 0; i < count; i++)
		contenders[i].arm(contenders[i].self);
	for (size_t at = 0, turn = 0; at < page_count; at += WINDOW_PAGES, turn++) {
		size_t window = page_count - at < WINDOW_PAGES ? page_count - at : WINDOW_PAGES;

		for (size_t i = 0; i < count; i++)
			write_window(&contenders[(i + turn) % count], order, pages + at, window, clock_ns);
	}
}

void contender_measure(struct contender *contenders, size_t count, unsigned rounds)
{
	size_t page_count = contenders[0].area.length_bytes / contenders[0].area.page_bytes;
	uint32_t *pages = calloc(page_count, sizeof(*pages));
	uint64_t clock_ns = bench_clock_ns();

	if (!pages)
		bench_die("no memory for an order of pages");
	for (unsigned round = 0; round < rounds; round++) {
		enum contender_order order = round % 2 ? ORDER_RANDOM : ORDER_SEQUENTIAL;

		if (order == ORDER_RANDOM)
			contender_shuffle(pages, page_count, round);
		else
			fill(pages, page_count);
		round_of(contenders, count, order, pages, page_count, clock_ns);
	}
	free(pages);
}

void contender_merged(const struct contender *contender, struct histogram *histogram)
{
	histogram_clear(histogram);
	for (int order = 0; order < ORDER_COUNT; order++)
		histogram_merge(histogram, &contender->hist[order]);
}
