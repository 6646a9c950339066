/* SPDX-License-Identifier: MIT */
/*
 * Tracks and memory whose page-table entries are empty: never touched, thrown away, swapped out, zapped. By default a
 * track reports what was thrown away, since its content changed; with UFFDWP_TRACK_START_POPULATED it does not. Neither
 * ever forgets a write because the entry of its page was emptied before the collect.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "place.h"
#include "support.h"
#include "track_check.h"
#include "witness.h"

#define PAGES 64
#define HUGE_BYTES ((size_t)2 << 20)

static struct field field;
static struct tracked tracked;
static struct pages answer;
static struct pages wanted;

static void want(size_t first, size_t end)
{
	pages_clear(&wanted);
	pages_put(&wanted, first, end);
}

static void expect(uint8_t *base, size_t pages, const char *what)
{
	pages_collect(&answer, tracked.track, base, pages, 0);
	pages_expect(&answer, &wanted, pages, what);
}

/* --- a write, and then its entry is emptied ----------------------------------------------------------------------- */

/* 1: it was done; the content of private memory goes with MADV_DONTNEED. */
static int empty_entry(struct field *where, size_t page, int advice)
{
	return madvise(field_address(where, page), where->page_bytes, advice) == 0;
}

/* MADV_DONTNEED takes no content of shared memory: what was written is still to be saved. */
START_TEST(test_a_write_is_reported_though_its_entry_was_zapped)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	want(1, 2);
	cell_write(&field, 1);
	if (!field_is_private(&field) && empty_entry(&field, 1, MADV_DONTNEED)) {
		cell_collect(&field, &answer, UFFDWP_TRACK_COLLECT_PEEK);
		ck_assert_msg(answer.in[1], "%s: written and then zapped, a look at page 1 does not find it",
		              cell_name(_i));
		cell_collect(&field, &answer, 0);
		ck_assert_msg(answer.in[1], "%s: written and then zapped, page 1 is not reported", cell_name(_i));
		/* A region hears of the discard from a thread: perhaps only now. */
		cell_collect(&field, &answer, 0);
		ck_assert_msg(answer.count <= pages_in(&answer, 1, 2), "%s: more than what was discarded is reported",
		              cell_name(_i));
	}
	field_close(&field);
}
END_TEST

START_TEST(test_a_write_is_reported_though_it_was_swapped_out)
{
	if (!support_has_swap() || !cell_open(&field, _i)) {
		return;
	}
	cell_write(&field, 1);
	if (field.page_bytes == small_page() && empty_entry(&field, 1, MADV_PAGEOUT)) {
		cell_collect(&field, &answer, UFFDWP_TRACK_COLLECT_PEEK);
		ck_assert_msg(answer.in[1], "%s: written and then swapped out, a look at page 1 does not find it",
		              cell_name(_i));
		cell_collect(&field, &answer, 0);
		ck_assert_msg(answer.in[1], "%s: written and then swapped out, page 1 is not reported", cell_name(_i));
	}
	field_close(&field);
}
END_TEST

static int is_reported(void *ignored)
{
	(void)ignored;
	cell_collect(&field, &answer, 0);
	return answer.in[1];
}

/* A thread of the library may have to hear of it first, where memory is watched by a region. */
static int is_reported_soon(void)
{
	return field_is_async(&field) ? is_reported(NULL) : wait_until(is_reported, NULL, 5);
}

/* The reverse: armed, emptied, written. */
START_TEST(test_a_write_is_reported_after_its_armed_entry_was_emptied)
{
	static const int advices[] = {MADV_DONTNEED, MADV_PAGEOUT};
	if (!cell_open(&field, _i)) {
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		(void)collect_all(field.track);
		if (empty_entry(&field, 1, advices[i])) {
			cell_write(&field, 1);
			ck_assert_msg(is_reported_soon(),
			              "%s: armed, emptied by %d and written, page 1 is not reported", cell_name(_i),
			              advices[i]);
		}
	}
	field_close(&field);
}
END_TEST

/* MADV_FREE leaves the content until the kernel takes it, also after the page was armed. */
START_TEST(test_a_write_is_reported_after_a_freed_page_was_armed_and_taken)
{
	if (!support_has_swap() || !cell_open(&field, _i)) {
		return;
	}
	if (field_is_private(&field) && empty_entry(&field, 1, MADV_FREE)) {
		(void)collect_all(field.track);
		sleep_us(20000); /* an event may wait for a thread of the library */
		(void)collect_all(field.track);
		(void)empty_entry(&field, 1, MADV_PAGEOUT);
		cell_write(&field, 1);
		cell_collect(&field, &answer, 0);
		ck_assert_msg(answer.in[1], "%s: freed, armed, taken and written, page 1 is not reported",
		              cell_name(_i));
	}
	field_close(&field);
}
END_TEST

/* Its content changed to zeros: a copy that is kept by a track must hear of it. */
START_TEST(test_discarded_memory_is_reported_by_default)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	int is_by_default = (field.method->flags & UFFDWP_TRACK_START_POPULATED) == 0;
	if (field_is_private(&field) && is_by_default && empty_entry(&field, 1, MADV_DONTNEED)) {
		ck_assert_msg(is_reported_soon(), "%s: page 1 was discarded and is not reported", cell_name(_i));
	}
	field_close(&field);
}
END_TEST

/* --- populated or not --------------------------------------------------------------------------------------------- */

START_TEST(test_populated_reports_no_memory_that_is_not_there)
{
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, UFFDWP_TRACK_START_POPULATED)) {
		return;
	}
	uint8_t *base = anon_new(PAGES, 0);
	touch(base, 3);
	touch(base, 4);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * small_page(), 0), 0);
	want(3, 5);
	expect(base, PAGES, "added");
	touch(base, 10);
	want(10, 11);
	expect(base, PAGES, "a first touch");
	touch(base, 3);
	ck_assert_int_eq(madvise(base + 3 * small_page(), small_page(), MADV_DONTNEED), 0);
	want(0, 0);
	expect(base, PAGES, "written and discarded");
	ck_assert_int_eq(*(volatile uint8_t *)(base + 20 * small_page()), 0);
	if (witness_zero_page()) {
		expect(base, PAGES, "a hole that was read");
	} else {
		support_note(__func__,
		             "a hole that was read: this kernel has no shared zero page, it counts as written");
		(void)collect_all(tracked.track);
	}
	touch(base, 20);
	touch(base, 3);
	want(20, 21);
	pages_put(&wanted, 3, 4);
	expect(base, PAGES, "holes that were written");
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

START_TEST(test_default_reports_what_was_never_touched_once)
{
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
		return;
	}
	uint8_t *base = anon_new(PAGES, 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * small_page(), 0), 0);
	want(0, PAGES);
	expect(base, PAGES, "added");
	want(0, 0);
	expect(base, PAGES, "nothing written");
	touch(base, 7);
	want(7, 8);
	expect(base, PAGES, "a first touch");
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* Swap is memory. */
START_TEST(test_populated_reports_what_is_in_the_swap)
{
	if (!support_has_swap() || !tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, UFFDWP_TRACK_START_POPULATED)) {
		return;
	}
	uint8_t *base = anon_new(PAGES, 1);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, PAGES * small_page(), UFFDWP_TRACK_ADD_CLEAN), 0);
	touch(base, 5);
	ck_assert_int_eq(madvise(base, PAGES * small_page(), MADV_PAGEOUT), 0);
	want(5, 6);
	expect(base, PAGES, "swapped out");
	tracked_close(&tracked);
	anon_free(base, PAGES);
}
END_TEST

/* In shared memory an empty entry says nothing: the page is in the file. */
START_TEST(test_populated_reports_shared_memory_that_is_added)
{
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, UFFDWP_TRACK_START_POPULATED)) {
		return;
	}
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, PAGES);
	memset(patch.base, 1, patch.length_bytes);
	ck_assert_int_eq(madvise(patch.base, patch.length_bytes, MADV_DONTNEED), 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, patch.base, patch.length_bytes, 0), 0);
	want(0, PAGES);
	expect(patch.base, PAGES, "added without entries");
	tracked_close(&tracked);
	patch_unmap(&patch);
}
END_TEST

/* --- huge pages --------------------------------------------------------------------------------------------------- */

static uint8_t *huge_new(uint8_t **mapped)
{
	*mapped = mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(*mapped, MAP_FAILED);
	uint8_t *base = *mapped + (HUGE_BYTES - (uintptr_t)*mapped % HUGE_BYTES) % HUGE_BYTES;
	(void)madvise(base, HUGE_BYTES, MADV_HUGEPAGE);
	memset(base, 1, HUGE_BYTES);
	return base;
}

/* A huge page that is thrown away leaves no page table in which a scan could find something. */
START_TEST(test_a_discarded_huge_page_is_reported)
{
	uint8_t *mapped = NULL;
	size_t pages = HUGE_BYTES / small_page();
	for (unsigned round = 0; round < 2; round++) {
		if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
			return;
		}
		uint8_t *base = huge_new(&mapped);
		ck_assert_int_eq(uffdwp_track_add(tracked.track, base, HUGE_BYTES, UFFDWP_TRACK_ADD_CLEAN), 0);
		(void)collect_all(tracked.track);
		if (round == 1) {
			touch(base, 9);
		}
		ck_assert_int_eq(madvise(base, HUGE_BYTES, MADV_DONTNEED), 0);
		want(0, pages);
		expect(base, pages, "discarded as a whole");
		want(0, 0);
		expect(base, pages, "nothing written");
		touch(base, 11);
		pages_collect(&answer, tracked.track, base, pages, 0);
		ck_assert_int_eq(answer.in[11], 1);
		tracked_close(&tracked);
		must(munmap(mapped, 2 * HUGE_BYTES) == 0);
	}
}
END_TEST

/* Whether a huge page is collapsed under a track or not: the write is reported. */
START_TEST(test_a_write_is_reported_after_a_collapse)
{
	uint8_t *mapped = NULL;
	size_t pages = HUGE_BYTES / small_page();
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
		return;
	}
	uint8_t *base = huge_new(&mapped);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, base, HUGE_BYTES, UFFDWP_TRACK_ADD_CLEAN), 0);
	touch(base, 100);
	(void)madvise(base, HUGE_BYTES, 25 /* MADV_COLLAPSE */);
	pages_collect(&answer, tracked.track, base, pages, 0);
	ck_assert_int_eq(answer.in[100], 1);
	touch(base, 200);
	(void)madvise(base, HUGE_BYTES, 25);
	pages_collect(&answer, tracked.track, base, pages, 0);
	ck_assert_int_eq(answer.in[200], 1);
	tracked_close(&tracked);
	must(munmap(mapped, 2 * HUGE_BYTES) == 0);
}
END_TEST

/* A tracked hole of shared memory is not filled by a collect: no access asked for memory. */
START_TEST(test_a_collect_takes_no_memory_for_holes_of_a_file)
{
	if (!tracked_open(&tracked, UFFDWP_MECHANISM_ASYNC, 0)) {
		return;
	}
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, PAGES);
	touch(patch.base, 0);
	ck_assert_int_eq(uffdwp_track_add(tracked.track, patch.base, patch.length_bytes, 0), 0);
	(void)collect_all(tracked.track);
	(void)collect_all(tracked.track);
	ck_assert_int_eq(lseek(patch.fd, 0, SEEK_HOLE), (off_t)small_page());
	tracked_close(&tracked);
	patch_unmap(&patch);
}
END_TEST

int main(void)
{
	support_begin("test_track_holes", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	cells_print();
	Suite *suite = suite_create("track_holes");
	TCase *tests = tcase_create("holes");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_a_write_is_reported_though_its_entry_was_zapped, 0, CELLS);
	tcase_add_loop_test(tests, test_a_write_is_reported_though_it_was_swapped_out, 0, CELLS);
	tcase_add_loop_test(tests, test_a_write_is_reported_after_its_armed_entry_was_emptied, 0, CELLS);
	tcase_add_loop_test(tests, test_a_write_is_reported_after_a_freed_page_was_armed_and_taken, 0, CELLS);
	tcase_add_loop_test(tests, test_discarded_memory_is_reported_by_default, 0, CELLS);
	tcase_add_test(tests, test_populated_reports_no_memory_that_is_not_there);
	tcase_add_test(tests, test_default_reports_what_was_never_touched_once);
	tcase_add_test(tests, test_populated_reports_what_is_in_the_swap);
	tcase_add_test(tests, test_populated_reports_shared_memory_that_is_added);
	tcase_add_test(tests, test_a_discarded_huge_page_is_reported);
	tcase_add_test(tests, test_a_write_is_reported_after_a_collapse);
	tcase_add_test(tests, test_a_collect_takes_no_memory_for_holes_of_a_file);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
