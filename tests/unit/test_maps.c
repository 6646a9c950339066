/* SPDX-License-Identifier: MIT */
/*
 * What maps.c says of mappings that the test makes: what they are, where they end, what they have in common.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "scratch.h"
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
	ck_assert_int_eq(range.has_file, 0);
	ck_assert_uint_eq(range.offset, 0);
	ck_assert_int_eq(range.covered && range.uniform, 1);
	ck_assert_int_eq(range.shared, 0);
	munmap(base, 4 * page_bytes);
}
END_TEST

/* In a namespace of its own the first segment has the id 0, which is its inode. */
START_TEST(test_system_v_segment_is_a_file_whatever_its_id)
{
	size_t length = 4 * (size_t)getpagesize();
	if (unshare(CLONE_NEWIPC) != 0) {
		support_note(__func__, "no namespace of System V segments");
	}
	int id = shmget(IPC_PRIVATE, length, IPC_CREAT | 0600);
	ck_assert_int_ge(id, 0);
	uint8_t *base = shmat(id, NULL, 0);
	ck_assert_int_eq(shmctl(id, IPC_RMID, NULL), 0);
	struct maps_range range = look(base, 0, 4);
	struct maps_aliases aliases;

	ck_assert_uint_eq(range.inode, (uint64_t)id);
	ck_assert_int_eq(range.has_file && range.sysv && range.shared && range.uniform, 1);
	ck_assert_int_eq(look(base, 1, 1).offset == (uint64_t)getpagesize(), 1);
	ck_assert_int_eq(maps_find_aliases((uintptr_t)base, length, &range, &aliases), 0);
	ck_assert_uint_eq(aliases.count, 0);
	uint8_t *again = shmat(id, NULL, 0);
	if (again != (void *)-1) { /* one that is to be removed can still be attached on Linux */
		ck_assert_int_eq(maps_find_aliases((uintptr_t)base, length, &range, &aliases), 0);
		ck_assert_uint_eq(aliases.count, 1);
		shmdt(again);
	}
	shmdt(base);
}
END_TEST

/* Huge pages need not be available to be mapped. */
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

#define DEEP 12
#define NAME_BYTES 200

/* In a folder below `folder` whose path has thousands of characters, most of which /proc/self/maps writes as four. */
static int open_deep(const char *folder)
{
	char name[NAME_BYTES + 1];
	int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

	memset(name, '\n', NAME_BYTES);
	name[NAME_BYTES] = '\0';
	for (int i = 0; i < DEEP; i++) {
		must(mkdirat(at, name, 0700) == 0);
		int next = openat(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		must(next >= 0 && close(at) == 0);
		at = next;
	}
	int fd = openat(at, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && close(at) == 0);
	return fd;
}

/* What is mapped, counted by its lines. */
static uint64_t count_lines(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t lines = 0;

	must(maps != NULL);
	for (int c = fgetc(maps); c != EOF; c = fgetc(maps)) {
		lines += c == '\n';
	}
	must(fclose(maps) == 0);
	return lines;
}

/* The start of a line that is longer than what is read at a time counts, and nothing of the rest. */
START_TEST(test_names_of_any_length_hide_nothing)
{
	char folder[SCRATCH_PATH];
	struct maps_count count;
	size_t length = 8 * (size_t)getpagesize();

	scratch_folder(folder);
	int fd = open_deep(folder);
	must(ftruncate(fd, (off_t)length) == 0);
	uint8_t *place = mmap(NULL, 3 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *base = mmap(place + length, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	must(base == place + length && close(fd) == 0);
	struct maps_range range = look(base, 2, 6);
	ck_assert_int_eq(range.covered && range.uniform && range.shared && range.has_file, 1);
	range = look(place, 16, 8);
	ck_assert_int_eq(range.covered && !range.readable && !range.has_file, 1);
	(void)count_lines();
	uint64_t lines = count_lines();
	ck_assert_int_eq(maps_count((uintptr_t)place, (uintptr_t)place + 3 * length, &count), 0);
	ck_assert_uint_eq(count.all, lines);
	ck_assert_uint_eq(count.inside, 3);
	munmap(place, 3 * length);
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
	tcase_add_test(tests, test_system_v_segment_is_a_file_whatever_its_id);
	tcase_add_test(tests, test_huge_pages_are_known_by_their_size);
	tcase_add_test(tests, test_names_of_any_length_hide_nothing);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
