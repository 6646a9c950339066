/* SPDX-License-Identifier: MIT */
/*
 * Which pages had content at the cut, in preserve.content: the sweep compares, and a page that has none any more
 * fails it. A bit that is missing is a discard that goes unnoticed, so the bits follow what the cut arms:
 *
 *   before the rounds     all pages are looked at, for increments
 *   after the first round what has no bit is looked at once more: it is armed now, so that its first write is a fault
 *   later rounds, pause   what is armed has been written since: it is looked at when it was armed, while faults are
 *                         stalled, unless it has its bit
 *
 *   after the cut         instead of all that, of a cut that moves page tables, where a discard between can be noticed
 *                         otherwise: see move.c
 *
 * A page that is armed can lose content, but gets some by a fault only. So at the cut no page has content without its
 * bit, but for those of which region_content() cannot know.
 *
 * uffdwp_region_punch() takes bits out again while a cut is prepared: hence word by word, each under the region's lock,
 * and known to the region from the start.
 */
#include <errno.h>

#include "base/math.h"
#include "cut/cut.h"

/* Pages [first, end) of one word. */
static uint64_t content_of(struct cut *cut, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = cut->region;
	uint64_t content = region_content(region, first, end, 0);

	return cut->swap_on && content ? region_content_but_zeros(region, first, end, content) : content;
}

/* Looks at pages [first, end) of one word of which some have no bit. The next page that may have content. */
static uint64_t content_look_at(struct cut *cut, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = cut->region;
	_Atomic uint64_t *word = &cut->preserve->content[first / 64];
	uint64_t all = math_low_bits(end - first) << (first % 64);

	if ((atomic_load(word) & all) == all)
		return end;
	uint64_t next =
	        region_seek(region, first << region->page_shift, region->capacity_bytes, REGION_SEEK_DATA_HINT) >>
	        region->page_shift;

	if (next >= end) /* a hole, which may be very large */
		return next;
	atomic_fetch_or(word, content_of(cut, first, end) << (first % 64));
	return end;
}

void content_look(struct cut *cut, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end && cut->preserve;)
		page = content_look_at(cut, page, math_min_u64((page / 64 + 1) * 64, end));
}

void content_look_again(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t end = cut->end_page;

	for (uint64_t page = 0; page < end && cut->preserve;) {
		lock_take(&region->lock);
		page = content_look_at(cut, page, math_min_u64((page / 64 + 1) * 64, end));
		lock_give(&region->lock);
	}
}

int content_open(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t pages = cut->end_page;

	cut->preserve->content = pages_new(cut->k, math_bitmap_bytes(cut->pages_most));
	if (!cut->preserve->content)
		return -ENOMEM;
	lock_take(&region->lock);
	region->content = cut->preserve->content;
	lock_give(&region->lock);
	for (uint64_t page = 0; page < pages && !cut->looks_late; page += 64) {
		lock_take(&region->lock);
		atomic_store(&cut->preserve->content[page / 64], content_of(cut, page, math_min_u64(page + 64, pages)));
		lock_give(&region->lock);
	}
	return 0;
}

void content_unpublish(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region->content = NULL;
	lock_give(&region->lock);
}
