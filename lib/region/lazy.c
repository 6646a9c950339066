/* SPDX-License-Identifier: MIT */
/* See lazy.h. Part of the fault path. */
#include "region/lazy.h"

#include <errno.h>
#include <stddef.h>

#include "base/math.h"
#include "kernel/own.h"
#include "region/region.h"

#define WORD_BITS 64u

static uint64_t lazy_words_of(uint64_t bits)
{
	return (bits + WORD_BITS - 1) / WORD_BITS;
}

struct lazy *lazy_new(const struct kernel_ops *k, uint64_t pages)
{
	struct lazy *lazy = pages_new(k, sizeof(*lazy));
	uint64_t words = lazy_words_of(pages);

	if (!lazy)
		return NULL;
	atomic_store(&lazy->ended, pages == 0);
	lazy->k = k;
	atomic_store(&lazy->ended_fd, -1);
	lazy->tag = own_new();
	lazy->end_page = pages;
	lazy->pages = pages_new(k, pages + 1); /* none is asked for nothing */
	lazy->wanted = pages_new(k, (words + 1) * sizeof(*lazy->wanted));
	lazy->full = pages_new(k, (lazy_words_of(words) + 1) * sizeof(*lazy->full));
	atomic_store(&lazy->left, pages);
	if (lazy->pages && lazy->wanted && lazy->full)
		return lazy;
	lazy_free(k, lazy);
	return NULL;
}

void lazy_free(const struct kernel_ops *k, struct lazy *lazy)
{
	if (!lazy)
		return;
	uint64_t words = lazy_words_of(lazy->end_page);
	int fd = atomic_load(&lazy->ended_fd);

	own_close(k, fd, lazy->tag);
	pages_free(k, (void *)lazy->pages, lazy->end_page + 1);
	pages_free(k, (void *)lazy->touched, (words + 1) * sizeof(*lazy->touched));
	pages_free(k, (void *)lazy->touches, lazy->touches_max * sizeof(*lazy->touches));
	pages_free(k, (void *)lazy->wanted, (words + 1) * sizeof(*lazy->wanted));
	pages_free(k, (void *)lazy->full, (lazy_words_of(words) + 1) * sizeof(*lazy->full));
	pages_free(k, lazy, sizeof(*lazy));
}

void lazy_kick(struct lazy *lazy, int all)
{
	/* Pairs with lazy_idle(): a thread that is not counted yet will find the word moved. */
	atomic_fetch_add(&lazy->kicks, 1);
	if (atomic_load(&lazy->idle) > 0)
		lazy->k->futex_wake((const uint32_t *)&lazy->kicks, all ? INT32_MAX : 1);
}

void lazy_idle(struct lazy *lazy, uint32_t seen)
{
	atomic_fetch_add(&lazy->idle, 1);
	lazy->k->futex_wait((const uint32_t *)&lazy->kicks, seen, 0);
	atomic_fetch_sub(&lazy->idle, 1);
}

static int lazy_move(struct lazy *lazy, uint64_t page, unsigned from, unsigned to)
{
	uint8_t expected = (uint8_t)from;

	return atomic_compare_exchange_strong(&lazy->pages[page], &expected, (uint8_t)to);
}

/* Pairs with lazy_fd(): of `ended` and `ended_fd` each is stored before the other is looked at. */
static void lazy_signal_end(struct lazy *lazy)
{
	int fd = atomic_load(&lazy->ended_fd);

	if (fd >= 0)
		own_kick(lazy->k, fd, lazy->tag);
}

int lazy_fd(struct lazy *lazy)
{
	int fd = atomic_load(&lazy->ended_fd);

	if (fd >= 0)
		return fd;
	fd = own_eventfd(lazy->k, lazy->tag);
	if (fd < 0)
		return fd;
	atomic_store(&lazy->ended_fd, fd);
	if (atomic_load(&lazy->ended))
		lazy_signal_end(lazy);
	return fd;
}

/* So many pages are not absent any more. */
static void lazy_count_out(struct lazy *lazy, uint64_t pages)
{
	if (!pages || atomic_fetch_sub(&lazy->left, pages) != pages)
		return;
	atomic_store(&lazy->ended, 1);
	lazy_signal_end(lazy);
	lazy->k->futex_wake((const uint32_t *)&lazy->ended, INT32_MAX);
	lazy_kick(lazy, 1);
}

/* ---- what is wanted ---- */

void lazy_want(struct lazy *lazy, uint64_t page)
{
	uint64_t word = page / WORD_BITS;

	if (!lazy_move(lazy, page, LAZY_PENDING, LAZY_WANTED))
		return;
	atomic_fetch_or(&lazy->wanted[word], 1ull << (page % WORD_BITS));
	atomic_fetch_or(&lazy->full[word / WORD_BITS], 1ull << (word % WORD_BITS));
	lazy_kick(lazy, 0);
}

int lazy_note_touches(struct lazy *lazy, uint64_t max)
{
	uint64_t words = lazy_words_of(lazy->end_page);

	if (!max || !lazy->end_page)
		return 0;
	lazy->touched = pages_new(lazy->k, (words + 1) * sizeof(*lazy->touched));
	lazy->touches_max = math_min_u64(max, lazy->end_page);
	lazy->touches = pages_new(lazy->k, lazy->touches_max * sizeof(*lazy->touches));
	return lazy->touched && lazy->touches ? 0 : -ENOMEM;
}

void lazy_touch(struct lazy *lazy, uint64_t page)
{
	uint64_t bit = 1ull << (page % WORD_BITS);

	if (!lazy->touches_max || atomic_fetch_or(&lazy->touched[page / WORD_BITS], bit) & bit)
		return;
	uint64_t at = atomic_fetch_add(&lazy->touch_count, 1);

	if (at < lazy->touches_max)
		atomic_store(&lazy->touches[at], page + 1);
}

uint64_t lazy_touches(const struct lazy *lazy, unsigned page_shift, uint64_t *offsets, uint64_t most)
{
	uint64_t count = math_min_u64(atomic_load(&lazy->touch_count), lazy->touches_max);

	for (uint64_t at = 0; at < count; at++) {
		uint64_t page = atomic_load(&lazy->touches[at]);

		if (!page) /* a thread stores it at this moment: the next call has it */
			return at;
		if (at < most)
			offsets[at] = (page - 1) << page_shift;
	}
	return count;
}

/* The word is empty, perhaps: a bit that came meanwhile is not forgotten. */
static void lazy_clear_full(struct lazy *lazy, uint64_t word)
{
	uint64_t bit = 1ull << (word % WORD_BITS);

	atomic_fetch_and(&lazy->full[word / WORD_BITS], ~bit);
	if (atomic_load(&lazy->wanted[word]))
		atomic_fetch_or(&lazy->full[word / WORD_BITS], bit);
}

static int lazy_take_in_word(struct lazy *lazy, uint64_t word, uint64_t *page)
{
	uint64_t bits;

	while ((bits = atomic_load(&lazy->wanted[word])) != 0) {
		uint64_t bit = bits & -bits;

		if (!(atomic_fetch_and(&lazy->wanted[word], ~bit) & bit))
			continue;
		*page = word * WORD_BITS + (uint64_t)__builtin_ctzll(bit);
		if (!lazy_move(lazy, *page, LAZY_WANTED, LAZY_FETCHING))
			continue;
		atomic_fetch_add(&lazy->demanded, 1);
		return 1;
	}
	lazy_clear_full(lazy, word);
	return 0;
}

int lazy_take_wanted(struct lazy *lazy, uint64_t *page)
{
	uint64_t groups = lazy_words_of(lazy_words_of(lazy->end_page));

	for (uint64_t group = 0; group < groups; group++) {
		uint64_t bits = atomic_load(&lazy->full[group]);

		for (; bits; bits &= bits - 1) {
			if (lazy_take_in_word(lazy, group * WORD_BITS + (uint64_t)__builtin_ctzll(bits), page))
				return 1;
		}
	}
	return 0;
}

int lazy_claim(struct lazy *lazy, uint64_t page)
{
	if (lazy_move(lazy, page, LAZY_PENDING, LAZY_FETCHING))
		return 1;
	if (!lazy_move(lazy, page, LAZY_WANTED, LAZY_FETCHING))
		return 0;
	atomic_fetch_add(&lazy->demanded, 1);
	return 1;
}

/* ---- the result ---- */

static void lazy_note_failed(struct lazy *lazy, uint64_t page, uint64_t pages, int error)
{
	int none = 0;

	atomic_fetch_add(&lazy->failed, pages);
	if (atomic_compare_exchange_strong(&lazy->error, &none, error))
		atomic_store(&lazy->error_page, page);
}

/* Counted before the state says so; a page that is dropped between has not failed after all. */
static void lazy_settle_page(struct lazy *lazy, uint64_t page, int error)
{
	unsigned to = error ? (unsigned)((int)LAZY_FAILED - error) : (unsigned)LAZY_DONE;
	int fails = error && atomic_load(&lazy->pages[page]) != LAZY_DROPPED;

	if (fails)
		lazy_note_failed(lazy, page, 1, error);
	if (lazy_move(lazy, page, LAZY_FETCHING, to))
		return;
	atomic_store(&lazy->pages[page], LAZY_DONE);
	if (fails)
		atomic_fetch_sub(&lazy->failed, 1);
}

void lazy_settle(struct lazy *lazy, uint64_t first, uint64_t end, int error)
{
	for (uint64_t page = first; page < end; page++)
		lazy_settle_page(lazy, page, error);
	lazy_count_out(lazy, end - first);
}

int lazy_forget(struct lazy *lazy, uint64_t page, int *failed)
{
	unsigned state = lazy_state(lazy, page);

	if (state == LAZY_DONE)
		return 1;
	if (state > LAZY_FAILED) { /* by the owner of the region's lock only */
		*failed = 1;
		atomic_store(&lazy->pages[page], LAZY_PUNCHED);
		atomic_fetch_sub(&lazy->failed, 1);
		return 1;
	}
	if (!lazy_move(lazy, page, LAZY_PENDING, LAZY_PUNCHED) && !lazy_move(lazy, page, LAZY_WANTED, LAZY_PUNCHED))
		return lazy_state(lazy, page) == LAZY_DONE;
	lazy_count_out(lazy, 1);
	return 1;
}

void lazy_drop(struct lazy *lazy, uint64_t page)
{
	unsigned state = page < lazy->end_page ? atomic_load(&lazy->pages[page]) : (unsigned)LAZY_DONE;

	while (state <= LAZY_FETCHING || state > LAZY_FAILED) {
		if (!lazy_move(lazy, page, state, state == LAZY_FETCHING ? LAZY_DROPPED : LAZY_DONE)) {
			state = atomic_load(&lazy->pages[page]);
			continue;
		}
		if (state < LAZY_FETCHING)
			lazy_count_out(lazy, 1);
		else if (state > LAZY_FAILED)
			atomic_fetch_sub(&lazy->failed, 1);
		return;
	}
}

void lazy_end_punch(struct lazy *lazy, uint64_t page, int error)
{
	if (page >= lazy->end_page || atomic_load(&lazy->pages[page]) != LAZY_PUNCHED)
		return;
	if (error)
		lazy_note_failed(lazy, page, 1, error);
	atomic_store(&lazy->pages[page], (uint8_t)(error ? (int)LAZY_FAILED - error : (int)LAZY_DONE));
}

void lazy_stop(struct lazy *lazy, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&lazy->stop, &none, error);
	lazy_kick(lazy, 1);
}

void lazy_fail_rest(struct lazy *lazy, int error)
{
	for (uint64_t page = 0; page < lazy->end_page; page++) {
		if (!lazy_is_absent(lazy, page))
			continue;
		if (lazy_move(lazy, page, LAZY_PENDING, LAZY_FETCHING) ||
		    lazy_move(lazy, page, LAZY_WANTED, LAZY_FETCHING))
			lazy_settle(lazy, page, page + 1, error);
	}
}

int region_is_absent(const struct uffdwp_region *region, uint64_t page)
{
	const struct lazy *lazy = atomic_load(&region->lazy);

	return lazy && lazy_state(lazy, page) != LAZY_DONE;
}
