/* SPDX-License-Identifier: MIT */
/*
 * What maps.c says of mappings that the test makes: what they are, where they end, what they have in common.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "support.h"

static uint8_t *map_pages(size_t pages, int flags, int fd)
{
	void *address = mmap(NULL, pages * (size_t)getpagesize(), PROT_READ | PROT_WRITE, flags, fd, 0);

	ck_assert_ptr_ne(address, MAP_FAILED);
	return address;
}

static struct maps_range look(const uint8_t *base, size_t page, size_t pages)
{
	size_t page_bytes = (size_t)getpagesize();
	struct maps_range range;

	ck_assert_int_eq(maps_look((uintptr_t)base + page * page_bytes, pages * page_bytes, &range), 0);
	return range;
}

static uint8_t *map_memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	uint8_t *base;

	ck_assert_int_eq(ftruncate(fd, 8l * getpagesize()), 0);
	base = map_pages(8, MAP_SHARED, fd);
	close(fd);
	return base;
}

START_TEST(test_range_of_a_memfd_is_described)
{
	size_t page_bytes = (size_t)getpagesize();
	uint8_t *base = map_memfd();
	struct maps_range range = look(base, 2, 3);

	ck_assert_int_eq(range.covered && range.uniform && range.readable && range.writable && range.shared, 1);
	ck_assert_int_eq(range.hugetlb, 0);
	ck_assert_uint_eq(range.page_bytes, page_bytes);
	ck_assert_uint_eq(range.offset, 2 * page_bytes);
	ck_assert_uint_ne(range.inode, 0);
	munmap(base, 8 * page_bytes);
}
END_TEST

START_TEST(test_read_only_part_makes_the_range_read_only)
{
	size_t page_bytes = (size_t)getpagesize();
	uint8_t *base = map_memfd();

	ck_assert_int_eq(mprotect(base + 3 * page_bytes, page_bytes, PROT_READ), 0);
	ck_assert_int_eq(look(base, 0, 8).writable, 0);
	ck_assert_int_eq(look(base, 0, 8).uniform, 1);
	ck_assert_int_eq(look(base, 4, 4).writable, 1);
	munmap(base, 8 * page_bytes);
}
END_TEST

START_TEST(test_gap_makes_the_range_uncovered)
{
	size_t page_bytes = (size_t)getpagesize();
	uint8_t *base = map_memfd();

	ck_assert_int_eq(munmap(base + 3 * page_bytes, page_bytes), 0);
	ck_assert_int_eq(look(base, 0, 8).covered, 0);
	ck_assert_int_eq(look(base, 0, 3).covered, 1);
	ck_assert_int_eq(look(base, 3, 1).covered, 0);
	munmap(base, 8 * page_bytes);
}
END_TEST

START_TEST(test_two_files_side_by_side_are_not_uniform)
{
	size_t page_bytes = (size_t)getpagesize();
	uint8_t *base = map_memfd();
	void *other = mmap(base + 4 * page_bytes, 4 * page_bytes, PROT_READ | PROT_WRITE,
	                   MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_eq(other, base + 4 * page_bytes);
	ck_assert_int_eq(look(base, 0, 8).covered, 1);
	ck_assert_int_eq(look(base, 0, 8).uniform, 0);
	munmap(base, 8 * page_bytes);
}
END_TEST

START_TEST(test_anonymous_memory_has_no_file)
{
	size_t page_bytes = (size_t)getpagesize();
	uint8_t *base = map_pages(4, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	struct maps_range range = look(base, 1, 2);

	ck_assert_uint_eq(range.inode, 0);
	ck_assert_uint_eq(range.offset, 0);
	ck_assert_int_eq(range.covered && range.uniform, 1);
	ck_assert_int_eq(range.shared, 0);
	munmap(base, 4 * page_bytes);
}
END_TEST

/* Huge pages need not be had to be mapped. */
START_TEST(test_huge_pages_are_known_by_their_size)
{
	size_t length = 2u << 20;
	void *base = mmap(NULL, length, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);
	struct maps_range range;

	if (base == MAP_FAILED) {
		support_note("test_huge_pages_are_known_by_their_size", "huge pages cannot be mapped");
		return;
	}
	ck_assert_int_eq(maps_look((uintptr_t)base, length, &range), 0);
	ck_assert_int_eq(range.hugetlb, 1);
	ck_assert_uint_gt(range.page_bytes, (uint64_t)getpagesize());
	munmap(base, length);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("maps");
	TCase *tests = tcase_create("maps");

	support_begin("test_maps", &(struct support_needs){0});
	tcase_add_test(tests, test_range_of_a_memfd_is_described);
	tcase_add_test(tests, test_read_only_part_makes_the_range_read_only);
	tcase_add_test(tests, test_gap_makes_the_range_uncovered);
	tcase_add_test(tests, test_two_files_side_by_side_are_not_uniform);
	tcase_add_test(tests, test_anonymous_memory_has_no_file);
	tcase_add_test(tests, test_huge_pages_are_known_by_their_size);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
