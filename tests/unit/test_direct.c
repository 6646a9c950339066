/* SPDX-License-Identifier: MIT */
/*
 * O_DIRECT that is allowed at the opening and refused by each read and write (EINVAL), as by a file system whose blocks
 * are larger than ours: images go through the page cache then, also where several of them are running already.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/file.h"
#include "restore/whole_private.h"
#include "scratch.h"
#include "support.h"

#define SLOT (64u << 10)
#define DIRECT_FD 1000000 /* of the fake kernel */
#define RAW_FD 1000001

static struct kernel_ops ops;
static struct image_file file;
static struct whole whole;
static unsigned refused;

/* ---- writes ---- */

static ssize_t write_refusing_direct(int fd, const void *buffer, size_t length, uint64_t offset)
{
	if (fcntl(fd, F_GETFL) & O_DIRECT) {
		refused++;
		return -EINVAL;
	}
	return kernel_real.pwrite(fd, buffer, length, offset);
}

/* Another thread finds it while this one's write is under way. */
static ssize_t write_found_by_another(int fd, const void *buffer, size_t length, uint64_t offset)
{
	ssize_t wrote = write_refusing_direct(fd, buffer, length, offset);
	if (wrote == -EINVAL) {
		must(kernel_real.change_flags(fd, 0, O_DIRECT) == 0);
		atomic_store(&file.direct, 0);
	}
	return wrote;
}

/* 0: this folder's file system has no O_DIRECT. */
static int open_file(const char *name, unsigned flags)
{
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, name);
	memset(&file, 0, sizeof(file));
	ck_assert_int_eq(image_file_open(&file, &ops, path, flags, 0, NULL), 0);
	return file.direct;
}

static void expect_bytes(const uint8_t *expected, size_t length)
{
	uint8_t *bytes = malloc(length);
	must(bytes != NULL);
	ck_assert_int_eq(pread(file.fd, bytes, length, 0), (ssize_t)length);
	ck_assert(memcmp(bytes, expected, length) == 0);
	free(bytes);
	image_file_close(&file, 0);
}

static uint8_t *new_bytes(size_t length)
{
	uint8_t *bytes = aligned_alloc(IMAGE_ALIGN, length);
	must(bytes != NULL);
	for (size_t i = 0; i < length; i++) {
		bytes[i] = (uint8_t)(i / IMAGE_ALIGN + 1);
	}
	return bytes;
}

START_TEST(test_writes_in_flight_are_repeated_without_direct)
{
	ops = kernel_real;
	ops.pwrite = write_refusing_direct;
	refused = 0;
	int is_direct = open_file("several", IMAGE_FILE_NO_URING);
	if (!is_direct) {
		support_note(__func__, "no O_DIRECT in the scratch folder");
	}
	uint8_t *bytes = new_bytes(4 * SLOT);
	file.slot_count = 4;
	for (unsigned i = 0; i < 4; i++) {
		file.slots[i].buffer = bytes + i * SLOT;
		file.slots[i].offset = i * SLOT;
		ck_assert_int_eq(image_file_submit(&file, i, 0, SLOT), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		while (file.slots[i].pending) {
			ck_assert_int_eq(image_file_reap(&file), 0);
		}
	}
	ck_assert_uint_eq(refused, is_direct ? 4 : 0);
	expect_bytes(bytes, 4 * SLOT);
	free(bytes);
}
END_TEST

START_TEST(test_write_is_repeated_though_another_thread_left_direct)
{
	ops = kernel_real;
	ops.pwrite = write_found_by_another;
	refused = 0;
	int is_direct = open_file("one", 0);
	if (!is_direct) {
		support_note(__func__, "no O_DIRECT in the scratch folder");
	}
	uint8_t *bytes = new_bytes(SLOT);
	ck_assert_int_eq(image_file_pwrite(&file, bytes, SLOT, 0), 0);
	ck_assert_uint_eq(refused, is_direct ? 1 : 0);
	expect_bytes(bytes, SLOT);
	free(bytes);
}
END_TEST

static uint8_t *later;
static int later_result;

/* Another thread writes when this one is about to clear the flag, which its write still meets. */
static int change_flags_after_a_write(int fd, int on, int off)
{
	if (later != NULL) {
		const uint8_t *bytes = later;
		later = NULL;
		later_result = image_file_pwrite(&file, bytes, SLOT, SLOT);
	}
	return kernel_real.change_flags(fd, on, off);
}

START_TEST(test_write_is_repeated_while_another_thread_leaves_direct)
{
	ops = kernel_real;
	ops.pwrite = write_refusing_direct;
	ops.change_flags = change_flags_after_a_write;
	refused = 0;
	if (!open_file("two", 0)) {
		support_note(__func__, "no O_DIRECT in the scratch folder");
		image_file_close(&file, 0);
		return;
	}
	uint8_t *bytes = new_bytes(2 * SLOT);
	later = bytes + SLOT;
	later_result = 1;
	ck_assert_int_eq(image_file_pwrite(&file, bytes, SLOT, 0), 0);
	ck_assert_int_eq(later_result, 0);
	ck_assert_uint_eq(refused, 2);
	ck_assert_int_eq(file.direct, 0);
	expect_bytes(bytes, 2 * SLOT);
	free(bytes);
}
END_TEST

/* ---- reads ---- */

static ssize_t read_found_by_another(int fd, void *buffer, size_t length, uint64_t offset)
{
	(void)offset;
	if (fd == DIRECT_FD) {
		refused++;
		atomic_store(&whole.direct, 0);
		return -EINVAL;
	}
	memset(buffer, 0x5a, length);
	return (ssize_t)length;
}

START_TEST(test_read_is_repeated_though_another_thread_left_direct)
{
	static uint8_t place[BLOCK_BYTES];
	struct image_link base = {.fd = RAW_FD, .length_bytes = BLOCK_BYTES, .clip = BLOCK_BYTES};
	struct uffdwp_image image = {.length_bytes = BLOCK_BYTES, .page_bytes = BLOCK_ALIGN};
	struct block block = {.length = BLOCK_BYTES, .part = BLOCK_BYTES, .shown = BLOCK_BYTES, .count = 1};
	block.runs[0] = (struct base_run){0, BLOCK_BYTES};
	ops = kernel_real;
	ops.pread = read_found_by_another;
	image.links = &base;
	image.link_count = 1;
	whole = (struct whole){.k = &ops, .base = &base, .image = &image, .place = place, .direct_fd = DIRECT_FD};
	atomic_store(&whole.direct, 1);
	refused = 0;
	ck_assert_int_eq(block_run(&whole, &block, NULL), 0);
	ck_assert_uint_eq(refused, 1);
	ck_assert_int_eq(whole.error, 0);
	ck_assert_uint_eq(place[BLOCK_BYTES - 1], 0x5a);
}
END_TEST

int main(void)
{
	support_begin("test_direct", &(struct support_needs){0, 0});
	Suite *suite = suite_create("direct");
	TCase *tests = tcase_create("direct");
	tcase_add_test(tests, test_writes_in_flight_are_repeated_without_direct);
	tcase_add_test(tests, test_write_is_repeated_though_another_thread_left_direct);
	tcase_add_test(tests, test_write_is_repeated_while_another_thread_leaves_direct);
	tcase_add_test(tests, test_read_is_repeated_though_another_thread_left_direct);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
