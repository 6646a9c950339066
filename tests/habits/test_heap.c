/* SPDX-License-Identifier: MIT */
/*
 * A database has its heap in the region: an allocator whose blocks and lists of free blocks lie in it, used by several
 * threads, while snapshots are taken and the heap is tracked. Images show the heap at the cut; a track names each page
 * that was written.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"

#define HEAP_PAGES 512u
#define HEAP_THREADS 3
#define HEAP_SLOTS 64u
#define HEAP_CLASSES 8u

static struct habit habit;
static _Atomic int running;

/* The allocator: all of its state is in the region. */
struct block {
	uint64_t length;
	uint64_t check; /* of the payload, which is all of one byte */
	struct block *next;
};

struct heap {
	uint64_t used;
	struct block *free[HEAP_CLASSES];
	struct block *slots[HEAP_THREADS][HEAP_SLOTS];
};

static struct heap *heap_of(void)
{
	return (struct heap *)(void *)habit.base;
}

static void heap_free(struct block *block, size_t class)
{
	block->next = heap_of()->free[class];
	heap_of()->free[class] = block;
}

static struct block *heap_take(size_t class)
{
	struct heap *heap = heap_of();
	size_t length = (size_t)64 << class;
	struct block *block = heap->free[class];
	if (block != NULL) {
		heap->free[class] = block->next;
	} else if (heap->used + length <= habit.length_bytes) {
		block = (struct block *)(void *)(habit.base + heap->used);
		heap->used += length;
	}
	return block;
}

static void heap_step(size_t thread, struct chance *chance)
{
	size_t slot = chance_below(chance, HEAP_SLOTS);
	size_t class = slot % HEAP_CLASSES;
	pthread_mutex_lock(&habit.lock);
	struct block *block = heap_of()->slots[thread][slot];
	if (block != NULL) {
		uint8_t *payload = (uint8_t *)(block + 1);
		must(payload[0] == (uint8_t)block->check && payload[block->length - 1] == (uint8_t)block->check);
		heap_of()->slots[thread][slot] = NULL;
		heap_free(block, class);
	} else {
		block = heap_take(class);
		heap_of()->slots[thread][slot] = block;
		if (block != NULL) {
			block->length = ((size_t)64 << class) - sizeof(*block);
			block->check = chance_next(chance) & 0xff;
			memset(block + 1, (int)block->check, block->length);
		}
	}
	pthread_mutex_unlock(&habit.lock);
}

static void *heap_thread(void *argument)
{
	size_t thread = (size_t)(uintptr_t)argument;
	struct chance chance = chance_new(thread);
	while (atomic_load(&running)) {
		heap_step(thread, &chance);
	}
	return NULL;
}

static void heap_track(struct uffdwp_track *track)
{
	static uint64_t bitmap[HEAP_PAGES / 64];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	memset(bitmap, 0, sizeof(bitmap));
	collect.start = habit.base;
	collect.length = habit.length_bytes;
	collect.bitmap = bitmap;
	collect.bitmap_bytes = sizeof(bitmap);
	pthread_mutex_lock(&habit.lock);
	memcpy(habit.image, habit.base, habit.length_bytes);
	pthread_mutex_unlock(&habit.lock);
	habit_write(&habit, HEAP_PAGES - 1, 0, 1);
	must_be(habit.runtime, uffdwp_track_collect(track, &collect), 0);
	must((bitmap[HEAP_PAGES / 64 - 1] >> 63 & 1) == 1);
	/* What differs from the copy was written after it, and so is in this answer or in the next. */
	pthread_mutex_lock(&habit.lock);
	memcpy(habit.copy, habit.base, habit.length_bytes);
	pthread_mutex_unlock(&habit.lock);
	must_be(habit.runtime, uffdwp_track_collect(track, &collect), 0);
	for (size_t page = 0; page < HEAP_PAGES; page++) {
		size_t at = page * habit.page_bytes;
		int differs = memcmp(habit.image + at, habit.copy + at, habit.page_bytes) != 0;
		must(!differs || (bitmap[page / 64] >> page % 64 & 1) == 1);
	}
}

START_TEST(test_a_heap_in_a_region)
{
	struct habit_case which = habit_case(_i);
	pthread_t threads[HEAP_THREADS];
	struct uffdwp_track *track;
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, HEAP_PAGES);
	heap_of()->used = (sizeof(struct heap) + 63) / 64 * 64;
	must_be(habit.runtime, uffdwp_track_start(habit.runtime, NULL, &track), 0);
	must_be(habit.runtime, uffdwp_track_add(track, habit.base, habit.length_bytes, 0), 0);
	atomic_store(&running, 1);
	for (uintptr_t i = 0; i < HEAP_THREADS; i++) {
		threads[i] = thread_start(heap_thread, (void *)i); // NOLINT(performance-no-int-to-ptr)
	}
	for (int round = 0; round < 2 * habit_factor(); round++) {
		habit_cut(&habit);
		sleep_us(2000);
		habit_end(&habit);
		heap_track(track);
	}
	atomic_store(&running, 0);
	for (size_t i = 0; i < HEAP_THREADS; i++) {
		thread_join(threads[i]);
	}
	must_be(habit.runtime, uffdwp_track_stop(track), 0);
	habit_close(&habit);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("heap");
	tcase_set_timeout(tcase, 60 * habit_factor());
	tcase_add_loop_test(tcase, test_a_heap_in_a_region, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
