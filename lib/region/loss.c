/* SPDX-License-Identifier: MIT */
/* See loss.h. */
#include "region/loss.h"

#include <errno.h>

#include "kernel/own.h"
#include "region/region.h"

int losses_open(struct losses *losses, const struct kernel_ops *k, uint64_t pages)
{
	losses->words = (pages + 63) / 64;
	for (unsigned cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		losses->bits[cause] = pages_new(k, losses->words * sizeof(*losses->bits[0]));
		if (!losses->bits[cause])
			return -ENOMEM;
	}
	return 0;
}

void losses_close(struct losses *losses, const struct kernel_ops *k)
{
	for (unsigned cause = 0; cause < UFFDWP_LOSS_COUNT; cause++)
		pages_free(k, (void *)losses->bits[cause], losses->words * sizeof(*losses->bits[0]));
}

static int loss_write_down(struct losses *losses, enum uffdwp_loss cause, uint64_t page)
{
	atomic_fetch_add_explicit(&losses->count[cause], 1, memory_order_relaxed);
	atomic_fetch_or(&losses->bits[cause][page / 64], 1ull << (page % 64));
	atomic_store(&losses->listed[cause], 1);
	return !atomic_exchange(&losses->news, 1);
}

void loss_note(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page)
{
	loss_write_down(&region->losses, cause, page);
}

void loss_add(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page)
{
	/* The thread that found it may be a writer, or a barrier. */
	if (loss_write_down(&region->losses, cause, page) && region->on_loss && region->wake_fd >= 0)
		own_kick(region->k, region->wake_fd, region->wake_tag);
}

/* One page into the last range, or into a new one. 0: no room. */
static int loss_list_page(struct uffdwp_lost_range *ranges, size_t capacity, size_t *count, uint32_t cause,
                          uint64_t page, unsigned page_shift)
{
	struct uffdwp_lost_range *last = *count ? &ranges[*count - 1] : NULL;

	if (last && last->cause == cause && last->end == page << page_shift) {
		last->end += 1ull << page_shift;
		return 1;
	}
	if (*count == capacity)
		return 0;
	ranges[(*count)++] = (struct uffdwp_lost_range){
	        .start = page << page_shift, .end = (page + 1) << page_shift, .cause = cause};
	return 1;
}

/* 0: no room for all of the word. What had none is put back. */
static int loss_list_word(struct losses *losses, uint32_t cause, uint64_t word, unsigned page_shift,
                          struct uffdwp_lost_range *ranges, size_t capacity, size_t *count)
{
	uint64_t bits = atomic_load(&losses->bits[cause][word]) ? atomic_exchange(&losses->bits[cause][word], 0) : 0;

	for (; bits; bits &= bits - 1) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);

		if (loss_list_page(ranges, capacity, count, cause, page, page_shift))
			continue;
		atomic_fetch_or(&losses->bits[cause][word], bits);
		return 0;
	}
	return 1;
}

size_t losses_take(struct losses *losses, unsigned page_shift, struct uffdwp_lost_range *ranges, size_t capacity)
{
	size_t count = 0;

	for (uint32_t cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		if (!atomic_exchange(&losses->listed[cause], 0)) /* lowered first: what comes meanwhile raises it */
			continue;
		for (uint64_t word = 0; word < losses->words; word++) {
			if (loss_list_word(losses, cause, word, page_shift, ranges, capacity, &count))
				continue;
			atomic_store(&losses->listed[cause], 1);
			return count;
		}
	}
	return count;
}

uint64_t losses_count(const struct losses *losses, uint64_t by_cause[UFFDWP_LOSS_COUNT])
{
	uint64_t all = 0;

	for (unsigned cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		by_cause[cause] = atomic_load(&losses->count[cause]);
		all += by_cause[cause];
	}
	return all;
}

void losses_report(struct uffdwp_region *region)
{
	if (atomic_load(&region->losses.news) && atomic_exchange(&region->losses.news, 0) && region->on_loss)
		region->on_loss(region->on_loss_user, region);
}

int losses_have_news(const struct uffdwp_region *region)
{
	return atomic_load(&region->losses.news) && region->on_loss;
}
