/* SPDX-License-Identifier: MIT */
/*
 * Tracks and mappings that change under them: munmap(2), mremap(2) and MAP_FIXED, with events and without; and what is
 * done to the track while such an event waits. What vanished is reported in bytes and never as written; what was moved
 * is reported where it is now.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "place.h"
#include "support.h"
#include "track_check.h"

#define PAGES 64

static struct tracked tracked;
static struct pages answer;
static struct pages wanted;
static uint8_t *base;
static size_t page;

static int open_track(uint32_t flags)
{
	page = small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, flags)) {
		return 0;
	}
	base = anon_new(PAGES, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * page, UFFDWP_TRACK_ADD_CLEAN), 0);
	return 1;
}

static void want(size_t first, size_t end)
{
	pages_clear(&wanted);
	pages_put(&wanted, first, end);
}

static struct uffdwp_track_info info_now(void)
{
	struct uffdwp_track_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_track_info(tracked.track, &info), 0);
	return info;
}

static void map_fixed(size_t first, size_t pages)
{
	void *at = base + first * page;
	ck_assert_ptr_eq(mmap(at, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
	                 at);
}

START_TEST(test_unmapped_memory_vanishes_from_the_track)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!open_track(0)) {
		return;
	}
	touch(base, 1);
	touch(base, 20);
	ck_assert_int_eq(munmap(base + 16 * page, 16 * page), 0);
	ck_assert_uint_eq(info_now().bytes, (PAGES - 16) * page);
	ck_assert_uint_eq(info_now().ranges, 2);
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, page);
	ck_assert_uint_eq(collect.vanished_bytes, 16 * page);
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	ck_assert_uint_eq(collect.vanished_bytes, 0);
	ck_assert_uint_eq(info_now().vanished_bytes, 16 * page);
	tracked_close(&tracked);
	(void)munmap(base, PAGES * page);
}
END_TEST

/* What is mapped there next is not the track's, until it is added. */
START_TEST(test_memory_mapped_where_tracked_memory_was_is_not_tracked)
{
	if (!open_track(0)) {
		return;
	}
	ck_assert_int_eq(munmap(base + 16 * page, 16 * page), 0);
	map_fixed(16, 16);
	touch(base, 17);
	pages_collect(&answer, tracked.track, base, PAGES, 0);
	want(0, 0);
	pages_expect(&answer, &wanted, PAGES, "not added");
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 16 * page, 16 * page, 0), 0);
	pages_collect(&answer, tracked.track, base, PAGES, 0);
	want(16, 32);
	pages_expect(&answer, &wanted, PAGES, "added again");
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* MAP_FIXED unmaps what was there: an event reports it, or an audit finds it. */
static void replace_and_audit(uint32_t flags)
{
	uint64_t vanished = UINT64_MAX;
	if (!open_track(flags)) {
		return;
	}
	map_fixed(8, 4);
	touch(base, 9);
	touch(base, 30);
	ck_assert_int_eq(uffdwp_track_audit(tracked.track, &vanished), 0);
	ck_assert_uint_eq(vanished, flags == 0 ? 0 : 4 * page);
	ck_assert_uint_eq(info_now().bytes, (PAGES - 4) * page);
	ck_assert_uint_eq(info_now().vanished_bytes, 4 * page);
	pages_collect(&answer, tracked.track, base, PAGES, 0);
	want(30, 31);
	pages_expect(&answer, &wanted, PAGES, "beside what was replaced");
	ck_assert_int_eq(uffdwp_track_audit(tracked.track, &vanished), 0);
	ck_assert_uint_eq(vanished, 0);
	tracked_close(&tracked);
	anon_free(base, PAGES);
}

START_TEST(test_an_event_reports_a_replaced_mapping)
{
	replace_and_audit(0);
}
END_TEST

START_TEST(test_an_audit_finds_a_replaced_mapping_where_there_are_no_events)
{
	replace_and_audit(UFFDWP_TRACK_START_NO_EVENTS);
}
END_TEST

START_TEST(test_an_audit_finds_unmapped_memory_where_there_are_no_events)
{
	uint64_t vanished = 0;
	if (!open_track(UFFDWP_TRACK_START_NO_EVENTS)) {
		return;
	}
	ck_assert_int_eq(munmap(base, 8 * page), 0);
	ck_assert_int_eq(munmap(base + (PAGES - 8) * page, 8 * page), 0);
	touch(base, 40);
	ck_assert_uint_eq(collect_all(tracked.track), page);
	ck_assert_int_eq(uffdwp_track_audit(tracked.track, &vanished), 0);
	ck_assert_uint_eq(vanished, 16 * page);
	ck_assert_uint_eq(info_now().bytes, (PAGES - 16) * page);
	tracked_close(&tracked);
	(void)munmap(base, PAGES * page);
}
END_TEST

/* A move by mremap(2); `pages` of them from `first` on. */
static uint8_t *move(size_t first, size_t pages)
{
	uint8_t *to = mmap(NULL, pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(to, MAP_FAILED);
	void *moved = mremap(base + first * page, pages * page, pages * page, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ck_assert_ptr_eq(moved, to);
	return to;
}

START_TEST(test_moved_memory_is_followed)
{
	if (!open_track(0)) {
		return;
	}
	touch(base, 20);
	uint8_t *to = move(16, 16);
	touch(to, 9);
	pages_collect(&answer, tracked.track, to, 16, 0);
	want(4, 5);
	pages_put(&wanted, 9, 10);
	pages_expect(&answer, &wanted, 16, "where it is now");
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.start = base + 16 * page;
	collect.length = 16 * page;
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), -ENOENT);
	ck_assert_uint_eq(info_now().bytes, PAGES * page);
	ck_assert_uint_eq(info_now().vanished_bytes, 0);
	tracked_close(&tracked);
	anon_free(to, 16);
	(void)munmap(base, PAGES * page);
}
END_TEST

/* A region that a track made follows as well, in a thread of the library. */
static uint8_t *moved_to;

static int is_reported(void *ignored)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	(void)ignored;
	collect.start = moved_to;
	collect.length = PAGES * page;
	return uffdwp_track_collect(tracked.track, &collect) == 0 && collect.bytes == page;
}

START_TEST(test_a_region_of_a_track_is_followed)
{
	static const uint32_t mechanisms[] = {UFFDWP_MECHANISM_MARKER, UFFDWP_MECHANISM_REARM};
	page = small_page();
	for (size_t i = 0; i < 2; i++) {
		if (!place_possible(place_by(UFFDWP_MEMORY_ANON, (enum uffdwp_mechanism)mechanisms[i])) ||
		    !tracked_open(&tracked, mechanisms[i], 0)) {
			continue;
		}
		base = anon_new(PAGES, 1);
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * page, UFFDWP_TRACK_ADD_CLEAN), 0);
		moved_to = move(0, PAGES);
		touch(moved_to, 5);
		ck_assert_int_eq(wait_until(is_reported, NULL, 10), 1);
		tracked_close(&tracked);
		anon_free(moved_to, PAGES);
	}
}
END_TEST

static int is_refused(void *error)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	*(int *)error = uffdwp_track_collect(tracked.track, &collect);
	return *(int *)error != 0;
}

START_TEST(test_an_unmapped_region_of_a_track_is_reported_and_can_be_removed)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	int error = 0;
	if (!place_possible(place_by(UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MARKER)) ||
	    !tracked_open(&tracked, UFFDWP_MECHANISM_MARKER, 0)) {
		return;
	}
	page = small_page();
	base = anon_new(PAGES, 1);
	uint8_t *other = anon_new(PAGES, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * page, 0), 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, other, PAGES * page, 0), 0);
	anon_free(base, PAGES);
	must(wait_until(is_refused, &error, 10));
	ck_assert_int_eq(error, -ESTALE);
	expect_text_says("uffdwp_track_remove");
	ck_assert_int_eq(uffdwp_track_remove(tracked.track, base, PAGES * page), 0);
	touch(other, 1);
	ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
	tracked_close(&tracked);
	anon_free(other, PAGES);
}
END_TEST

/* --- beside events ------------------------------------------------------------------------------------------------ */

static _Atomic int finished;

/* Its events keep the kernel from changing wp bits until they were read. */
static void *map_and_unmap(void *ignored)
{
	(void)ignored;
	while (!atomic_load(&finished)) {
		uint8_t *other = anon_new(4, 1);
		must(uffdwp_track_add(tracked.track, other, 4 * page, 0) == 0);
		anon_free(other, 4);
	}
	return NULL;
}

START_TEST(test_ranges_are_added_and_removed_beside_events)
{
	if (!open_track(0)) {
		return;
	}
	atomic_store(&finished, 0);
	pthread_t thread = thread_start(map_and_unmap, NULL);
	for (unsigned i = 0; i < 3000; i++) {
		uint32_t flags = i % 2 ? UFFDWP_TRACK_ADD_CLEAN : 0;
		ck_assert_int_eq(uffdwp_track_remove(tracked.track, base + 8 * page, 8 * page), 0);
		touch(base, 9);
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base + 8 * page, 8 * page, flags), 0);
		pages_collect(&answer, tracked.track, base, PAGES, 0);
		want(8, i % 2 ? 8 : 16);
		pages_expect(&answer, &wanted, PAGES, "added again");
	}
	atomic_store(&finished, 1);
	thread_join(thread);
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* What had no room in an answer is written still, though events were about when it was put back. */
START_TEST(test_short_vectors_lose_nothing_beside_events)
{
	struct uffdwp_written range;
	if (!open_track(0)) {
		return;
	}
	/* Gaps, so that what is found and what is tracked are not the same. */
	for (size_t i = 4; i < PAGES; i += 8) {
		ck_assert_int_eq(uffdwp_track_remove(tracked.track, base + i * page, 2 * page), 0);
	}
	for (size_t i = 4; i < PAGES; i += 16) {
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base + i * page, page, UFFDWP_TRACK_ADD_CLEAN), 0);
	}
	atomic_store(&finished, 0);
	pthread_t thread = thread_start(map_and_unmap, NULL);
	for (unsigned i = 0; i < 3000; i++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		for (size_t n = 0; n < PAGES; n += 8) {
			touch(base, n);
		}
		pages_clear(&answer);
		collect.length = PAGES * page;
		collect.next = base;
		while (collect.next != NULL) {
			collect.length = (size_t)(base + PAGES * page - (uint8_t *)collect.next);
			collect.start = collect.next;
			collect.ranges = &range;
			collect.capacity = 1;
			ck_assert_int_eq(uffdwp_track_collect(tracked.track, &collect), 0);
			for (uint64_t at = range.start; collect.count == 1 && at < range.end; at += page) {
				size_t n = (size_t)(at - (uint64_t)(uintptr_t)base) / page;
				pages_put(&answer, n, n + 1);
			}
		}
		for (size_t n = 0; n < PAGES; n += 8) {
			ck_assert_msg(answer.in[n], "round %u: page %zu was written and is not reported", i, n);
		}
	}
	atomic_store(&finished, 1);
	thread_join(thread);
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* A thread that unmaps waits for a thread of the track, also while another collects without end. */
static void *collect_without_end(void *ignored)
{
	(void)ignored;
	while (!atomic_load(&finished)) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		must(uffdwp_track_collect(tracked.track, &collect) == 0);
	}
	return NULL;
}

START_TEST(test_no_unmapping_thread_is_kept_waiting_by_collects)
{
	pthread_t threads[3];
	if (!open_track(0)) {
		return;
	}
	atomic_store(&finished, 0);
	for (size_t i = 0; i < 3; i++) {
		threads[i] = thread_start(collect_without_end, NULL);
	}
	for (unsigned i = 0; i < 500; i++) {
		uint8_t *other = anon_new(4, 1);
		ck_assert_int_eq(uffdwp_track_add(tracked.track, other, 4 * page, 0), 0);
		anon_free(other, 4);
	}
	atomic_store(&finished, 1);
	for (size_t i = 0; i < 3; i++) {
		thread_join(threads[i]);
	}
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* The track is stopped while others unmap what it watches. */
static void *unmap_many(void *argument)
{
	uint8_t *start = argument;
	for (size_t i = 0; i < PAGES; i++) {
		must(munmap(start + i * page, page) == 0);
	}
	return NULL;
}

START_TEST(test_a_track_is_stopped_while_its_memory_is_unmapped)
{
	for (unsigned round = 0; round < 50; round++) {
		if (!open_track(0)) {
			return;
		}
		pthread_t thread = thread_start(unmap_many, base);
		sleep_us(round * 4);
		tracked_close(&tracked);
		thread_join(thread);
	}
}
END_TEST

int main(void)
{
	support_begin("test_track_vanish", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("track_vanish");
	TCase *tests = tcase_create("vanish");
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, test_unmapped_memory_vanishes_from_the_track);
	tcase_add_test(tests, test_memory_mapped_where_tracked_memory_was_is_not_tracked);
	tcase_add_test(tests, test_an_event_reports_a_replaced_mapping);
	tcase_add_test(tests, test_an_audit_finds_a_replaced_mapping_where_there_are_no_events);
	tcase_add_test(tests, test_an_audit_finds_unmapped_memory_where_there_are_no_events);
	tcase_add_test(tests, test_moved_memory_is_followed);
	tcase_add_test(tests, test_a_region_of_a_track_is_followed);
	tcase_add_test(tests, test_an_unmapped_region_of_a_track_is_reported_and_can_be_removed);
	tcase_add_test(tests, test_ranges_are_added_and_removed_beside_events);
	tcase_add_test(tests, test_short_vectors_lose_nothing_beside_events);
	tcase_add_test(tests, test_no_unmapping_thread_is_kept_waiting_by_collects);
	tcase_add_test(tests, test_a_track_is_stopped_while_its_memory_is_unmapped);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
