/* SPDX-License-Identifier: MIT */
/*
 * Tracks, for each memory and each method to track it that there is here: what was written is reported once, nothing
 * else is, and every form of the answer says the same. The second witness of "armed again" is the kernel's own wp bit
 * in the page tables (witness.h).
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "place.h"
#include "support.h"
#include "track_check.h"
#include "witness.h"

static struct field field;
static struct pages answer;
static struct pages wanted;

/* Some pages: first, last, neighbours, one alone. */
static void write_some(void)
{
	const size_t pages[] = {0, field.pages / 2, field.pages / 2 + 1, field.pages - 1};
	pages_clear(&wanted);
	for (size_t i = 0; i < 4; i++) {
		if (pages[i] < field.pages) {
			cell_write(&field, pages[i]);
			pages_put(&wanted, pages[i], pages[i] + 1);
		}
	}
}

static void expect_answer(uint32_t flags, const char *what)
{
	cell_collect(&field, &answer, flags);
	cell_expect(&field, &answer, &wanted, what);
}

static void expect_nothing(const char *what)
{
	pages_clear(&wanted);
	expect_answer(0, what);
}

/* Where wp bits can be seen, all pages carry one. */
static void expect_armed(void)
{
	int shows_wp_bits = field_is_async(&field) || field.method->mechanism == UFFDWP_MECHANISM_MARKER;
	if (!shows_wp_bits || place_report()->pagemap_bit57 != 1) {
		return;
	}
	for (size_t block = 0; block < field.blocks; block++) {
		uint8_t *base = field_address(&field, block * field.block_pages);
		ck_assert_uint_eq(witness_armed(base, field.block_bytes, field.page_bytes), field.block_pages);
	}
}

START_TEST(test_written_page_is_collected_once)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	expect_nothing("before any write");
	expect_armed();
	for (unsigned round = 0; round < 3; round++) {
		write_some();
		expect_answer(0, "after some writes");
		expect_armed();
		expect_nothing("after the collect");
	}
	field_close(&field);
}
END_TEST

START_TEST(test_peek_leaves_all_as_written)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	write_some();
	expect_answer(UFFDWP_TRACK_COLLECT_PEEK, "the first peek");
	expect_answer(UFFDWP_TRACK_COLLECT_PEEK, "the second peek");
	expect_answer(0, "the collect after it");
	pages_clear(&wanted);
	expect_answer(UFFDWP_TRACK_COLLECT_PEEK, "the peek after the collect");
	field_close(&field);
}
END_TEST

START_TEST(test_every_write_is_collected_when_all_are_written)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	for (size_t page = 0; page < field.pages; page++) {
		cell_write(&field, page);
	}
	pages_clear(&wanted);
	pages_put(&wanted, 0, field.pages);
	expect_answer(0, "all pages");
	expect_nothing("after all pages");
	field_close(&field);
}
END_TEST

/* --- forms of the answer ------------------------------------------------------------------------------------------ */

static void take_back_into(const struct uffdwp_written *range)
{
	size_t page = field_page(&field, range->start);
	pages_put(&answer, page, page + (size_t)(range->end - range->start) / field.page_bytes);
}

/* Every third page, so that there are more ranges than there is room for. */
static void write_every_third(void)
{
	pages_clear(&wanted);
	for (size_t page = 0; page < field.pages; page += 3) {
		cell_write(&field, page);
		pages_put(&wanted, page, page + 1);
	}
}

START_TEST(test_a_short_vector_is_gone_on_with)
{
	static const size_t capacities[] = {1, 2, 7};
	struct uffdwp_written ranges[7];
	if (!cell_open(&field, _i)) {
		return;
	}
	for (size_t i = 0; i < 3; i++) {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		uint64_t bytes = 0;
		write_every_third();
		pages_clear(&answer);
		do {
			void *start = collect.next;
			collect.start = start;
			collect.ranges = ranges;
			collect.capacity = capacities[i];
			ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
			ck_assert_uint_le(collect.count, capacities[i]);
			ck_assert(collect.next == NULL || (uint8_t *)collect.next > (uint8_t *)start);
			for (size_t range = 0; range < collect.count; range++) {
				take_back_into(&ranges[range]);
			}
			bytes += collect.bytes;
		} while (collect.next != NULL);
		cell_expect(&field, &answer, &wanted, "by a short vector");
		ck_assert_uint_eq(bytes, answer.count * field.page_bytes);
		expect_nothing("after a short vector");
	}
	field_close(&field);
}
END_TEST

START_TEST(test_what_lies_beyond_a_full_vector_stays_written)
{
	struct uffdwp_written range;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!cell_open(&field, _i)) {
		return;
	}
	write_every_third();
	collect.ranges = &range;
	collect.capacity = 1;
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
	ck_assert_uint_eq(collect.count, 1);
	size_t first = field_page(&field, range.start);
	size_t count = (size_t)(range.end - range.start) / field.page_bytes;
	for (size_t page = first; page < first + count; page++) {
		wanted.in[page] = 0;
	}
	expect_answer(0, "what had no room");
	field_close(&field);
}
END_TEST

static void take_by_callback(void *user, const struct uffdwp_written *range)
{
	size_t *calls = user;
	*calls += 1;
	ck_assert_uint_eq(range->flags, UFFDWP_TRACK_WRITTEN);
	take_back_into(range);
}

START_TEST(test_a_callback_hears_of_every_range)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	size_t calls = 0;
	if (!cell_open(&field, _i)) {
		return;
	}
	write_every_third();
	pages_clear(&answer);
	collect.callback = take_by_callback;
	collect.user = &calls;
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
	ck_assert_uint_eq(collect.count, calls);
	ck_assert_uint_eq(collect.bytes, answer.count * field.page_bytes);
	cell_expect(&field, &answer, &wanted, "by callback");
	field_close(&field);
}
END_TEST

static void write_in_callback(void *user, const struct uffdwp_written *range)
{
	(void)user;
	(void)range;
	cell_write(&field, field.pages - 1);
}

/* While the callback runs the library holds nothing that a writer waits for. */
START_TEST(test_a_callback_may_write_to_tracked_memory)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!cell_open(&field, _i)) {
		return;
	}
	cell_write(&field, 0);
	collect.callback = write_in_callback;
	collect.start = field_address(&field, 0);
	collect.length = field.page_bytes;
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
	pages_clear(&wanted);
	pages_put(&wanted, field.pages - 1, field.pages);
	expect_answer(0, "written by the callback");
	field_close(&field);
}
END_TEST

START_TEST(test_bits_are_set_and_none_is_cleared)
{
	uint64_t bits[64] = {0};
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!cell_open(&field, _i)) {
		return;
	}
	size_t small = field.page_bytes / small_page();
	cell_write(&field, 1);
	bits[0] = small > 1 ? 1 : (uint64_t)1 << 5;
	collect.start = field_address(&field, 0);
	collect.length = field.block_bytes;
	collect.bitmap = bits;
	collect.bitmap_bytes = (field.block_bytes / small_page() + 63) / 64 * 8;
	ck_assert_uint_le(collect.bitmap_bytes, sizeof(bits));
	if (small > 1) { /* huge pages: in block 1 */
		collect.start = field_address(&field, 1);
		bits[0] = 0;
	}
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
	if (small > 1) {
		ck_assert_uint_eq(bits[0], UINT64_MAX);
		ck_assert_uint_eq(collect.bytes, field.page_bytes);
	} else {
		ck_assert_uint_eq(bits[0] & 0x22, 0x22);
		ck_assert(field.memory == FIELD_THP || bits[0] == 0x22);
	}
	field_close(&field);
}
END_TEST

START_TEST(test_a_part_is_collected_and_the_rest_stays_written)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!cell_open(&field, _i)) {
		return;
	}
	write_some();
	collect.start = field_address(&field, 0);
	collect.length = field.page_bytes;
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, field.page_bytes);
	wanted.in[0] = 0;
	expect_answer(0, "outside of the part");
	field_close(&field);
}
END_TEST

/* --- what writes -------------------------------------------------------------------------------------------------- */

START_TEST(test_system_calls_that_write_are_seen)
{
	int ends[2];
	if (!cell_open(&field, _i)) {
		return;
	}
	if (field_system_calls_work(&field)) {
		ck_assert_int_eq(pipe(ends), 0);
		ck_assert_int_eq(write(ends[1], "four", 4), 4);
		ck_assert_int_eq(read(ends[0], field_address(&field, 2) + 100, 4), 4);
		pages_clear(&wanted);
		pages_put(&wanted, 2, 3);
		expect_answer(0, "read(2)");
		close(ends[0]);
		close(ends[1]);
	}
	field_close(&field);
}
END_TEST

/* A write without a change is a write. */
START_TEST(test_atomic_operations_are_seen)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	volatile uint64_t none = 0; /* what a compiler knows to be zero it may take for a load */
	(void)__atomic_fetch_or((uint64_t *)(void *)field_address(&field, 1), none, __ATOMIC_SEQ_CST);
	pages_clear(&wanted);
	pages_put(&wanted, 1, 2);
	expect_answer(0, "an atomic operation");
	field_close(&field);
}
END_TEST

/* Reads are none, but under minor. */
START_TEST(test_reads_are_not_reported)
{
	uint64_t sum = 0;
	if (!cell_open(&field, _i)) {
		return;
	}
	for (size_t page = 0; page < field.pages; page++) {
		sum += *(volatile uint64_t *)(void *)field_address(&field, page);
	}
	if (field.method->mechanism != UFFDWP_MECHANISM_MINOR) {
		expect_nothing("after reads");
	}
	ck_assert_uint_ne(sum, 1);
	field_close(&field);
}
END_TEST

START_TEST(test_a_child_is_not_seen_and_breaks_nothing)
{
	if (SUPPORT_THREAD_SANITIZER || !cell_open(&field, _i)) {
		return;
	}
	write_some();
	pid_t child = fork();
	if (child == 0) {
		for (size_t page = 0; page < field.pages && field_is_private(&field); page++) {
			cell_write(&field, page);
		}
		_exit(0);
	}
	int status = -1;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	expect_answer(0, "beside a child");
	write_some();
	expect_answer(0, "after a child");
	field_close(&field);
}
END_TEST

/* --- ranges ------------------------------------------------------------------------------------------------------- */

/* The first block is taken out and added again. */
static void add_again(uint32_t flags)
{
	uint8_t *base = field_address(&field, 0);
	ck_assert_int_eq(uffdwp_track_remove(field.track, base, field.block_bytes), 0);
	cell_write(&field, 1 % field.block_pages);
	ck_assert_int_eq(uffdwp_track_add(field.track, base, field.block_bytes, flags), 0);
}

START_TEST(test_added_memory_counts_as_written_and_clean_does_not)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	for (unsigned round = 0; round < 2; round++) {
		add_again(0);
		pages_clear(&wanted);
		pages_put(&wanted, 0, field.block_pages);
		expect_answer(0, "added");
		add_again(UFFDWP_TRACK_ADD_CLEAN);
		expect_nothing("added as clean");
		cell_write(&field, 0);
		pages_put(&wanted, 0, 1);
		expect_answer(0, "written after it was added as clean");
	}
	field_close(&field);
}
END_TEST

START_TEST(test_removed_memory_is_not_reported)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	uint8_t *base = field_address(&field, 0);
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.start = base;
	collect.length = field.block_bytes;
	cell_write(&field, 0);
	ck_assert_int_eq(uffdwp_track_remove(field.track, base, field.block_bytes), 0);
	cell_write(&field, 0);
	ck_assert_int_eq(uffdwp_track_collect(field.track, &collect), -ENOENT);
	expect_nothing("of what was removed");
	ck_assert_int_eq(uffdwp_track_remove(field.track, base, field.block_bytes), -ENOENT);
	field_close(&field);
}
END_TEST

START_TEST(test_content_is_never_touched)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	uint8_t *before = malloc(field.block_bytes);
	ck_assert_ptr_nonnull(before);
	for (size_t page = 0; page < field.block_pages; page++) {
		memset(field_address(&field, page), (int)(page + 1), field.page_bytes);
	}
	memcpy(before, field_address(&field, 0), field.block_bytes);
	for (unsigned round = 0; round < 3; round++) {
		(void)collect_all(field.track);
		cell_collect(&field, &answer, UFFDWP_TRACK_COLLECT_PEEK);
	}
	ck_assert_mem_eq(before, field_address(&field, 0), field.block_bytes);
	free(before);
	field_close(&field);
}
END_TEST

/* Announces pages [first, end) of the field. */
static void prepare_pages(size_t first, size_t end)
{
	for (size_t page = first; page < end; page++) {
		uint64_t start = (uintptr_t)field_address(&field, page);
		struct uffdwp_written range = {start, start + field.page_bytes, 0};
		ck_assert_int_eq(uffdwp_track_prepare(field.track, &range, 1), 0);
	}
}

/* Over-reporting is all that it may do: what was announced is reported once, written or not, and what was not announced
 * as if nothing had been. */
START_TEST(test_announced_pages_count_as_written)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	size_t half = field.pages / 2;
	int counts = field_is_async(&field) && field.memory != FIELD_HUGETLB;
	for (unsigned round = 0; round < 3; round++) {
		prepare_pages(half, field.pages);
		write_some();
		if (counts) {
			pages_put(&wanted, half, field.pages);
		}
		expect_answer(0, "announced, and some written");
		expect_armed();
		expect_nothing("after the collect");
		write_some();
		expect_answer(0, "written and not announced");
	}
	field_close(&field);
}
END_TEST

/* What it is for: where wp bits can be seen, no announced page carries one, and all others do. */
START_TEST(test_announced_pages_lose_their_protection)
{
	if (!cell_open(&field, _i)) {
		return;
	}
	if (!field_is_async(&field) || field.memory == FIELD_HUGETLB || field.memory == FIELD_THP ||
	    place_report()->pagemap_bit57 != 1) {
		field_close(&field);
		return;
	}
	expect_armed();
	size_t block = field.block_pages, first = block / 4, end = block / 2 + 1;
	uint8_t *base = field_address(&field, 0);
	prepare_pages(first, end);
	ck_assert_uint_eq(
	        witness_armed(base + first * field.page_bytes, (end - first) * field.page_bytes, field.page_bytes), 0);
	ck_assert_uint_eq(witness_armed(base, field.block_bytes, field.page_bytes), block - (end - first));
	field_close(&field);
}
END_TEST

int main(void)
{
	support_begin("test_track", &(struct support_needs){.huge_pages = 8, .swap = 0});
	place_begin();
	cells_print();
	Suite *suite = suite_create("track");
	TCase *tests = tcase_create("cells");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_written_page_is_collected_once, 0, CELLS);
	tcase_add_loop_test(tests, test_peek_leaves_all_as_written, 0, CELLS);
	tcase_add_loop_test(tests, test_every_write_is_collected_when_all_are_written, 0, CELLS);
	tcase_add_loop_test(tests, test_a_short_vector_is_gone_on_with, 0, CELLS);
	tcase_add_loop_test(tests, test_what_lies_beyond_a_full_vector_stays_written, 0, CELLS);
	tcase_add_loop_test(tests, test_a_callback_hears_of_every_range, 0, CELLS);
	tcase_add_loop_test(tests, test_a_callback_may_write_to_tracked_memory, 0, CELLS);
	tcase_add_loop_test(tests, test_bits_are_set_and_none_is_cleared, 0, CELLS);
	tcase_add_loop_test(tests, test_a_part_is_collected_and_the_rest_stays_written, 0, CELLS);
	tcase_add_loop_test(tests, test_system_calls_that_write_are_seen, 0, CELLS);
	tcase_add_loop_test(tests, test_atomic_operations_are_seen, 0, CELLS);
	tcase_add_loop_test(tests, test_reads_are_not_reported, 0, CELLS);
	tcase_add_loop_test(tests, test_a_child_is_not_seen_and_breaks_nothing, 0, CELLS);
	tcase_add_loop_test(tests, test_added_memory_counts_as_written_and_clean_does_not, 0, CELLS);
	tcase_add_loop_test(tests, test_removed_memory_is_not_reported, 0, CELLS);
	tcase_add_loop_test(tests, test_content_is_never_touched, 0, CELLS);
	tcase_add_loop_test(tests, test_announced_pages_count_as_written, 0, CELLS);
	tcase_add_loop_test(tests, test_announced_pages_lose_their_protection, 0, CELLS);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
