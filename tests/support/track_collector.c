/* SPDX-License-Identifier: MIT */
/* See track_collector.h. */
#include "track_collector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define RANGES_MOST 256
#define BITMAP_WORDS 256

/* A request, and where its answer goes. */
struct request {
	struct uffdwp_collect collect;
	struct collector *collector;
	struct uffdwp_written ranges[RANGES_MOST];
	uint64_t bitmap[BITMAP_WORDS];
	uint64_t start; /* addresses that are asked for */
	uint64_t end;
	uint64_t came_bytes; /* ranges that came */
	uint64_t came_end;
	size_t came;
};

static struct field *field_of(const struct request *request)
{
	return request->collector->judge->field;
}

int collect_by_library(struct field *field, struct uffdwp_collect *request)
{
	return uffdwp_track_collect(field->track, request);
}

void collector_open(struct collector *collector, struct judge *judge, collect_fn collect, uint64_t salt)
{
	memset(collector, 0, sizeof(*collector));
	collector->judge = judge;
	collector->collect = collect;
	collector->chance = chance_new(salt);
	judge_view_open(&collector->view, judge);
}

void collector_close(struct collector *collector)
{
	judge_view_close(&collector->view);
}

/* --- what is asked for -------------------------------------------------------------------------------------------- */

/* Everything, or some pages of a block, or all that lies in the first slot. */
static void choose_range(struct request *request, struct chance *chance)
{
	struct field *field = field_of(request);
	struct uffdwp_collect *collect = &request->collect;
	size_t kind = chance_below(chance, 4);
	if (kind == 0) {
		size_t page = chance_below(chance, field->pages);
		size_t room = field->block_pages - page % field->block_pages;
		collect->start = field_address(field, page);
		collect->length = (1 + chance_below(chance, room)) * field->page_bytes;
	} else if (kind == 1) {
		collect->start = field->slots[0] != NULL ? field->slots[0] : field_address(field, 0);
		collect->length = field->pages * field->page_bytes;
	}
	if (collect->start != NULL) {
		request->start = (uint64_t)(uintptr_t)collect->start;
		request->end = request->start + collect->length;
	}
}

static void take_range(struct request *request, const struct uffdwp_written *range)
{
	must(range->start < range->end && (range->start | range->end) % field_of(request)->page_bytes == 0);
	must(range->start >= request->came_end && range->flags == UFFDWP_TRACK_WRITTEN);
	must(range->start >= request->start && range->end <= request->end);
	view_report(&request->collector->view, field_of(request), range->start, range->end);
	request->came_end = range->end;
	request->came_bytes += range->end - range->start;
	request->came++;
}

static void take_by_callback(void *user, const struct uffdwp_written *range)
{
	take_range(user, range);
}

static void choose_answer(struct request *request, struct chance *chance)
{
	static const size_t capacities[] = {1, 2, 7, 64, RANGES_MOST};
	struct uffdwp_collect *collect = &request->collect;
	size_t words = (collect->length / (size_t)sysconf(_SC_PAGESIZE) + 63) / 64;
	size_t kind = chance_below(chance, 3);
	if (kind == 0 && words != 0 && words <= BITMAP_WORDS) {
		collect->bitmap = request->bitmap;
		collect->bitmap_bytes = words * 8;
	} else if (kind == 1) {
		collect->callback = take_by_callback;
		collect->user = request;
	} else {
		collect->ranges = request->ranges;
		collect->capacity = capacities[chance_below(chance, 5)];
	}
}

static struct request *new_request(struct collector *collector)
{
	static const struct uffdwp_collect empty = UFFDWP_COLLECT_INIT;
	struct request *request = calloc(1, sizeof(*request));
	must(request != NULL);
	request->collect = empty;
	request->collector = collector;
	request->end = UINT64_MAX;
	return request;
}

/* --- what comes back ---------------------------------------------------------------------------------------------- */

static void take_bits(struct request *request)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t bits = 0;
	for (uint64_t n = 0; n < request->collect.length / page_bytes; n++) {
		if ((request->collect.bitmap[n / 64] >> n % 64 & 1) != 0) {
			uint64_t at = request->start + n * page_bytes;
			view_report(&request->collector->view, field_of(request), at, at + page_bytes);
			bits++;
		}
	}
	must(bits * page_bytes == request->collect.bytes && request->collect.next == NULL);
}

static void take_answer(struct request *request)
{
	const struct uffdwp_collect *collect = &request->collect;
	if (collect->bitmap != NULL) {
		take_bits(request);
		return;
	}
	for (size_t i = 0; collect->ranges != NULL && i < collect->count; i++) {
		take_range(request, &collect->ranges[i]);
	}
	must(collect->count == request->came && collect->bytes == request->came_bytes);
	must(collect->next == NULL || (collect->ranges != NULL && collect->count == collect->capacity));
}

static void explain(const struct request *request, int error)
{
	const struct field *field = field_of(request);
	char text[256] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s by %s: uffdwp_track_collect: %s: %s\n", field_memory_name(field->memory),
	        field->method->name, strerror(-error), text);
}

/* -ENOENT: nothing of what was asked for is tracked any more. */
static void ask_once(struct request *request)
{
	struct collector *collector = request->collector;
	struct uffdwp_collect *collect = &request->collect;
	int is_peek = (collect->flags & UFFDWP_TRACK_COLLECT_PEEK) != 0;
	request->came = 0;
	request->came_bytes = 0;
	request->came_end = 0;
	judge_look(collector->judge, &collector->view);
	int error = collector->collect(field_of(request), collect);
	if (error == 0) {
		take_answer(request);
		collector->vanished_bytes += collect->vanished_bytes;
	} else if (error == -ENOENT) {
		collect->next = NULL;
	} else {
		explain(request, error);
		must(error == 0);
	}
	uint64_t end = collect->next != NULL ? (uint64_t)(uintptr_t)collect->next : request->end;
	must(end > request->start);
	judge_collected(collector->judge, &collector->view, request->start, end, is_peek, collector->alone);
	if (!is_peek) {
		judge_copy(collector->judge, &collector->view);
	}
}

/* A collect that goes on where the last one ended is one of its own. 1 of `stops` is not gone on with; 0: all are. */
static void ask_to_the_end(struct request *request, size_t stops)
{
	struct uffdwp_collect *collect = &request->collect;
	ask_once(request);
	while (collect->next != NULL && (stops == 0 || chance_below(&request->collector->chance, stops) != 0)) {
		request->start = (uint64_t)(uintptr_t)collect->next;
		collect->start = collect->next;
		collect->length = request->end == UINT64_MAX ? 0 : (size_t)(request->end - request->start);
		ask_once(request);
	}
}

void collector_ask(struct collector *collector)
{
	struct request *request = new_request(collector);
	request->collect.flags = chance_below(&collector->chance, 4) == 0 ? UFFDWP_TRACK_COLLECT_PEEK : 0;
	choose_range(request, &collector->chance);
	choose_answer(request, &collector->chance);
	ask_to_the_end(request, 8);
	free(request);
}

void collector_ask_all(struct collector *collector)
{
	struct request *request = new_request(collector);
	request->collect.ranges = request->ranges;
	request->collect.capacity = RANGES_MOST;
	ask_to_the_end(request, 0);
	free(request);
}
