/* SPDX-License-Identifier: MIT */
/*
 * A page that the kernel moves to another place in memory looks like a hole for a moment (kernel/holes.h). Here some
 * pages of a real file are being moved whenever they are looked at, until a byte of them is read. They are data.
 */
#include "kernel/holes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "support.h"

#define PAGES 200

enum page { PAGE_DATA, PAGE_HOLE, PAGE_MOVING, PAGE_KINDS };

static struct kernel_ops ops;
static enum page pages[PAGES];
static uint8_t settled[PAGES];
static size_t page_bytes;
static size_t reads;
static size_t counts;
static int has_cachestat;

static int looks_like_data(size_t page)
{
	return pages[page] == PAGE_DATA || (pages[page] == PAGE_MOVING && settled[page]);
}

static int64_t seek(int fd, uint64_t offset, int whence)
{
	(void)fd;
	for (uint64_t at = offset; at < PAGES * page_bytes; at = (at / page_bytes + 1) * page_bytes) {
		if (looks_like_data(at / page_bytes) == (whence == SEEK_DATA)) {
			return (int64_t)at;
		}
	}
	return whence == SEEK_DATA ? -ENXIO : (int64_t)(PAGES * page_bytes);
}

static ssize_t read_and_settle(int fd, void *buffer, size_t length, uint64_t offset)
{
	reads++;
	settled[offset / page_bytes] = 1;
	return kernel_real.pread(fd, buffer, length, offset);
}

static int count(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted)
{
	(void)fd;
	if (!has_cachestat) {
		return -ENOSYS;
	}
	*cached = 0;
	*evicted = 0;
	for (uint64_t page = offset / page_bytes; page < PAGES && page * page_bytes < offset + length; page++) {
		*cached += pages[page] != PAGE_HOLE;
	}
	return 0;
}

static int make_file(void)
{
	ops = kernel_real;
	ops.seek = seek;
	ops.pread = read_and_settle;
	ops.cachestat = count;
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	reads = 0;
	memset(settled, 0, sizeof(settled));
	int fd = memfd_create("holes", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, (off_t)(PAGES * page_bytes)) == 0);
	return fd;
}

/* Where data truly begins. */
static uint64_t next_of(uint64_t offset, uint64_t end)
{
	for (uint64_t at = offset; at < end; at = (at / page_bytes + 1) * page_bytes) {
		if (pages[at / page_bytes] != PAGE_HOLE) {
			return at;
		}
	}
	return end;
}

START_TEST(test_page_that_is_being_moved_is_data)
{
	struct chance chance = chance_new(1);
	has_cachestat = _i % 2;
	for (int round = 0; round < 2000; round++) {
		int fd = make_file();
		size_t rare = 1 + chance_below(&chance, 100);
		for (size_t page = 0; page < PAGES; page++) {
			pages[page] = chance_below(&chance, rare) != 0 ? PAGE_HOLE
			                                               : (enum page)chance_below(&chance, PAGE_KINDS);
		}
		uint64_t end = 1 + chance_below(&chance, PAGES * page_bytes);
		uint64_t offset = chance_below(&chance, end);
		ck_assert_uint_eq(holes_next_data(&ops, fd, offset, end), next_of(offset, end));
		close(fd);
	}
}
END_TEST

/* Nothing is read where the kernel says that nothing is there, nor for a hint. */
START_TEST(test_large_hole_is_passed_without_a_read)
{
	int fd = make_file();
	memset(pages, 0, sizeof(pages));
	for (size_t page = 10; page < PAGES; page++) {
		pages[page] = PAGE_HOLE;
	}
	has_cachestat = 1;
	ck_assert_uint_eq(holes_next_data(&ops, fd, 10 * page_bytes, PAGES * page_bytes), PAGES * page_bytes);
	has_cachestat = 0;
	ck_assert_uint_eq(holes_next_data_hint(&ops, fd, 10 * page_bytes, PAGES * page_bytes), PAGES * page_bytes);
	ck_assert_uint_eq(reads, 0);
	ck_assert_uint_eq(holes_next_data(&ops, fd, 10 * page_bytes, PAGES * page_bytes), PAGES * page_bytes);
	ck_assert_uint_eq(reads, PAGES - 10);
	close(fd);
}
END_TEST

#define GREAT ((uint64_t)1 << 46)
#define STANDS ((uint64_t)3 << 44) /* one page here, which is being moved */

static int64_t seek_great(int fd, uint64_t offset, int whence)
{
	(void)fd;
	if (whence == SEEK_HOLE) {
		return (int64_t)offset;
	}
	return reads && offset <= STANDS ? (int64_t)STANDS : -ENXIO;
}

static ssize_t read_great(int fd, void *buffer, size_t length, uint64_t offset)
{
	(void)fd;
	(void)buffer;
	reads += offset / page_bytes == STANDS / page_bytes;
	return (ssize_t)length;
}

static int count_great(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted)
{
	(void)fd;
	counts++;
	*cached = offset <= STANDS && offset + length > STANDS;
	*evicted = 0;
	return 0;
}

/* A file in memory may claim any length, and costs nothing. */
START_TEST(test_one_page_in_a_great_hole_is_found_by_few_calls)
{
	int fd = make_file();
	ops.seek = seek_great;
	ops.pread = read_great;
	ops.cachestat = count_great;
	counts = 0;
	ck_assert_uint_eq(holes_next_data(&ops, fd, 0, GREAT), STANDS);
	ck_assert_uint_lt(counts, 200);
	ck_assert_uint_eq(holes_next_data(&ops, fd, STANDS + page_bytes, GREAT), GREAT);
	ck_assert_uint_lt(counts, 400);
	close(fd);
}
END_TEST

/* What was allocated and never written (fallocate(2)) stays a hole although something stands there. */
START_TEST(test_allocated_page_that_was_not_written_is_a_hole)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	size_t bytes = PAGES * (size_t)sysconf(_SC_PAGESIZE);
	must(fd >= 0 && fallocate(fd, 0, 0, (off_t)bytes) == 0);
	ck_assert_uint_eq(holes_next_data(&kernel_real, fd, 0, bytes), bytes);
	must(pwrite(fd, "A", 1, (off_t)(bytes / 2)) == 1);
	ck_assert_uint_eq(holes_next_data(&kernel_real, fd, 0, bytes), bytes / 2);
	ck_assert_uint_eq(holes_next(&kernel_real, fd, bytes / 2, bytes), bytes / 2 + bytes / PAGES);
	close(fd);
}
END_TEST

static int64_t seek_refused(int fd, uint64_t offset, int whence)
{
	(void)fd;
	(void)offset;
	(void)whence;
	return -EINVAL;
}

/* Earlier than was asked for. */
static int64_t seek_back(int fd, uint64_t offset, int whence)
{
	(void)fd;
	(void)whence;
	return (int64_t)offset - 1;
}

START_TEST(test_what_the_file_system_does_not_answer_is_data)
{
	int fd = make_file();
	ops.seek = _i ? seek_back : seek_refused;
	ck_assert_uint_eq(holes_next_data(&ops, fd, page_bytes, 3 * page_bytes), page_bytes);
	ck_assert_uint_eq(holes_next(&ops, fd, page_bytes, 3 * page_bytes), 3 * page_bytes);
	close(fd);
}
END_TEST

static int64_t type_of_disk(int fd)
{
	(void)fd;
	return EXT4_SUPER_MAGIC;
}

/* Only files on tmpfs are looked at twice: others know their holes by themselves. */
START_TEST(test_file_on_disk_is_believed)
{
	int fd = make_file();
	ops.fs_type = type_of_disk;
	for (size_t page = 0; page < PAGES; page++) {
		pages[page] = PAGE_MOVING;
	}
	ck_assert_uint_eq(holes_next_data(&ops, fd, 0, PAGES * page_bytes), PAGES * page_bytes);
	ck_assert_uint_eq(reads, 0);
	close(fd);
}
END_TEST

int main(void)
{
	support_begin("test_holes", &(struct support_needs){0, 0});
	Suite *suite = suite_create("holes");
	TCase *tests = tcase_create("holes");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_page_that_is_being_moved_is_data, 0, 2);
	tcase_add_test(tests, test_large_hole_is_passed_without_a_read);
	tcase_add_test(tests, test_one_page_in_a_great_hole_is_found_by_few_calls);
	tcase_add_test(tests, test_allocated_page_that_was_not_written_is_a_hole);
	tcase_add_loop_test(tests, test_what_the_file_system_does_not_answer_is_data, 0, 2);
	tcase_add_test(tests, test_file_on_disk_is_believed);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
