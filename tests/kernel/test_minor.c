/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `minor`: to arm a page is to empty its entry, so the next access of any kind, reads too, counts as a write:
 * more is reported and preserved than was written, never less. For shmem and hugetlb, by both deliveries.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image.h"
#include "place.h"
#include "support.h"
#include "witness.h"

#define PAGES 8
#define MANY 512
#define MINOR_CASES 4

static struct place place;
static struct place_case current;

static int open_case(int index, size_t pages)
{
	current = place_auto_case(index);
	current.mechanism = UFFDWP_MECHANISM_MINOR;
	if (!place_possible(current)) {
		return 0;
	}
	place_open(&place, current, pages);
	return 1;
}

static uint8_t load(size_t page)
{
	return ((volatile uint8_t *)place.base)[page * place.page_bytes];
}

static void store(size_t page, uint8_t value)
{
	((volatile uint8_t *)place.base)[page * place.page_bytes] = value;
}

static void arm_all(void)
{
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

static size_t present(void)
{
	return witness_count(place.base, place.length_bytes, place.page_bytes, WITNESS_PRESENT);
}

START_TEST(test_arming_empties_the_entries_and_keeps_the_content)
{
	if (open_case(_i, PAGES)) {
		place_touch(&place);
		ck_assert_uint_eq(present(), PAGES);
		arm_all();
		ck_assert_uint_eq(present(), 0);
		place_expect_armed(&place, PAGES);
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(load(page), page + 1);
		}
		place_close(&place);
	}
}
END_TEST

START_TEST(test_read_counts_as_a_write)
{
	if (open_case(_i, PAGES)) {
		place_touch(&place);
		arm_all();
		ck_assert_uint_eq(load(3), 4);
		place_expect_armed(&place, PAGES - 1);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
		store(3, 9);
		ck_assert_uint_eq(load(3), 9);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
		place_close(&place);
	}
}
END_TEST

static struct kernel_ops counting_kernel;
static _Atomic unsigned sleeps;

static int counting_wait(const uint32_t *word, uint32_t value, uint64_t most_ns)
{
	atomic_fetch_add(&sleeps, most_ns >= 50000 && most_ns <= 1000000); /* what a thread does that backs off */
	return kernel_real.futex_wait(word, value, most_ns);
}

/* What counts as a write has not been put off: the handler goes on at once, after any number of them. */
START_TEST(test_reads_do_not_slow_the_handler_down)
{
	current = (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_THREAD};
	if (!place_possible(current)) {
		return;
	}
	counting_kernel = kernel_real;
	counting_kernel.futex_wait = counting_wait;
	must(place_try(&place, &counting_kernel, 0, current, MANY) == 0);
	place_touch(&place);
	arm_all();
	unsigned before = atomic_load(&sleeps);
	for (size_t page = 0; page < MANY; page++) {
		(void)load((page * 7) % MANY);
	}
	ck_assert_uint_le(atomic_load(&sleeps) - before, MANY / 16);
	place_close(&place);
}
END_TEST

START_TEST(test_write_counts_once)
{
	if (open_case(_i, PAGES)) {
		place_touch(&place);
		arm_all();
		store(3, 9);
		store(3, 10);
		ck_assert_uint_eq(place_faults(&place, 1), 1);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
		place_expect_armed(&place, PAGES - 1);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_empty_entries_are_no_losses)
{
	if (open_case(_i, PAGES)) {
		place_touch(&place);
		arm_all();
		ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_DONTNEED), 0);
		place_touch(&place);
		struct uffdwp_region_stats stats = place_stats(&place);
		ck_assert_uint_eq(stats.pages_disarmed, PAGES);
		ck_assert_uint_eq(stats.pages_lost, 0);
		ck_assert_uint_ge(stats.pages_filled, PAGES);
		struct uffdwp_lost_range range;
		ck_assert_int_eq(uffdwp_region_losses(place.region, &range, 1), 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_hole_is_zeros_and_counts_once)
{
	if (open_case(_i, PAGES)) {
		arm_all();
		ck_assert_uint_eq(load(1), 0);
		store(1, 5);
		store(2, 6);
		ck_assert_uint_eq(load(1), 5);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 2);
		place_expect_armed(&place, PAGES - 2);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_page_that_is_not_armed_is_just_there)
{
	if (open_case(_i, PAGES)) {
		place_touch(&place);
		ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_DONTNEED), 0);
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(load(page), page + 1);
		}
		arm_all();
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(load(page), page + 1);
		}
		place_touch(&place);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_image_shows_the_cut_while_everything_is_read_and_written)
{
	if (!open_case(_i, place_auto_case(_i).memory == UFFDWP_MEMORY_HUGETLB ? 4 : 512)) {
		return;
	}
	place_fill(&place, 3);
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
	struct image image;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &options), 0);
	for (size_t page = 0; page < place.pages; page++) {
		ck_assert_uint_eq(load(page), expected[page * place.page_bytes]);
		store(page, (uint8_t)~load(page));
	}
	ck_assert_int_eq(image_finish(&image, NULL), 0);
	ck_assert_uint_eq(image_difference(&image, expected), place.length_bytes);
	image_free(&image);
	place_expect_armed(&place, 0);
	free(expected);
	place_close(&place);
}
END_TEST

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static void expect_refused(struct patch *patch, int fd, const char *named)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = UFFDWP_MECHANISM_MINOR;
	options.fd = fd;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(runtime, patch->base, patch->length_bytes, &options, &region),
	                 -EOPNOTSUPP);
	ck_assert_ptr_null(region);
	char text[256] = "";
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "minor") != NULL && strstr(text, named) != NULL, "%s", text);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	patch_unmap(patch);
}

START_TEST(test_attached_memory_needs_its_file)
{
	current = place_auto_case(_i);
	current.mechanism = UFFDWP_MECHANISM_MINOR;
	if (place_possible(current)) {
		struct patch patch = patch_map(current.memory, 2);
		expect_refused(&patch, -1, "fd");
	}
}
END_TEST

START_TEST(test_anonymous_memory_is_refused)
{
	struct patch patch = patch_map(UFFDWP_MEMORY_ANON, 2);
	expect_refused(&patch, -1, "file");
}
END_TEST

int main(void)
{
	support_begin("test_minor", &(struct support_needs){.huge_pages = 12, .swap = 0});
	place_begin();
	Suite *suite = suite_create("minor");
	TCase *tests = tcase_create("minor");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_arming_empties_the_entries_and_keeps_the_content, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_read_counts_as_a_write, 0, MINOR_CASES);
	tcase_add_test(tests, test_reads_do_not_slow_the_handler_down);
	tcase_add_loop_test(tests, test_write_counts_once, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_empty_entries_are_no_losses, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_hole_is_zeros_and_counts_once, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_page_that_is_not_armed_is_just_there, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_image_shows_the_cut_while_everything_is_read_and_written, 0, MINOR_CASES);
	tcase_add_loop_test(tests, test_attached_memory_needs_its_file, 0, MINOR_CASES);
	tcase_add_test(tests, test_anonymous_memory_is_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
