/* SPDX-License-Identifier: MIT */
/*
 * What all collectors have, and the judge of their answers: see collector.h. A bitmap is compared page by page; of
 * ranges and calls the bytes must come to what was written. More than that is allowed in small part only (the kernel
 * may have moved a page): else it was not the same work that was timed.
 */
#include "collector.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"

const char *const collector_shape_names[COLLECTOR_SHAPES] = {"ranges", "bitmap", "callback"};

void collector_whole(struct collector_setup *setup, const struct area *area)
{
	setup->area = *area;
	setup->pieces = 1;
	setup->piece_pages = area->length_bytes / area->page_bytes;
	setup->stride_pages = setup->piece_pages;
}

void collector_init(struct collector *collector, const struct collector_setup *setup)
{
	size_t pages = (setup->pieces - 1) * setup->stride_pages + setup->piece_pages;

	memset(collector, 0, sizeof(*collector));
	collector->setup = *setup;
	collector->span_bytes = pages * setup->area.page_bytes;
	collector->bitmap_bytes = (pages + 63) / 64 * sizeof(uint64_t);
	collector->ranges = calloc(setup->vector, sizeof(*collector->ranges));
	collector->bitmap = calloc(1, collector->bitmap_bytes);
	if (!collector->ranges || !collector->bitmap)
		bench_die("no memory for an answer");
}

void collector_close(struct collector *collector)
{
	collector->close(collector);
	free(collector->ranges);
	free(collector->bitmap);
}

void collector_write(const struct collector *collector)
{
	const struct pages *pages = collector->setup.pages;

	for (size_t i = 0; i < pages->count; i++) {
		volatile char *byte = collector_page(collector, pages->list[i]);

		*byte = (char)(*byte + 1);
	}
}

static void judge_bitmap(const struct collector *collector)
{
	const struct pages *pages = collector->setup.pages;
	const struct area *area = &collector->setup.area;

	for (size_t i = 0; i < pages->count; i++) {
		size_t place = (size_t)(collector_page(collector, pages->list[i]) - area->base) / area->page_bytes;

		if (!(collector->bitmap[place / 64] >> place % 64 & 1))
			bench_die("page %zu was written and is not in the answer", place);
	}
}

static void judge(const struct collector *collector, uint64_t bytes)
{
	uint64_t written = (uint64_t)collector->setup.pages->count * collector->setup.area.page_bytes;

	if (bytes < written)
		bench_die("%llu bytes were written, the answer has %llu", (unsigned long long)written,
		          (unsigned long long)bytes);
	if (bytes > written + written / 100 + 64 * collector->setup.area.page_bytes)
		bench_die("%llu bytes were written, the answer has %llu: no measure of this work",
		          (unsigned long long)written, (unsigned long long)bytes);
	if (collector->shape == COLLECTOR_BITMAP)
		judge_bitmap(collector);
}

static uint64_t try(struct collector *collector, int with_writes, int *disturbed)
{
	uint64_t from = bench_now_ns();
	long before = bench_preemptions();
	uint64_t took_ns;
	uint64_t bytes;

	if (collector->shape == COLLECTOR_BITMAP)
		memset(collector->bitmap, 0, collector->bitmap_bytes);
	collector_write(collector);
	if (!with_writes) {
		before = bench_preemptions();
		from = bench_now_ns();
	}
	bytes = collector->collect(collector);
	took_ns = bench_now_ns() - from;
	*disturbed = bench_preemptions() != before;
	judge(collector, bytes);
	return took_ns;
}

uint64_t collector_trial(void *self, int *disturbed)
{
	return try(self, 0, disturbed);
}

uint64_t collector_cycle(void *self, int *disturbed)
{
	return try(self, 1, disturbed);
}
