/* SPDX-License-Identifier: MIT */
/* See pages.h. */
#include "pages.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_SHIFT 9
#define BLOCK_PAGES ((uint64_t)1 << BLOCK_SHIFT)
#define WORDS (BLOCK_PAGES / 64)
#define SLOTS_FIRST 256

struct page_block {
	uint64_t number; /* page >> BLOCK_SHIFT */
	uint32_t epochs[PAGES_WINDOWS];
	uint64_t window[PAGES_WINDOWS][WORDS];
	uint64_t ever[WORDS];
	uint16_t hits[BLOCK_PAGES]; /* stays at its maximum */
};

static size_t pages_slot_of(const struct pages *pages, uint64_t number)
{
	return (size_t)((number * 0x9e3779b97f4a7c15u) >> 20) & (pages->slot_count - 1);
}

/* The slot that holds a block, or the empty one where it belongs. */
static struct page_block **pages_find_slot(const struct pages *pages, uint64_t number)
{
	size_t slot = pages_slot_of(pages, number);

	while (pages->slots[slot] && pages->slots[slot]->number != number)
		slot = (slot + 1) & (pages->slot_count - 1);
	return &pages->slots[slot];
}

static int pages_grow(struct pages *pages)
{
	struct pages larger = *pages;

	larger.slot_count = pages->slot_count ? pages->slot_count * 2 : SLOTS_FIRST;
	larger.slots = calloc(larger.slot_count, sizeof(struct page_block *));
	if (!larger.slots)
		return -1;
	for (size_t i = 0; i < pages->slot_count; i++) {
		if (pages->slots[i])
			*pages_find_slot(&larger, pages->slots[i]->number) = pages->slots[i];
	}
	free(pages->slots);
	*pages = larger;
	return 0;
}

static struct page_block *pages_block_at(struct pages *pages, uint64_t number)
{
	struct page_block **slot;

	if (pages->last && pages->last->number == number)
		return pages->last;
	if (pages->used * 2 >= pages->slot_count && pages_grow(pages) && pages->used + 1 >= pages->slot_count)
		return NULL;
	slot = pages_find_slot(pages, number);
	if (!*slot) {
		*slot = calloc(1, sizeof(**slot));
		if (!*slot)
			return NULL;
		(*slot)->number = number;
		pages->used++;
	}
	pages->last = *slot;
	return *slot;
}

/* Bits [from, to) of a word. */
static uint64_t pages_mask_of(uint64_t from, uint64_t to)
{
	uint64_t upper = to == 64 ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1;

	return upper & ~(((uint64_t)1 << from) - 1);
}

/* Sets bits [first, last) and answers how many were not set. */
static uint64_t pages_set_bits(uint64_t *words, uint64_t first, uint64_t last)
{
	uint64_t fresh = 0;

	for (uint64_t word = first / 64; word * 64 < last; word++) {
		uint64_t from = word == first / 64 ? first % 64 : 0;
		uint64_t to = last - word * 64 < 64 ? last - word * 64 : 64;
		uint64_t mask = pages_mask_of(from, to);

		fresh += (uint64_t)__builtin_popcountll(mask & ~words[word]);
		words[word] |= mask;
	}
	return fresh;
}

static uint64_t pages_add_to_block(struct pages *pages, struct page_block *block, uint64_t first, uint64_t last)
{
	uint64_t fresh = pages_set_bits(block->ever, first, last);

	for (unsigned window = 0; window < PAGES_WINDOWS; window++) {
		if (block->epochs[window] != pages->epochs[window]) {
			memset(block->window[window], 0, sizeof(block->window[window]));
			block->epochs[window] = pages->epochs[window];
		}
		pages->in_window[window] += pages_set_bits(block->window[window], first, last);
	}
	for (uint64_t page = first; page < last; page++)
		block->hits[page] = (uint16_t)(block->hits[page] + (block->hits[page] < UINT16_MAX));
	pages->unique += fresh;
	return fresh;
}

uint64_t pages_add(struct pages *pages, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t fresh = 0;

	while (first < end) {
		uint64_t number = first >> BLOCK_SHIFT;
		uint64_t last = (number + 1) << BLOCK_SHIFT;
		struct page_block *block = pages_block_at(pages, number);

		last = last < end ? last : end;
		if (block)
			fresh += pages_add_to_block(pages, block, first - (number << BLOCK_SHIFT),
			                            last - (number << BLOCK_SHIFT));
		else
			pages->dropped += last - first;
		first = last;
	}
	return fresh;
}

void pages_next_window(struct pages *pages, unsigned window)
{
	pages->epochs[window]++;
	pages->in_window[window] = 0;
}

/* --------------------------------------------------------------------------------------------------- the hottest -- */

static int pages_by_number(const void *a, const void *b)
{
	uint64_t left = (*(struct page_block *const *)a)->number;
	uint64_t right = (*(struct page_block *const *)b)->number;

	return left < right ? -1 : left > right;
}

static struct page_block **pages_sorted_blocks(const struct pages *pages)
{
	struct page_block **list = malloc((pages->used + 1) * sizeof(struct page_block *));
	size_t count = 0;

	if (!list)
		return NULL;
	for (size_t i = 0; i < pages->slot_count; i++) {
		if (pages->slots[i])
			list[count++] = pages->slots[i];
	}
	qsort(list, count, sizeof(struct page_block *), pages_by_number);
	return list;
}

/* The best so far, the best first. */
struct ranking {
	struct hot_range *best;
	size_t count;
	size_t room;
};

static void pages_rank(struct ranking *ranking, const struct hot_range *range)
{
	size_t at = ranking->count;

	if (!range->count || (at == ranking->room && range->hits <= ranking->best[at - 1].hits))
		return;
	if (at == ranking->room)
		at--;
	else
		ranking->count++;
	for (; at > 0 && ranking->best[at - 1].hits < range->hits; at--)
		ranking->best[at] = ranking->best[at - 1];
	ranking->best[at] = *range;
}

static int pages_level_of(uint16_t hits)
{
	return 32 - __builtin_clz(hits);
}

/* Walks a block, carrying the range that is open on. */
static void pages_walk_block(const struct page_block *block, struct ranking *ranking, struct hot_range *open,
                             int *level)
{
	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		uint64_t page = (block->number << BLOCK_SHIFT) + i;
		uint16_t hits = block->hits[i];

		if (!hits)
			continue;
		if (!open->count || page != open->first + open->count || pages_level_of(hits) != *level) {
			pages_rank(ranking, open);
			*open = (struct hot_range){.first = page};
			*level = pages_level_of(hits);
		}
		open->count++;
		open->hits += hits;
	}
}

size_t pages_hottest(const struct pages *pages, struct hot_range *out, size_t room)
{
	struct page_block **blocks = pages_sorted_blocks(pages);
	struct ranking ranking = {.best = out, .room = room};
	struct hot_range open = {0};
	int level = 0;

	if (!blocks || !room) {
		free(blocks);
		return 0;
	}
	for (size_t i = 0; i < pages->used; i++)
		pages_walk_block(blocks[i], &ranking, &open, &level);
	pages_rank(&ranking, &open);
	free(blocks);
	return ranking.count;
}

void pages_fini(struct pages *pages)
{
	for (size_t i = 0; i < pages->slot_count; i++)
		free(pages->slots[i]);
	free(pages->slots);
	*pages = (struct pages){0};
}
