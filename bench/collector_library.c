/* SPDX-License-Identifier: MIT */
/*
 * The library's track as a collector, by its public interface only.
 */
#include <errno.h>
#include <string.h>

#include "bench.h"
#include "collector.h"
#include "contender.h"

static void must(int error, const char *what)
{
	char text[512];

	if (error >= 0)
		return;
	uffdwp_error_text(text, sizeof(text));
	if (error == -EOPNOTSUPP || error == -EPERM)
		bench_skip("%s: %s", what, text);
	bench_die("%s: %s (%s)", what, text, strerror(-error));
}

static void called_back(void *user, const struct uffdwp_written *range)
{
	struct collector *collector = user;

	collector->called += range->end - range->start;
}

static void place(struct collector *collector, struct uffdwp_collect *call)
{
	switch (collector->shape) {
	case COLLECTOR_RANGES:
		call->ranges = collector->ranges;
		call->capacity = collector->setup.vector;
		return;
	case COLLECTOR_BITMAP:
		call->start = collector->setup.area.base;
		call->length = collector->span_bytes;
		call->bitmap = collector->bitmap;
		call->bitmap_bytes = collector->bitmap_bytes;
		return;
	default:
		call->callback = called_back;
		call->user = collector;
	}
}

static uint64_t sum(const struct uffdwp_collect *call)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < call->count; i++)
		bytes += call->ranges[i].end - call->ranges[i].start;
	return bytes;
}

/* Ranges are added up here, as a user would look at each; a bitmap and a callback are served by the library. */
static uint64_t collect(struct collector *collector)
{
	struct uffdwp_collect call = UFFDWP_COLLECT_INIT;
	uint64_t bytes = 0;

	place(collector, &call);
	collector->called = 0;
	do {
		must(uffdwp_track_collect(collector->track, &call), "uffdwp_track_collect");
		bytes += collector->shape == COLLECTOR_RANGES ? sum(&call) : call.bytes;
		call.start = call.next;
	} while (call.next);
	return collector->shape == COLLECTOR_CALLBACK ? collector->called : bytes;
}

static void close_library(struct collector *collector)
{
	must(uffdwp_track_stop(collector->track), "uffdwp_track_stop");
	bench_must(uffdwp_close(collector->runtime), "uffdwp_close");
}

static void add_pieces(struct collector *collector)
{
	const struct collector_setup *setup = &collector->setup;
	size_t piece_bytes = setup->piece_pages * setup->area.page_bytes;
	uint64_t from = bench_now_ns();

	for (size_t i = 0; i < setup->pieces; i++) {
		char *piece = collector_page(collector, i * setup->piece_pages);

		must(uffdwp_track_add(collector->track, piece, piece_bytes, 0), "uffdwp_track_add");
	}
	collector->added_ns = bench_now_ns() - from;
}

static int start(const struct collector_setup *setup, struct uffdwp *runtime, struct uffdwp_track **track)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;

	options.mechanism = setup->soft_dirty ? UFFDWP_MECHANISM_SOFT_DIRTY : UFFDWP_MECHANISM_ASYNC;
	options.flags = (setup->populated ? UFFDWP_TRACK_START_POPULATED : 0) |
	                (setup->soft_dirty ? UFFDWP_TRACK_START_RESET_PROCESS : 0);
	return uffdwp_track_start(runtime, &options, track);
}

const char *collector_soft_dirty_refused(void)
{
	static char text[256];
	const struct collector_setup setup = {.soft_dirty = 1};
	struct uffdwp *runtime = library_runtime(0, NULL);
	struct uffdwp_track *track;
	int error = start(&setup, runtime, &track);

	uffdwp_error_text(text, sizeof(text));
	if (!error)
		error = uffdwp_track_stop(track) < 0;
	bench_must(uffdwp_close(runtime), "uffdwp_close");
	return error ? text : NULL;
}

void collector_open_library(struct collector *collector, const struct collector_setup *setup)
{
	collector_init(collector, setup);
	collector->runtime = library_runtime(0, NULL);
	must(start(setup, collector->runtime, &collector->track), "uffdwp_track_start");
	collector->collect = collect;
	collector->close = close_library;
	add_pieces(collector);
	collect(collector);
}
