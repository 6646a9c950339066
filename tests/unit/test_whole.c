/* SPDX-License-Identifier: MIT */
/*
 * Where a whole restore looks for data: the table of runs of a block, on a kernel whose file has data and holes in
 * blocks of any size, or that answers what no kernel should. A shadow of the data is the witness: each byte of it lies
 * in a run, runs are in order and apart, and the loop ends.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "restore/whole_private.h"
#include "support.h"

#define FILE_BYTES (3 * (int64_t)BLOCK_BYTES + 5000)
#define FS_BLOCK_LEAST 512

static uint8_t is_data[FILE_BYTES / FS_BLOCK_LEAST + 1]; /* of each 512 bytes */
static struct chance lies;
static int lying;
static unsigned seeks;

static int64_t true_seek(uint64_t offset, int whence)
{
	if (offset >= (uint64_t)FILE_BYTES) {
		return -ENXIO;
	}
	for (uint64_t at = offset; at < (uint64_t)FILE_BYTES; at = (at / FS_BLOCK_LEAST + 1) * FS_BLOCK_LEAST) {
		if (is_data[at / FS_BLOCK_LEAST] == (whence == SEEK_DATA)) {
			return (int64_t)at;
		}
	}
	return whence == SEEK_DATA ? -ENXIO : FILE_BYTES;
}

/* An answer of its own now and then: before the offset, far beyond the end, an error. */
static int64_t file_seek(int fd, uint64_t offset, int whence)
{
	(void)fd;
	must(++seeks < 1000000); /* a loop that does not get on ends here */
	if (lying && chance_below(&lies, 3) == 0) {
		static const int64_t answers[] = {0, 1, 4095, INT64_MAX, -EINVAL, -ENXIO, -EIO, BLOCK_BYTES};
		return answers[chance_below(&lies, sizeof(answers) / sizeof(answers[0]))];
	}
	return true_seek(offset, whence);
}

static void look(uint64_t number, struct block *block)
{
	struct kernel_ops ops = kernel_real;
	struct image_link base = {.fd = -1, .length_bytes = FILE_BYTES, .clip = FILE_BYTES};
	struct uffdwp_image image = {.length_bytes = FILE_BYTES};
	struct whole whole = {.k = &ops, .base = &base, .image = &image};
	ops.seek = file_seek;
	memset(block, 0x5a, sizeof(*block));
	block_look(&whole, number, block);
}

static void expect_in_order(const struct block *block)
{
	ck_assert_uint_le(block->count, BLOCK_RUNS);
	for (unsigned i = 0; i < block->count; i++) {
		const struct base_run *run = &block->runs[i];
		ck_assert_uint_lt(run->start, run->end);
		ck_assert_uint_le(run->end, block->part);
		ck_assert_uint_eq(run->start % BLOCK_ALIGN, 0);
		ck_assert(i == 0 || run->start >= run[-1].end + BLOCK_GAP_BYTES);
	}
}

static int is_covered(const struct block *block, size_t at)
{
	for (unsigned i = 0; i < block->count; i++) {
		if (at >= block->runs[i].start && at < block->runs[i].end) {
			return 1;
		}
	}
	return 0;
}

static void expect_all_data_covered(const struct block *block)
{
	for (size_t at = 0; at < block->part; at += FS_BLOCK_LEAST) {
		if (is_data[(block->offset + at) / FS_BLOCK_LEAST]) {
			ck_assert_msg(is_covered(block, at), "byte %zu of block %llu", at,
			              (unsigned long long)(block->offset / BLOCK_BYTES));
		}
	}
}

static void check_blocks(void)
{
	for (uint64_t number = 0; number <= (uint64_t)FILE_BYTES / BLOCK_BYTES; number++) {
		struct block block;
		seeks = 0;
		look(number, &block);
		expect_in_order(&block);
		if (!lying) {
			expect_all_data_covered(&block);
		}
	}
}

/* Data and holes in turn, each of one block of the file system. */
START_TEST(test_runs_of_small_blocks_are_in_order_and_cover_all_data)
{
	static const size_t sizes[] = {512, 1024, 2048, 4096, 8192, 16384, 20480};
	size_t size = sizes[_i];
	for (size_t i = 0; i < sizeof(is_data); i++) {
		is_data[i] = i * FS_BLOCK_LEAST / size % 2 == 0;
	}
	check_blocks();
}
END_TEST

START_TEST(test_runs_of_random_files_are_in_order_and_cover_all_data)
{
	struct chance chance = chance_new((uint64_t)_i);
	lies = chance_new((uint64_t)_i + 1000);
	lying = _i % 2;
	for (int round = 0; round < 20; round++) {
		size_t step = (size_t)1 << chance_below(&chance, 7);
		size_t odds = 1 + chance_below(&chance, 40);
		for (size_t i = 0; i < sizeof(is_data); i++) {
			is_data[i] = i % step ? is_data[i - 1] : chance_below(&chance, odds) == 0;
		}
		check_blocks();
	}
}
END_TEST

/* --- memory in pages that are larger than the blocks of files --------------------------------------------------- */

#define LARGE_PAGE 65536u
#define PLACE_BYTES (4 * LARGE_PAGE)

static unsigned populated;

/* As where pages have 64 KiB. */
static int populate_large(void *address, size_t length, int advice)
{
	must(advice == MADV_POPULATE_WRITE && length > 0);
	must((uintptr_t)address % LARGE_PAGE == 0);
	populated++;
	return kernel_real.madvise(address, length, advice);
}

START_TEST(test_memory_is_populated_in_whole_pages)
{
	static unsigned char buffer[BLOCK_BYTES];
	struct kernel_ops ops = kernel_real;
	struct uffdwp_region region = {.page_bytes = LARGE_PAGE};
	struct image_link base = {.fd = memfd_create("base", MFD_CLOEXEC)};
	struct uffdwp_image image = {.page_bytes = 4096};
	struct whole whole = {.k = &ops, .region = &region, .base = &base, .image = &image};
	struct block block;
	unsigned char *memory =
	        mmap(NULL, PLACE_BYTES + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(memory != MAP_FAILED && base.fd >= 0);
	base.length_bytes = base.clip = image.length_bytes = 3 * LARGE_PAGE + 100; /* not aligned: by the buffer */
	ck_assert_int_eq(ftruncate(base.fd, (off_t)base.length_bytes), 0);
	ck_assert_int_eq(pwrite(base.fd, "data", 4, LARGE_PAGE + 4096), 4);
	whole.place = memory + LARGE_PAGE - (uintptr_t)memory % LARGE_PAGE;
	ops.madvise = populate_large;
	block_look(&whole, 0, &block);
	ck_assert_int_eq(block_run(&whole, &block, buffer), 0);
	ck_assert_uint_gt(populated, 0);
	ck_assert_mem_eq(whole.place + LARGE_PAGE + 4096, "data", 4);
}
END_TEST

int main(void)
{
	support_begin("test_whole", &(struct support_needs){0, 0});
	Suite *suite = suite_create("whole");
	TCase *tests = tcase_create("whole");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_runs_of_small_blocks_are_in_order_and_cover_all_data, 0, 7);
	tcase_add_loop_test(tests, test_runs_of_random_files_are_in_order_and_cover_all_data, 0, 10);
	tcase_add_test(tests, test_memory_is_populated_in_whole_pages);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
