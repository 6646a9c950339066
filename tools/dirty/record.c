/* SPDX-License-Identifier: MIT */
/* See record.h. */
#include "record.h"
#include "base/escape.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double window_lengths[PAGES_WINDOWS] = {0, 1, 10, 60, 600}; /* the first: each collect */

int record_init(struct record *record, uint64_t page_bytes, double interval_s)
{
	*record = (struct record){.page_bytes = page_bytes, .interval_s = interval_s};
	record->moments = calloc(MOMENTS, sizeof(*record->moments));
	if (!record->moments)
		return -ENOMEM;
	for (unsigned i = 0; i < PAGES_WINDOWS; i++)
		record->windows[i].seconds = window_lengths[i];
	record->windows[0].seconds = interval_s;
	heat_init(&record->heat, interval_s);
	return 0;
}

void record_fini(struct record *record)
{
	pages_fini(&record->pages);
	heat_fini(&record->heat);
	free(record->areas);
	free(record->live);
	free(record->moments);
}

void record_program(struct record *record)
{
	record->programs++;
	record->starting = 1;
	record->live_count = 0;
}

double record_seconds(const struct record *record)
{
	return record->now_s;
}

/* --------------------------------------------------------------------------------------------------------- areas -- */

static const char deleted[] = " (deleted)";

/* What people call it: without folders, and without what the kernel says of each memfd. */
static void record_name_area(struct area *area, const struct mapping *mapping)
{
	const char *name = mapping->name;
	const char *slash = mapping->kind == AREA_DATA ? strrchr(name, '/') : NULL;
	size_t length;

	if (strcmp(name, "/dev/zero (deleted)") == 0)
		name = "shared anon";
	else if (slash)
		name = slash + 1;
	else if (strncmp(name, "/memfd:", 7) == 0 || strncmp(name, "/SYSV", 5) == 0)
		name++;
	length = strlen(name);
	if (length > sizeof(deleted) && strcmp(name + length - sizeof(deleted) + 1, deleted) == 0)
		length -= sizeof(deleted) - 1;
	char raw[4096];

	(void)snprintf(raw, sizeof(raw), "%.*s", (int)length, name);
	(void)escape_text(area->name, sizeof(area->name), raw, 0);
}

static int record_same_name(const struct area *area, const struct mapping *mapping)
{
	struct area named = {0};

	if (area->kind != mapping->kind)
		return 0;
	record_name_area(&named, mapping);
	return strcmp(named.name, area->name) == 0;
}

static int record_new_area(struct record *record, const struct mapping *mapping, uint32_t *number)
{
	struct area *area;

	if (record->area_count == record->area_capacity) {
		size_t capacity = record->area_capacity ? record->area_capacity * 2 : 64;
		struct area *areas;

		if (record->area_count >= AREAS_MAX) {
			*number = AREAS_MAX - 1;
			return 0;
		}
		areas = realloc(record->areas, capacity * sizeof(*areas));
		if (!areas)
			return -ENOMEM;
		record->areas = areas;
		record->area_capacity = capacity;
	}
	area = &record->areas[record->area_count];
	*area = (struct area){
	        .kind = mapping->kind, .start = mapping->start, .end = mapping->end, .first_s = record->now_s};
	record_name_area(area, mapping);
	*number = (uint32_t)record->area_count++;
	return 0;
}

/* Finds the area of a mapping among those of the last collect, from *at on: both lists are by address. */
static int record_old_area(const struct record *record, const struct mapping *mapping, size_t *at, uint32_t *number)
{
	while (*at < record->live_count && record->live[*at].end <= mapping->start)
		(*at)++;
	for (size_t i = *at; i < record->live_count && record->live[i].start < mapping->end; i++) {
		if (record_same_name(&record->areas[record->live[i].area], mapping)) {
			*number = record->live[i].area;
			return 1;
		}
	}
	return 0;
}

/* A mapping that touches the one before and looks like it is the same area: the kernel splits mappings as it likes. */
static int record_continues(const struct record *record, const struct live_area *before, const struct mapping *mapping)
{
	return before->end == mapping->start && record_same_name(&record->areas[before->area], mapping);
}

static void record_widen(struct area *area, const struct mapping *mapping, double now_s)
{
	if (mapping->start < area->start)
		area->start = mapping->start;
	if (mapping->end > area->end)
		area->end = mapping->end;
	area->last_s = now_s;
}

static int record_place(struct record *record, const struct maps *maps, struct live_area *live, size_t *count)
{
	size_t at = 0;

	*count = 0;
	for (size_t i = 0; i < maps->count; i++) {
		const struct mapping *mapping = &maps->list[i];
		uint32_t area = 0;

		if (*count && record_continues(record, &live[*count - 1], mapping)) {
			area = live[*count - 1].area;
			live[*count - 1].end = mapping->end;
		} else {
			if (!record_old_area(record, mapping, &at, &area) && record_new_area(record, mapping, &area))
				return -ENOMEM;
			live[(*count)++] = (struct live_area){mapping->start, mapping->end, area};
		}
		record_widen(&record->areas[area], mapping, record->now_s);
	}
	return 0;
}

static int record_place_all(struct record *record, const struct maps *maps)
{
	struct live_area *live = malloc((maps->count + 1) * sizeof(*live));
	size_t count;

	if (!live)
		return -ENOMEM;
	if (record_place(record, maps, live, &count)) {
		free(live);
		return -ENOMEM;
	}
	free(record->live);
	record->live = live;
	record->live_count = count;
	return 0;
}

/* The live area that an address lies in. */
static const struct live_area *record_live_at(const struct record *record, uint64_t address)
{
	size_t low = 0;
	size_t high = record->live_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (record->live[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < record->live_count && record->live[low].start <= address)
		return &record->live[low];
	return NULL;
}

const struct area *record_area_of(const struct record *record, uint64_t address)
{
	const struct live_area *live = record_live_at(record, address);

	if (live)
		return &record->areas[live->area];
	for (size_t i = record->area_count; i-- > 0;) {
		const struct area *area = &record->areas[i];

		if (area->start <= address && address < area->end)
			return area;
	}
	return NULL;
}

/* ----------------------------------------------------------------------------------------------------- time line -- */

static void record_join_moments(struct record *record)
{
	for (size_t i = 0; i < MOMENTS / 2; i++) {
		const struct moment *first = &record->moments[2 * i];
		const struct moment *second = first + 1;

		record->moments[i] = (struct moment){
		        .at_s = second->at_s,
		        .length_s = first->length_s + second->length_s,
		        .written_bytes = first->written_bytes + second->written_bytes,
		        .populated_bytes = second->populated_bytes,
		};
	}
	record->moment_count = MOMENTS / 2;
	record->moment_joins++;
}

static void record_add_moment(struct record *record)
{
	struct moment *moment;

	if (record->moment_open == 0) {
		if (record->moment_count == MOMENTS)
			record_join_moments(record);
		record->moments[record->moment_count++] = (struct moment){0};
	}
	moment = &record->moments[record->moment_count - 1];
	moment->at_s = record->now_s;
	moment->length_s += record->last_tick_s;
	moment->written_bytes += record->tick_bytes;
	moment->populated_bytes = record->populated_bytes;
	record->moment_open = (record->moment_open + 1) % (1u << record->moment_joins);
}

static void record_close_window(struct record *record, unsigned i)
{
	struct window *window = &record->windows[i];
	uint64_t bytes = record->pages.in_window[i] * record->page_bytes;

	window->count++;
	window->sum_bytes += bytes;
	window->sum_s += record->now_s - window->opened_s;
	if (bytes > window->max_bytes)
		window->max_bytes = bytes;
	window->opened_s = record->now_s;
	pages_next_window(&record->pages, i);
}

/* A window ends with the collect that is nearest to its length. */
static void record_close_windows(struct record *record)
{
	for (unsigned i = 0; i < PAGES_WINDOWS; i++) {
		const struct window *window = &record->windows[i];

		if (i == 0 || record->now_s - window->opened_s >= window->seconds - record->interval_s / 2)
			record_close_window(record, i);
	}
}

static void record_open_windows(struct record *record)
{
	for (unsigned i = 0; i < PAGES_WINDOWS; i++) {
		record->windows[i].opened_s = record->now_s;
		pages_next_window(&record->pages, i);
	}
}

void record_close(struct record *record)
{
	for (unsigned i = 1; i < PAGES_WINDOWS; i++) {
		record->windows[i].open_bytes = record->pages.in_window[i] * record->page_bytes;
		record->windows[i].open_s = record->now_s - record->windows[i].opened_s;
	}
}

/* ------------------------------------------------------------------------------------------------------ collects -- */

int record_begin(struct record *record, const struct maps *maps, double now_s)
{
	record->last_tick_s = now_s - record->now_s;
	record->now_s = now_s;
	record->tick_bytes = 0;
	if (!record->starting)
		heat_collect(&record->heat, now_s - record->last_tick_s / 2);
	return record_place_all(record, maps);
}

void record_mapping(struct record *record, const struct mapping *mapping)
{
	const struct live_area *live = record_live_at(record, mapping->start);

	record->current = live ? live->area : 0;
}

void record_written(void *user, uint64_t start, uint64_t end, int huge)
{
	struct record *record = user;
	struct area *area = &record->areas[record->current];
	uint64_t first = start / record->page_bytes;
	uint64_t count = (end - start) / record->page_bytes;

	record->tick_bytes += end - start;
	if (record->starting)
		return;
	record->huge_bytes += huge ? end - start : 0;
	area->written_bytes += end - start;
	area->unique_bytes += pages_add(&record->pages, first, count) * record->page_bytes;
	heat_add(&record->heat, first, count);
}

static void record_count_tick(struct record *record)
{
	double rate = record->last_tick_s > 0 ? (double)record->tick_bytes / record->last_tick_s : 0;

	record->written_bytes += record->tick_bytes;
	/* A last collect right after another says nothing about a rate. */
	if (rate > record->peak_rate && record->last_tick_s >= record->interval_s / 2) {
		record->peak_rate = rate;
		record->peak_s = record->now_s;
	}
	record_add_moment(record);
	record_close_windows(record);
}

void record_end(struct record *record, uint64_t spent_ns)
{
	record->collects++;
	record->collect_ns += spent_ns;
	if (spent_ns > record->collect_max_ns)
		record->collect_max_ns = spent_ns;
	if (!record->starting) {
		record_count_tick(record);
		return;
	}
	record->starting = 0;
	record->start_bytes += record->tick_bytes;
	record->first_s = record->now_s;
	record_open_windows(record);
}

void record_measure(struct record *record)
{
	record->populated_bytes = 0;
	for (size_t i = 0; i < record->area_count; i++)
		record->areas[i].populated_bytes = 0;
}

void record_populated(void *user, uint64_t start, uint64_t end, int huge)
{
	struct record *record = user;

	(void)huge;
	record->populated_bytes += end - start;
	record->areas[record->current].populated_bytes += end - start;
}

void record_measured(struct record *record)
{
	if (record->populated_bytes <= record->populated_max_bytes)
		return;
	record->populated_max_bytes = record->populated_bytes;
	for (size_t i = 0; i < record->area_count; i++)
		record->areas[i].peak_bytes = record->areas[i].populated_bytes;
}
