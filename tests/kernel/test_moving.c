/* SPDX-License-Identifier: MIT */
/*
 * Pages that the kernel moves to another place in memory while a snapshot is taken look like holes for a moment, to
 * lseek(2) and mincore(2) alike (kernel/holes.h). Here any page may be one at any look, until it is read. The image has
 * their bytes, and the snapshot does not fail. That real moves do it is shown by tests/vm/numa.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "place.h"
#include "support.h"

#define PAGES 512

static struct place place;
static struct kernel_ops ops;
static struct chance chance;
static uint8_t *image;
static uint8_t moving[PAGES];
static int moves;

/* Which pages are being moved from now on: one in eight. */
static void start_moves(void)
{
	for (size_t page = 0; page < PAGES; page++) {
		moving[page] |= moves && chance_below(&chance, 8) == 0;
	}
}

static int is_of_the_region(int fd)
{
	struct stat one;
	struct stat other;
	return moves && fstat(fd, &one) == 0 && fstat(place_fd(&place), &other) == 0 && one.st_ino == other.st_ino &&
	       one.st_dev == other.st_dev;
}

static int64_t seek(int fd, uint64_t offset, int whence)
{
	int64_t found = kernel_real.seek(fd, offset, whence);
	if (!is_of_the_region(fd) || whence != SEEK_DATA) {
		return found;
	}
	while (found >= 0 && (size_t)found / place.page_bytes < PAGES && moving[(size_t)found / place.page_bytes]) {
		offset = ((uint64_t)found / place.page_bytes + 1) * place.page_bytes;
		found = offset < PAGES * place.page_bytes ? kernel_real.seek(fd, offset, whence) : -ENXIO;
	}
	return found;
}

static int mincore_of_moving(void *address, size_t length, unsigned char *pages)
{
	int error = kernel_real.mincore(address, length, pages);
	uint8_t *at = address;
	if (error || !moves || at < place.base || at >= place.base + place.length_bytes) {
		return error;
	}
	start_moves();
	for (size_t page = 0; page < (length + place.page_bytes - 1) / place.page_bytes; page++) {
		pages[page] &= (unsigned char)~moving[(size_t)(at - place.base) / place.page_bytes + page];
	}
	return 0;
}

static ssize_t read_and_settle(int fd, void *buffer, size_t length, uint64_t offset)
{
	ssize_t got = kernel_real.pread(fd, buffer, length, offset);
	if (is_of_the_region(fd)) {
		for (uint64_t page = offset / place.page_bytes; page * place.page_bytes < offset + length; page++) {
			moving[page] = 0;
		}
	}
	return got;
}

static int no_cachestat(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted)
{
	(void)fd;
	(void)offset;
	(void)length;
	(void)cached;
	(void)evicted;
	return -ENOSYS;
}

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	memcpy(image + offset, data, length);
	return 0;
}

static int open_where_pages_move(int number)
{
	struct place_case which = place_auto_case(number % PLACE_AUTO_CASES);
	if (which.memory != UFFDWP_MEMORY_SHMEM || !place_possible(which)) {
		return 0;
	}
	ops = kernel_real;
	ops.seek = seek;
	ops.mincore = mincore_of_moving;
	ops.pread = read_and_settle;
	if (number >= PLACE_AUTO_CASES) {
		ops.cachestat = no_cachestat;
	}
	moves = 0;
	memset(moving, 0, sizeof(moving));
	return place_try(&place, &ops, 0, which, PAGES) == 0;
}

START_TEST(test_page_that_is_being_moved_is_in_the_image)
{
	if (!open_where_pages_move(_i)) {
		return;
	}
	image = malloc(place.length_bytes);
	must(image != NULL);
	chance = chance_new((uint64_t)_i);
	for (size_t page = 0; page < PAGES; page++) {
		if (chance_below(&chance, 4) != 0) {
			memset(place.base + page * place.page_bytes, (int)(page % 255 + 1), place.page_bytes);
		}
	}
	for (unsigned round = 0; round < support_rounds(10, 100); round++) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		struct uffdwp_snapshot *snapshot;
		options.sink = UFFDWP_SINK_CALLBACK;
		options.callback = take;
		options.flags = round % 3 ? 0 : UFFDWP_SNAPSHOT_KEEP;
		memset(image, 0, place.length_bytes);
		moves = 1;
		ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
		moves = 0;
		ck_assert_int_eq(memcmp(image, place.base, place.length_bytes), 0);
	}
	free(image);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_moving", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("pages that are being moved");
	TCase *tests = tcase_create("pages that are being moved");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_page_that_is_being_moved_is_in_the_image, 0, 2 * PLACE_AUTO_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
