/* SPDX-License-Identifier: MIT */
/* See rights.h. */
#include "rights.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "heap.h"
#include "raw.h"

#define RIGHTS_MOST 4096

struct rights_range {
	uint64_t start;
	uint64_t end;
	int protection;
};

static struct rights_range rights_table[RIGHTS_MOST];
static size_t rights_count;

/* The first range that ends after `at`. */
static size_t rights_find(uint64_t at)
{
	size_t i = 0;

	while (i < rights_count && rights_table[i].end <= at)
		i++;
	return i;
}

static void rights_insert(size_t at, struct rights_range range)
{
	memmove(&rights_table[at + 1], &rights_table[at], (rights_count - at) * sizeof(range));
	rights_table[at] = range;
	rights_count++;
}

/* Cuts [start, end) out of what is there. Where there is no room for what is left after it that becomes usual in a
 * child, too. */
static void rights_cut(uint64_t start, uint64_t end)
{
	size_t i = rights_find(start);

	if (i < rights_count && rights_table[i].start < start && rights_table[i].end > end) {
		struct rights_range rest = {end, rights_table[i].end, rights_table[i].protection};

		rights_table[i].end = start;
		if (rights_count < RIGHTS_MOST)
			rights_insert(i + 1, rest);
		return;
	}
	if (i < rights_count && rights_table[i].start < start)
		rights_table[i++].end = start;
	size_t gone = i;

	while (gone < rights_count && rights_table[gone].end <= end)
		gone++;
	if (gone < rights_count && rights_table[gone].start < end)
		rights_table[gone].start = end;
	memmove(&rights_table[i], &rights_table[gone], (rights_count - gone) * sizeof(rights_table[0]));
	rights_count -= gone - i;
}

void rights_note(uint64_t start, uint64_t end, int protection)
{
	rights_cut(start, end);
	if (protection != RIGHTS_USUAL)
		rights_insert(rights_find(start), (struct rights_range){start, end, protection});
}

int rights_set(uint64_t start, uint64_t end, int protection)
{
	if (protection != RIGHTS_USUAL && rights_count + 2 > RIGHTS_MOST)
		return -ENOMEM;
	if (raw_mprotect(heap_at(start), end - start, protection) != 0)
		return -errno;
	rights_note(start, end, protection);
	return 0;
}

int rights_differ(uint64_t start, uint64_t end)
{
	size_t i = rights_find(start);

	return i < rights_count && rights_table[i].start < end;
}

int rights_apply(uint64_t start, uint64_t end)
{
	for (size_t i = rights_find(start); i < rights_count && rights_table[i].start < end; i++) {
		uint64_t from = rights_table[i].start > start ? rights_table[i].start : start;
		uint64_t to = rights_table[i].end < end ? rights_table[i].end : end;

		if (raw_mprotect(heap_at(from), to - from, rights_table[i].protection) != 0)
			return -errno;
	}
	return 0;
}

int rights_at(uint64_t at)
{
	size_t i = rights_find(at);

	return i < rights_count && rights_table[i].start <= at ? rights_table[i].protection : RIGHTS_USUAL;
}

int rights_suspend(uint64_t start, uint64_t end)
{
	return rights_differ(start, end) && raw_mprotect(heap_at(start), end - start, RIGHTS_USUAL) != 0 ? -errno : 0;
}

/* Anywhere. */
static int rights_give(char *place, uint64_t bytes, int protection)
{
	uint64_t start;
	uint64_t end;
	int is_ours = heap_overlap(place, bytes, &start, &end);

	if (is_ours && rights_count + 2 > RIGHTS_MOST)
		return -ENOMEM;
	if (raw_mprotect(place, bytes, protection) != 0)
		return -errno;
	if (is_ours)
		rights_note(start, end, protection);
	return 0;
}

int rights_carry(uint64_t start, uint64_t end, char *place, uint64_t length)
{
	uint64_t old_end = end;
	int last = rights_at(end - 1);
	int error = 0;

	if (length < end - start)
		end = start + length;
	for (uint64_t at = start; !error && at < end;) {
		size_t i = rights_find(at);

		if (i == rights_count || rights_table[i].start >= end)
			break;
		uint64_t from = rights_table[i].start > at ? rights_table[i].start : at;

		at = rights_table[i].end < end ? rights_table[i].end : end;
		error = rights_give(place + (from - start), at - from, rights_table[i].protection);
	}
	if (!error && last != RIGHTS_USUAL && length > old_end - start)
		error = rights_give(place + (old_end - start), length - (old_end - start), last);
	return error;
}
