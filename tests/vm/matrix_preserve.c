/* SPDX-License-Identifier: MIT */
/*
 * The job "preserve": the image of a snapshot equals the memory at the cut, while that is overwritten and punched by
 * two threads, and paged out and zapped by a third. See matrix.h.
 *
 * Writers own alternate pages, so that each knows what its pages hold (the shadow). In every other round a gate holds
 * the sink until all writes are made: those pages can only have come by faults.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gate.h"
#include "matrix.h"

#define ROUNDS 3
#define WRITERS 2

struct preserve {
	struct place *place;
	struct outcome *outcome;
	uint8_t *cut;   /* the memory when the cut was made */
	uint8_t *image; /* what came to the sink */
	struct gate gate;
	_Atomic unsigned writing; /* writers that are not done */
	uint64_t by_faults;
	uint64_t by_sweep;
	size_t swapped;
};

struct writer {
	struct preserve *preserve;
	struct chance chance;
	size_t first; /* its pages: first, first + WRITERS, ... */
	size_t wrong; /* a page that did not hold what it should, plus 1; 0: none */
	int error;
};

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct preserve *preserve = user;

	gate_pass(&preserve->gate);
	memcpy(preserve->image + offset, data, length);
	return 0;
}

static size_t own_page(struct writer *writer)
{
	size_t pages = writer->preserve->place->pages;

	return chance_below(&writer->chance, pages / WRITERS) * WRITERS + writer->first;
}

static void punch(struct writer *writer, size_t page)
{
	struct place *place = writer->preserve->place;
	size_t at = page * place->page_bytes;

	writer->error = uffdwp_region_punch(place->region, at, place->page_bytes);
	memset(place->shadow + at, 0, place->page_bytes);
}

/*
 * A hole that was read is a page of zeros, clean, which the kernel may drop again when memory is short: the library
 * cannot distinguish that from a punch, and a snapshot fails, as it is documented to. Not so where the library itself
 * fills what is read.
 */
static int may_read(const struct place *place, size_t page)
{
	const uint8_t *at = place->shadow + page * place->page_bytes;

	if (place->cell.mechanism == UFFDWP_MECHANISM_REARM || place->cell.mechanism == UFFDWP_MECHANISM_MINOR)
		return 1;
	for (size_t i = 0; i < place->page_bytes; i++)
		if (at[i])
			return 1;
	return 0;
}

static void *write_pages(void *argument)
{
	struct writer *writer = argument;
	struct place *place = writer->preserve->place;

	for (unsigned i = 0; i < place->pages + 16 && !writer->wrong && !writer->error; i++) {
		size_t page = own_page(writer);
		size_t what = chance_below(&writer->chance, 8);

		if (what == 0)
			punch(writer, page);
		else if (what < 4)
			writer->wrong = may_read(place, page) && !place_agrees(place, page) ? page + 1 : 0;
		else
			place_write(place, &writer->chance, page);
	}
	atomic_fetch_sub(&writer->preserve->writing, 1);
	return NULL;
}

/* Takes page-table entries away: first of many pages, then here and there until the writers are done. */
static void disturb(struct preserve *preserve)
{
	struct place *place = preserve->place;
	enum treatment treatments[] = {TREAT_SWAP, TREAT_ZAP};
	const struct timespec pause = {.tv_nsec = 100000}; /* the CPUs are the writers' */

	do {
		enum treatment treatment = treatments[chance_below(&place->chance, 2)];
		size_t first = chance_below(&place->chance, place->pages - 4);

		if (place_may_treat(place, treatment))
			(void)place_treat(place, treatment, first, first + 4);
		(void)nanosleep(&pause, NULL);
	} while (atomic_load(&preserve->writing) > 0);
}

static void empty_entries(struct preserve *preserve)
{
	struct place *place = preserve->place;
	size_t third = place->pages / 3;

	if (place_may_treat(place, TREAT_SWAP))
		(void)place_treat(place, TREAT_SWAP, 0, third);
	if (place_may_treat(place, TREAT_ZAP))
		(void)place_treat(place, TREAT_ZAP, third, 2 * third);
	preserve->swapped += place_swapped(place);
}

static int overwrite(struct preserve *preserve)
{
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	int result = 1;

	atomic_store(&preserve->writing, WRITERS);
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.preserve = preserve, .first = i};
		writers[i].chance.state = chance_next(&preserve->place->chance);
		if (pthread_create(&threads[i], NULL, write_pages, &writers[i]) != 0)
			abort();
	}
	disturb(preserve);
	for (size_t i = 0; i < WRITERS; i++) {
		(void)pthread_join(threads[i], NULL);
		if (writers[i].wrong)
			result = outcome_fail(preserve->outcome, "page %zu: content is wrong", writers[i].wrong - 1);
		else if (writers[i].error)
			result =
			        outcome_fail(preserve->outcome, "uffdwp_region_punch: %s", strerror(-writers[i].error));
	}
	return result;
}

static int compare(struct preserve *preserve)
{
	struct place *place = preserve->place;

	for (size_t page = 0; page < place->pages; page++) {
		size_t at = page * place->page_bytes;

		if (memcmp(preserve->image + at, preserve->cut + at, place->page_bytes) != 0)
			return outcome_fail(preserve->outcome, "page %zu of the image is not as it was at the cut",
			                    page);
	}
	return 1;
}

/* When all is over: it reads every page. */
static int check_memory(const struct preserve *preserve)
{
	struct place *place = preserve->place;

	for (size_t page = 0; page < place->pages; page++)
		if (!place_agrees(place, page))
			return outcome_fail(preserve->outcome, "page %zu of the memory is not as it was written", page);
	return 1;
}

/* Waits for the end of a snapshot, frees it; its own error comes before what went wrong around it. */
static int finish(struct preserve *preserve, struct uffdwp_snapshot *snapshot, int so_far)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	char text[200] = "";
	int error = uffdwp_snapshot_wait(snapshot, -1, &progress);

	(void)uffdwp_snapshot_text(snapshot, text, sizeof(text));
	(void)uffdwp_snapshot_free(snapshot);
	preserve->by_faults += progress.pages_fault + progress.pages_prepare;
	preserve->by_sweep += progress.pages_sweep;
	if (error)
		return outcome_fail(preserve->outcome, "the snapshot failed: %s: %s", strerror(-error), text);
	return so_far;
}

static int preserve_round(struct preserve *preserve, int holds_sink, enum uffdwp_arming arming)
{
	struct place *place = preserve->place;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;

	preserve->gate = (struct gate)GATE_INIT;
	preserve->gate.open = !holds_sink;
	memset(preserve->image, 0, place->length_bytes);
	memcpy(preserve->cut, place->shadow, place->length_bytes);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.user = preserve;
	options.arming = (uint32_t)arming;
	options.pool_bytes = 2 * place->length_bytes + 32 * place->page_bytes;
	int error = uffdwp_snapshot_begin(place->region, &options, &snapshot);

	if (error)
		return outcome_fail(preserve->outcome, "uffdwp_snapshot_begin: %s", strerror(-error));
	empty_entries(preserve);
	int good = overwrite(preserve);

	gate_open(&preserve->gate);
	return finish(preserve, snapshot, good) && compare(preserve);
}

/* In rounds; after a move of the page tables an empty entry has lost nothing. */
static int check_losses(const struct preserve *preserve, const struct uffdwp_region_stats *stats)
{
	const struct cell *cell = &preserve->place->cell;

	if (!expect_losses || cell->memory != UFFDWP_MEMORY_SHMEM || cell->mechanism != UFFDWP_MECHANISM_REARM)
		return 1;
	if (!stats->lost_by[UFFDWP_LOSS_HOLE] || !stats->lost_by[UFFDWP_LOSS_SWAP])
		return outcome_fail(preserve->outcome, "losses expected: %llu by hole and %llu by swap were counted",
		                    (unsigned long long)stats->lost_by[UFFDWP_LOSS_HOLE],
		                    (unsigned long long)stats->lost_by[UFFDWP_LOSS_SWAP]);
	return 1;
}

static void report(const struct preserve *preserve)
{
	struct uffdwp_region_stats stats = place_stats(preserve->place);
	const uint64_t *lost = stats.lost_by;

	if (!check_losses(preserve, &stats))
		return;
	preserve->outcome->verdict = PROVED;
	(void)snprintf(preserve->outcome->text, sizeof(preserve->outcome->text),
	               "by-faults=%llu by-sweep=%llu swapped=%zu lost-hole=%llu lost-swap=%llu lost-zap=%llu "
	               "lost-unmapped=%llu lost-unknown=%llu rearmed=%llu filled=%llu",
	               (unsigned long long)preserve->by_faults, (unsigned long long)preserve->by_sweep,
	               preserve->swapped, (unsigned long long)lost[UFFDWP_LOSS_HOLE],
	               (unsigned long long)lost[UFFDWP_LOSS_SWAP], (unsigned long long)lost[UFFDWP_LOSS_ZAP],
	               (unsigned long long)lost[UFFDWP_LOSS_UNMAPPED], (unsigned long long)lost[UFFDWP_LOSS_UNKNOWN],
	               (unsigned long long)stats.pages_rearmed, (unsigned long long)stats.pages_filled);
}

static int play(struct preserve *preserve)
{
	for (int round = 0; round < ROUNDS; round++) {
		enum uffdwp_arming arming = round == 2 ? UFFDWP_ARMING_ROUNDS : UFFDWP_ARMING_AUTO;

		if (!preserve_round(preserve, round % 2 == 0, arming))
			return 0;
	}
	if (!preserve->by_faults)
		return outcome_fail(preserve->outcome, "no page was saved by a fault");
	return check_memory(preserve);
}

void preserve_job(struct place *place, struct outcome *outcome)
{
	struct preserve preserve = {.place = place, .outcome = outcome};

	preserve.cut = malloc(place->length_bytes);
	preserve.image = malloc(place->length_bytes);
	if (!preserve.cut || !preserve.image)
		(void)outcome_fail(outcome, "no memory for the image");
	else if (play(&preserve))
		report(&preserve);
	free(preserve.cut);
	free(preserve.image);
}
