/* SPDX-License-Identifier: MIT */
/* See page_set.h. */
#include "image/page_set.h"

#include <errno.h>

#include "kernel/pages.h"

int page_set_open(struct page_set *set, const struct kernel_ops *k, uint64_t pages_most)
{
	uint64_t words[PAGE_SET_LEVELS] = {0};
	uint64_t all = 0;

	for (unsigned level = 0; level < PAGE_SET_LEVELS; level++) {
		words[level] = (level ? words[level - 1] : pages_most) / 64 + 1;
		all += words[level];
	}
	set->bytes = (size_t)all * sizeof(uint64_t);
	uint64_t *memory = pages_new(k, set->bytes);

	for (unsigned level = 0; level < PAGE_SET_LEVELS; level++) {
		set->levels[level] = memory;
		memory = memory ? memory + words[level] : NULL;
	}
	return memory ? 0 : -ENOMEM;
}

void page_set_close(struct page_set *set, const struct kernel_ops *k)
{
	pages_free(k, set->levels[0], set->bytes);
	set->levels[0] = NULL;
}

int page_set_add(struct page_set *set, uint64_t page)
{
	for (unsigned level = 0; level < PAGE_SET_LEVELS; level++) {
		uint64_t *word = &set->levels[level][page / 64];
		uint64_t bit = 1ull << (page % 64);

		if (*word & bit) /* and so it is in all above */
			return level == 0;
		*word |= bit;
		page /= 64;
	}
	return 0;
}

/* The first bit of a level that is not below `at`, within its word. */
static int page_set_first_in_word(const uint64_t *level, uint64_t *at)
{
	uint64_t bits = level[*at / 64] >> (*at % 64);

	if (bits)
		*at += (uint64_t)__builtin_ctzll(bits);
	return bits != 0;
}

/* Upwards until a level has a bit in the rest of a word, then down to the page that it stands for. */
int page_set_next(const struct page_set *set, uint64_t *page, uint64_t end)
{
	uint64_t at = *page;
	unsigned level = 0;

	if (at >= end)
		return 0;
	while (!page_set_first_in_word(set->levels[level], &at)) {
		if (++level == PAGE_SET_LEVELS)
			return 0;
		at = at / 64 + 1;
	}
	while (level > 0) {
		at *= 64;
		(void)page_set_first_in_word(set->levels[--level], &at);
	}
	*page = at;
	return at < end;
}
