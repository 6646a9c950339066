/* SPDX-License-Identifier: MIT */
/*
 * What will be written anyway is not armed.
 *
 * A collect arms all that was written, and most of that is memory in which the collector is about to build free lists:
 * blocks that are free, or that the sweep will thread anew since objects of theirs died. A fault for each of these
 * pages buys nothing. So when a collection is over, and marks say what lives, the pages of the last answer are looked
 * at again, and what will be written is announced to the track (uffdwp_track_prepare()): it loses its protection, some
 * system calls for all, and counts as written at the next stop. That is over-reporting, and so INV-GC holds as before;
 * it costs the collector a look at the marked objects of these pages.
 *
 * Will be written: a free block; a block of small objects of which an eighth is dead (only such are swept, reclaim.c).
 * Where far more memory is free than is allocated between two stops, most of it is not written soon: then a part of it,
 * another one each time, is armed all the same, and what is not written drops out of the answers.
 *
 * In a collection of all generations objects die in blocks, too, that were not written: then all blocks are looked at.
 *
 * Threads: ahead_reserve() before the world stops, the only place that allocates; ahead_note() while it stands;
 * ahead_announce() when it runs again, the sweep has begun, and the allocation lock is still held: blocks neither come
 * nor go. Mark bits are read by the collector's public functions.
 */
#include "adapter.h"

#include <stdlib.h>

#include <gc/gc_mark.h>

#define RANGES_FIRST 1024
#define RANGES_MOST ((size_t)1 << 20)
#define BATCH 128
#define RETRY 8
#define SAMPLE 16
/* Pages left alone for each page that was allocated, before free memory counts as too much. */
#define PLENTY 16
#define PLENTY_LEAST 1024

/* Ranges that are announced together, those that touch joined. */
struct announcement {
	struct uffdwp_written ranges[BATCH];
	size_t count;
};

/* Objects that lived at the last collection: marks stay in a partial one, and are gone at the start of a full one. */
static struct {
	void *objects[SAMPLE];
	size_t next;
	bool is_full; /* the collection under way */
} sample;

static struct {
	struct uffdwp_written *ranges; /* the answer of the last stop */
	size_t count;
	size_t capacity;
	size_t missed; /* had no room */
	uint64_t pages;
} answer;

void ahead_reserve(void)
{
	size_t wanted = answer.capacity ? answer.capacity : RANGES_FIRST;
	if (answer.missed)
		wanted = answer.capacity * 2;
	if (wanted == answer.capacity || wanted > RANGES_MOST)
		return;
	struct uffdwp_written *ranges = reallocarray(answer.ranges, wanted, sizeof(*ranges));
	if (!ranges)
		return;
	answer.ranges = ranges;
	answer.capacity = wanted;
}

void ahead_forget(void)
{
	answer.count = 0;
	answer.missed = 0;
	answer.pages = 0;
}

void ahead_note(const struct uffdwp_written *range)
{
	answer.pages += (range->end - range->start) / heap_page_bytes();
	if (answer.count < answer.capacity)
		answer.ranges[answer.count++] = *range;
	else
		answer.missed++;
}

/* A block of small objects is swept when at most 7 of 8 are marked. */
static bool ahead_is_swept(const char *block, size_t object_bytes)
{
	size_t objects = adapter.block_bytes / object_bytes, dead = 0, enough = objects - objects * 7 / 8;
	for (size_t i = 0; i < objects && dead < enough; i++)
		dead += !GC_is_marked(block + i * object_bytes);
	return dead >= enough;
}

enum outlook { OUTLOOK_READ, OUTLOOK_SWEPT, OUTLOOK_FREE };

static enum outlook ahead_outlook(uintptr_t block)
{
	size_t object_bytes;
	void *base = GC_base((void *)block);
	if (!base)
		return OUTLOOK_FREE; /* or none of the collector's: its tables, a neighbour in the mapping */
	(void)GC_get_kind_and_size(base, &object_bytes);
	if ((uintptr_t)base != block || object_bytes > adapter.block_bytes)
		return OUTLOOK_READ; /* a large object, which lives: it would be free else */
	if (ahead_is_swept(base, object_bytes))
		return OUTLOOK_SWEPT;
	sample.objects[sample.next++ % SAMPLE] = base;
	return OUTLOOK_READ;
}

static void ahead_send(struct announcement *announcement)
{
	if (announcement->count)
		(void)uffdwp_track_prepare(adapter.track, announcement->ranges, announcement->count);
	announcement->count = 0;
}

static void ahead_put(struct announcement *announcement, uintptr_t start, uintptr_t end)
{
	struct uffdwp_written *last = announcement->ranges + announcement->count - 1;
	adapter.stats.pages_ahead += (end - start) / heap_page_bytes();
	if (announcement->count && last->end == start) {
		last->end = end;
		return;
	}
	if (announcement->count == BATCH)
		ahead_send(announcement);
	announcement->ranges[announcement->count++] = (struct uffdwp_written){start, end, 0};
}

/* ---- what was written ---- */

/* A part of the pages, another one after each stop. */
static bool ahead_is_tried(uintptr_t page)
{
	return (page / heap_page_bytes() + adapter.stats.stops) % RETRY == 0;
}

/* A page may hold several blocks, and a block several pages. */
static bool ahead_will_be_written(uintptr_t page, bool plenty)
{
	bool is_free = false;
	for (uintptr_t block = page; block < page + heap_page_bytes(); block += adapter.step_bytes) {
		enum outlook outlook = ahead_outlook(block & ~((uintptr_t)adapter.block_bytes - 1));
		if (outlook == OUTLOOK_SWEPT)
			return true;
		is_free |= outlook == OUTLOOK_FREE;
	}
	return is_free && !(plenty && ahead_is_tried(page));
}

static void ahead_look(struct announcement *announcement)
{
	uint64_t allocated = adapter.allocated_bytes / heap_page_bytes();
	bool plenty = answer.pages > allocated * PLENTY + PLENTY_LEAST;
	for (size_t i = 0; i < answer.count; i++)
		for (uintptr_t page = answer.ranges[i].start; page < answer.ranges[i].end; page += heap_page_bytes())
			if (ahead_will_be_written(page, plenty))
				ahead_put(announcement, page, page + heap_page_bytes());
}

/* ---- everything ---- */

/* Looks at the block, and returns where the next one may begin. */
static uintptr_t ahead_look_at_block(struct announcement *announcement, uintptr_t block, uintptr_t end)
{
	uintptr_t page = heap_page_bytes(), first = block & ~(page - 1), next = block + adapter.block_bytes;
	enum outlook outlook = ahead_outlook(block);
	if (outlook == OUTLOOK_FREE && !GC_is_heap_ptr((void *)block))
		return next;
	if (outlook == OUTLOOK_FREE)
		next = block + GC_size((void *)block); /* of the free block, as its header says */
	next = next < end ? next : end;
	if (outlook != OUTLOOK_READ && next >= first + page)
		ahead_put(announcement, first, next & ~(page - 1));
	else if (outlook != OUTLOOK_READ)
		ahead_put(announcement, first, first + page);
	return next;
}

static void ahead_look_everywhere(struct announcement *announcement)
{
	for (size_t i = 0; i < adapter.heap.count; i++) {
		const struct heap_range *range = &adapter.heap.ranges[i];
		uintptr_t block = range->start + (-range->start & (adapter.block_bytes - 1));
		while (range->tracked && block + adapter.block_bytes <= range->end)
			block = ahead_look_at_block(announcement, block, range->end);
	}
}

/* ---- each stop ---- */

/* The world is stopped, nothing was marked yet. */
void ahead_begin(void)
{
	bool is_partial = false;
	for (size_t i = 0; i < SAMPLE && !is_partial; i++) {
		void *object = sample.objects[i];
		is_partial = object && GC_base(object) == object && GC_is_marked(object);
	}
	sample.is_full |= !is_partial;
	ahead_forget();
}

void ahead_announce(void)
{
	struct announcement announcement;
	announcement.count = 0;
	if (sample.is_full)
		ahead_look_everywhere(&announcement);
	else
		ahead_look(&announcement);
	ahead_send(&announcement);
	ahead_forget();
	sample.is_full = false;
}
