/* SPDX-License-Identifier: MIT */
/* See track_judge.h. */
#include "track_judge.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define PRINTED_MISSES 8

static void *array(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	must(memory != NULL);
	return memory;
}

static size_t counts(const struct judge *judge)
{
	return judge->writers * judge->field->pages;
}

void judge_open(struct judge *judge, struct field *field, size_t writers)
{
	memset(judge, 0, sizeof(*judge));
	judge->field = field;
	judge->writers = writers;
	judge->begun = array(counts(judge), sizeof(*judge->begun));
	judge->done = array(counts(judge), sizeof(*judge->done));
	judge->covered = array(counts(judge), sizeof(*judge->covered));
	judge->watch = array(field->pages, sizeof(*judge->watch));
	judge->may_zero = array(field->pages, sizeof(*judge->may_zero));
	judge->delays = array(field->pages, sizeof(*judge->delays));
	judge->overdue = array(field->pages, 1);
	judge->history = array(field->pages, JUDGE_HISTORY);
	judge->copy = array(field->pages, field->page_bytes);
	must(pthread_mutex_init(&judge->lock, NULL) == 0);
	for (size_t stripe = 0; stripe < JUDGE_STRIPES; stripe++) {
		must(pthread_mutex_init(&judge->stripes[stripe], NULL) == 0);
	}
	for (size_t page = 0; page < field->pages; page++) {
		memcpy(judge->copy + page * field->page_bytes, field_address(field, page), field->page_bytes);
	}
}

void judge_close(struct judge *judge)
{
	free((void *)judge->begun);
	free((void *)judge->done);
	free(judge->covered);
	free((void *)judge->watch);
	free((void *)judge->may_zero);
	free((void *)judge->delays);
	free(judge->overdue);
	free((void *)judge->history);
	free(judge->copy);
}

/* --- writers ------------------------------------------------------------------------------------------------------ */

static void count_up(_Atomic uint32_t *count)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* No barrier of the processor between the counts and the write: it would hide what a track has to bear. */
void judge_begin(struct judge *judge, size_t writer, size_t page)
{
	count_up(&judge->begun[writer * judge->field->pages + page]);
	atomic_thread_fence(memory_order_release);
}

void judge_end(struct judge *judge, size_t writer, size_t page)
{
	atomic_thread_fence(memory_order_release);
	count_up(&judge->done[writer * judge->field->pages + page]);
}

/* --- watches ------------------------------------------------------------------------------------------------------ */

/* Bit 0: tracked; bit 1: something goes on; the rest counts. */
#define WATCHED 1u
#define STIRRED 2u

static void watch_step(struct judge *judge, size_t page, size_t pages, uint32_t step)
{
	for (size_t i = page; i < page + pages; i++) {
		atomic_fetch_add(&judge->watch[i], step);
	}
}

void judge_watch(struct judge *judge, size_t page, size_t pages)
{
	must(!judge_watches(judge, page));
	watch_step(judge, page, pages, WATCHED);
}

/* What was written and not collected is forgotten. */
void judge_unwatch(struct judge *judge, size_t page, size_t pages)
{
	must(judge_watches(judge, page));
	watch_step(judge, page, pages, 2 * STIRRED - WATCHED);
	must(pthread_mutex_lock(&judge->lock) == 0);
	memset(judge->overdue + page, 0, pages);
	must(pthread_mutex_unlock(&judge->lock) == 0);
}

void judge_stir(struct judge *judge, size_t page, size_t pages)
{
	watch_step(judge, page, pages, STIRRED);
}

int judge_watches(const struct judge *judge, size_t page)
{
	return (atomic_load(&judge->watch[page]) & WATCHED) != 0;
}

static void copy_page(struct judge *judge, size_t page)
{
	struct field *field = judge->field;
	pthread_mutex_t *stripe = &judge->stripes[page % JUDGE_STRIPES];
	must(pthread_mutex_lock(stripe) == 0);
	memcpy(judge->copy + page * field->page_bytes, field_address(field, page), field->page_bytes);
	must(pthread_mutex_unlock(stripe) == 0);
}

static void cover(struct judge *judge, size_t page, const uint32_t *begun)
{
	for (size_t writer = 0; writer < judge->writers; writer++) {
		size_t at = writer * judge->field->pages + page;
		uint32_t now = begun != NULL ? begun[at] : atomic_load(&judge->begun[at]);
		if ((int32_t)(now - judge->covered[at]) > 0) {
			judge->covered[at] = now;
		}
	}
}

void judge_excuse(struct judge *judge, size_t page, size_t pages)
{
	must(pthread_mutex_lock(&judge->lock) == 0);
	for (size_t i = page; i < page + pages; i++) {
		cover(judge, i, NULL);
		judge->overdue[i] = 0;
	}
	must(pthread_mutex_unlock(&judge->lock) == 0);
	for (size_t i = page; i < page + pages; i++) {
		copy_page(judge, i);
	}
}

void judge_allow_delay(struct judge *judge, size_t page, size_t pages)
{
	for (size_t i = page; i < page + pages; i++) {
		atomic_store(&judge->delays[i], 1);
	}
}

void judge_may_zero(struct judge *judge, size_t page, size_t pages)
{
	for (size_t i = page; i < page + pages; i++) {
		atomic_store(&judge->may_zero[i], 1);
	}
}

/* --- collects ----------------------------------------------------------------------------------------------------- */

void judge_view_open(struct view *view, const struct judge *judge)
{
	memset(view, 0, sizeof(*view));
	view->done = array(counts(judge), sizeof(*view->done));
	view->begun = array(counts(judge), sizeof(*view->begun));
	view->watch = array(judge->field->pages, sizeof(*view->watch));
	view->reported = array(judge->field->pages, 1);
}

void judge_view_close(struct view *view)
{
	free(view->done);
	free(view->begun);
	free(view->watch);
	free(view->reported);
}

static void take_counts(const struct judge *judge, const _Atomic uint32_t *from, uint32_t *to)
{
	for (size_t i = 0; i < counts(judge); i++) {
		to[i] = atomic_load_explicit(&from[i], memory_order_acquire);
	}
}

void judge_look(struct judge *judge, struct view *view)
{
	const struct field *field = judge->field;
	memset(view->reported, 0, field->pages);
	view->foreign = 0;
	for (size_t page = 0; page < field->pages; page++) {
		view->watch[page] = atomic_load(&judge->watch[page]);
	}
	for (size_t block = 0; block < field->blocks; block++) {
		view->base[block] = field_address(field, block * field->block_pages);
	}
	take_counts(judge, judge->done, view->done);
	atomic_thread_fence(memory_order_seq_cst);
}

void view_report(struct view *view, const struct field *field, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end; at += field->page_bytes) {
		size_t page = field_page(field, at);
		if (page == field->pages) {
			view->foreign++;
		} else {
			view->reported[page] = 1;
		}
	}
}

static int is_over(const struct judge *judge, const struct view *view, size_t page)
{
	for (size_t writer = 0; writer < judge->writers; writer++) {
		size_t at = writer * judge->field->pages + page;
		if (view->begun[at] != judge->covered[at]) {
			return 0;
		}
	}
	return 1;
}

/* A write was done before the collect began, and was begun after the last one that reported the page had ended. */
static int is_missed(const struct judge *judge, const struct view *view, size_t page)
{
	for (size_t writer = 0; writer < judge->writers; writer++) {
		size_t at = writer * judge->field->pages + page;
		if ((int32_t)(view->done[at] - judge->covered[at]) > 0) {
			return 1;
		}
	}
	return 0;
}

static int was_watched(const struct judge *judge, const struct view *view, size_t page)
{
	uint32_t watch = view->watch[page];
	return (watch & (WATCHED | STIRRED)) == WATCHED && atomic_load(&judge->watch[page]) == watch;
}

void judge_note(struct judge *judge, size_t page, size_t pages, char deed)
{
	for (size_t i = page; i < page + pages; i++) {
		_Atomic uint8_t *history = &judge->history[i * JUDGE_HISTORY];
		for (size_t n = JUDGE_HISTORY - 1; n > 0; n--) {
			atomic_store(&history[n], atomic_load(&history[n - 1]));
		}
		atomic_store(&history[0], (uint8_t)deed);
	}
}

static void print_miss(struct judge *judge, size_t page, const char *how)
{
	char history[JUDGE_HISTORY + 1] = "";
	for (size_t n = 0; n < JUDGE_HISTORY; n++) {
		char deed = (char)atomic_load(&judge->history[page * JUDGE_HISTORY + n]);
		history[n] = deed != 0 ? deed : '-';
	}
	fprintf(stderr, "%s: %s by %s: page %zu, at %p, after %s, collect %llu\n", how,
	        field_memory_name(judge->field->memory), judge->field->method->name, page,
	        (void *)field_address(judge->field, page), history, (unsigned long long)judge->collects);
}

static void judge_reported(struct judge *judge, const struct view *view, size_t page, int is_peek)
{
	judge->reported++;
	judge->over += is_over(judge, view, page) ? 1 : 0;
	if (!is_peek) {
		cover(judge, page, view->begun);
		judge->overdue[page] = 0;
		atomic_store(&judge->delays[page], 0);
	}
}

static void judge_unreported(struct judge *judge, const struct view *view, size_t page)
{
	if (judge->overdue[page] || !was_watched(judge, view, page) || !is_missed(judge, view, page)) {
		return;
	}
	judge->overdue[page] = 1;
	if (!atomic_load(&judge->delays[page]) && judge->late++ < PRINTED_MISSES) {
		print_miss(judge, page, "not in this answer");
	}
}

static int is_inside(const struct judge *judge, const struct view *view, size_t page, uint64_t start, uint64_t end)
{
	const struct field *field = judge->field;
	uint64_t base = (uint64_t)(uintptr_t)view->base[field_block(field, page)];
	uint64_t at = base + page % field->block_pages * field->page_bytes;
	return at >= start && at < end;
}

void judge_collected(struct judge *judge, struct view *view, uint64_t start, uint64_t end, int is_peek, int alone)
{
	atomic_thread_fence(memory_order_seq_cst);
	take_counts(judge, judge->begun, view->begun);
	must(pthread_mutex_lock(&judge->lock) == 0);
	judge->collects++;
	for (size_t page = 0; page < judge->field->pages; page++) {
		if (view->reported[page]) {
			judge_reported(judge, view, page, is_peek);
		} else if (alone && is_inside(judge, view, page, start, end)) {
			judge_unreported(judge, view, page);
		}
	}
	must(pthread_mutex_unlock(&judge->lock) == 0);
}

void judge_copy(struct judge *judge, const struct view *view)
{
	struct field *field = judge->field;
	for (size_t page = 0; page < field->pages; page++) {
		if (view->reported[page]) {
			field_share(field, field_block(field, page));
			copy_page(judge, page);
			field_leave(field, field_block(field, page));
		}
	}
}

static int is_zero(const uint8_t *bytes, size_t length)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* What was thrown away without a report is zeros in a copy, too. */
static int differs(struct judge *judge, size_t page)
{
	size_t length = judge->field->page_bytes;
	const uint8_t *now = field_address(judge->field, page);
	uint8_t *copy = judge->copy + page * length;
	if (memcmp(now, copy, length) == 0) {
		return 0;
	}
	if (atomic_load(&judge->may_zero[page]) && is_zero(now, length)) {
		memset(copy, 0, length);
		return 0;
	}
	return 1;
}

static int is_unsettled(struct judge *judge, size_t page)
{
	return judge_watches(judge, page) && (judge->overdue[page] || differs(judge, page));
}

size_t judge_differs(struct judge *judge)
{
	size_t count = 0;
	for (size_t page = 0; page < judge->field->pages; page++) {
		count += is_unsettled(judge, page) ? 1 : 0;
	}
	return count;
}

void judge_compare(struct judge *judge)
{
	for (size_t page = 0; page < judge->field->pages; page++) {
		if (is_unsettled(judge, page) && judge->missed++ < PRINTED_MISSES) {
			print_miss(judge, page, judge->overdue[page] ? "never reported" : "the copy differs");
		}
	}
}
