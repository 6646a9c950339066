/* SPDX-License-Identifier: MIT */
/*
 * See pages.h. A choice is made as bits, unit by unit (a page or a block), and drawn again where the unit is taken. For
 * more than half, what is left out is drawn, so that the draws that fail stay few.
 */
#include "pages.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"

void pages_init(struct pages *pages, size_t total)
{
	memset(pages, 0, sizeof(*pages));
	pages->total = total;
	pages->bits_bytes = (total + 63) / 64 * sizeof(uint64_t);
	pages->list = calloc(total, sizeof(*pages->list));
	pages->bits = calloc(1, pages->bits_bytes);
	if (!pages->list || !pages->bits)
		bench_die("no memory for a choice of pages");
}

void pages_fini(struct pages *pages)
{
	free(pages->list);
	free(pages->bits);
	memset(pages, 0, sizeof(*pages));
}

size_t pages_share(size_t total, unsigned permille)
{
	size_t count = (total * permille + 500) / 1000;

	return count == 0 && permille ? 1 : count;
}

static int is_chosen(const struct pages *pages, size_t page)
{
	return (pages->bits[page / 64] >> page % 64 & 1) != 0;
}

static void flip(struct pages *pages, size_t page)
{
	pages->bits[page / 64] ^= (uint64_t)1 << page % 64;
}

/* Flips `count` pages that are not `chosen`, a unit at a time. */
static void draw(struct pages *pages, size_t count, size_t unit, int chosen, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u | 1; /* small seeds lie far apart */
	size_t units = (pages->total + unit - 1) / unit;

	while (count && units) {
		size_t page = (size_t)(bench_random(&state) % units) * unit;

		if (is_chosen(pages, page) == chosen)
			continue;
		for (size_t end = page + unit; count && page < end && page < pages->total; page++, count--)
			flip(pages, page);
	}
}

static void list_chosen(struct pages *pages)
{
	pages->count = 0;
	for (size_t page = 0; page < pages->total; page++) {
		if (is_chosen(pages, page))
			pages->list[pages->count++] = (uint32_t)page;
	}
}

void pages_choose(struct pages *pages, size_t count, enum pages_spread spread, uint64_t seed)
{
	size_t unit = spread == PAGES_CLUSTERED ? PAGES_BLOCK : 1;
	int leave_out = count > pages->total / 2;

	memset(pages->bits, 0, pages->bits_bytes);
	for (size_t page = 0; leave_out && page < pages->total; page++)
		flip(pages, page);
	draw(pages, leave_out ? pages->total - count : count, unit, !leave_out, seed);
	list_chosen(pages);
}

size_t pages_runs(const struct pages *pages)
{
	size_t runs = 0;

	for (size_t i = 0; i < pages->count; i++)
		runs += i == 0 || pages->list[i] != pages->list[i - 1] + 1;
	return runs;
}
