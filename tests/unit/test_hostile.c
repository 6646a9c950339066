/* SPDX-License-Identifier: MIT */
/*
 * Files that claim more than they hold: lengths of up to 2^56 bytes in a delta of 4 KiB, raw images that are one hole,
 * an index of 2 GiB that is stored nowhere. What is done about them is bounded by what is really there: calls of the
 * kernel are counted, and where a loop would go without any, the test's time limit is the bound (without the mend:
 * years).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain.h"
#include "forge.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/page_set.h"
#include "support.h"
#include "uffdwp.h"

#define PAGE ((size_t)4096)
#define TIB ((uint64_t)1 << 40)

static const uint64_t lengths[] = {64 * TIB / 1024, TIB, 8 * TIB, 128 * TIB, 1024 * TIB, (uint64_t)1 << 56};
#define LENGTHS ((int)(sizeof(lengths) / sizeof(*lengths)))

static char folder[SCRATCH_PATH];
static uint8_t bytes[FORGE_BYTES_MOST];

/* ---- files ---- */

static void path_of(char path[SCRATCH_PATH], const char *name)
{
	scratch_join(path, folder, name);
}

/* A raw image of a page, in the folder. */
static void make_base(struct image_parent *parent)
{
	char path[SCRATCH_PATH];
	memset(bytes, 'a', PAGE);
	path_of(path, "base");
	scratch_write(path, bytes, PAGE);
	*parent = (struct image_parent){.id = test_chain_raw_id(path, PAGE), .length_bytes = PAGE, .is_raw = 1};
	(void)snprintf(parent->name, sizeof(parent->name), "base");
}

/* A delta without a page, or with a single one of zeros, which says that it shows `length` bytes. */
static void make_claim(struct image_parent *parent, const char *name, uint64_t length, uint64_t page_bytes,
                       int has_page)
{
	char path[SCRATCH_PATH];
	struct delta_header header = {.flags = parent->is_raw ? DELTA_PARENT_IS_RAW : 0,
	                              .page_bytes = page_bytes,
	                              .region_page_bytes = page_bytes,
	                              .length_bytes = length,
	                              .parent_length_bytes = parent->length_bytes,
	                              .parent = parent->id,
	                              .index_offset = PAGE,
	                              .index_count = (uint64_t)has_page};
	struct delta_entry entry = {.page = format_delta_pages(length, page_bytes) - 1, .kind = DELTA_ZEROS};
	size_t size = PAGE + (size_t)has_page * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	struct delta_trailer trailer = {.file_bytes = size};
	header.file_bytes = size;
	memcpy(header.parent_name, parent->name, sizeof(header.parent_name));
	delta_encode_header(&header, bytes);
	delta_encode_entry(&entry, bytes + PAGE);
	delta_encode_trailer(&trailer, bytes + size - DELTA_TRAILER_BYTES);
	forge_repair(bytes, size);
	path_of(path, name);
	scratch_write(path, bytes, size);
	memset(parent, 0, sizeof(*parent));
	memcpy(&parent->id, bytes + 40, sizeof(parent->id));
	parent->length_bytes = length;
	(void)snprintf(parent->name, sizeof(parent->name), "%s", name);
}

static struct uffdwp_image *open_named(const char *name)
{
	char path[SCRATCH_PATH];
	char text[512] = "";
	struct uffdwp_image *image = NULL;
	path_of(path, name);
	int error = uffdwp_image_open(path, NULL, &image);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%s: %d: %s", name, error, text);
	return image;
}

/* ---- lengths ---- */

/* What is there shows, at both ends. */
static void expect_shows(struct uffdwp_image *image, uint64_t length)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	uint8_t byte = 1;
	ck_assert_int_eq(uffdwp_image_info(image, 0, &info), 0);
	ck_assert_uint_eq(info.length_bytes, length);
	ck_assert_int_eq(uffdwp_image_read(image, 0, &byte, 1), 0);
	ck_assert_uint_eq(byte, 'a');
	ck_assert_int_eq(uffdwp_image_read(image, length - 1, &byte, 1), 0);
	ck_assert_uint_eq(byte, 0);
}

static void expect_merge(struct uffdwp_image *image, uint32_t deltas, uint64_t length)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	char text[512] = "";
	struct stat st;
	options.deltas = deltas;
	options.flags = UFFDWP_IMAGE_MERGE_BUFFERED;
	path_of(path, "merged");
	size_t before = scratch_entries(folder);
	int error = uffdwp_image_merge(image, path, &options);
	if (error != 0) { /* what the file system or the address space does not have, and nothing is left */
		(void)uffdwp_image_text(image, text, sizeof(text));
		ck_assert_msg(error == (deltas ? -ENOMEM : -EFBIG), "%d: %s", error, text);
		ck_assert_uint_eq(scratch_entries(folder), before);
		ck_assert_msg(length > 8 * TIB, "%s", text);
		return;
	}
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_le(st.st_blocks, 256);
	struct uffdwp_image *merged = open_named("merged");
	expect_shows(merged, length);
	(void)uffdwp_image_close(merged);
	ck_assert_int_eq(unlink(path), 0);
}

static void expect_no_difference(struct uffdwp_image *image)
{
	struct uffdwp_image *base = open_named("base");
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	ck_assert_int_eq(uffdwp_image_diff(base, image, &diff), 0);
	ck_assert_uint_eq(diff.ranges, 0);
	ck_assert_int_eq(uffdwp_image_diff(image, base, &diff), 0);
	ck_assert_uint_eq(diff.ranges, 0);
	(void)uffdwp_image_close(base);
}

static void check_claim(uint64_t length, uint64_t page_bytes, int has_page)
{
	struct image_parent parent;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	make_base(&parent);
	make_claim(&parent, "delta", length, page_bytes, has_page);
	struct uffdwp_image *image = open_named("delta");
	expect_shows(image, length);
	ck_assert_int_eq(uffdwp_image_verify(image, &verified), 0);
	ck_assert_uint_eq(verified.links, 2);
	expect_no_difference(image);
	expect_merge(image, 0, length);
	expect_merge(image, 1, length);
	(void)uffdwp_image_close(image);
}

START_TEST(test_claimed_lengths_cost_nothing)
{
	check_claim(lengths[_i], PAGE, 0);
	check_claim(lengths[_i], 16 * PAGE, 1);
}
END_TEST

/* The middle one cuts all but a page off, so that of two that become one each page that was there must not show again.
 */
START_TEST(test_what_was_cut_off_is_hidden_where_there_was_something)
{
	struct image_parent parent;
	make_base(&parent);
	make_claim(&parent, "first", lengths[_i], PAGE, 1);
	make_claim(&parent, "second", PAGE, PAGE, 0);
	make_claim(&parent, "third", lengths[_i], PAGE, 0);
	struct uffdwp_image *image = open_named("third");
	expect_shows(image, lengths[_i]);
	expect_merge(image, 2, lengths[_i]);
	expect_merge(image, 0, lengths[_i]);
	(void)uffdwp_image_close(image);
}
END_TEST

/* ---- a raw image that is one hole ---- */

static int open_hole(uint64_t length, char path[FORGE_PATH_BYTES])
{
	int fd = memfd_create("hole", MFD_CLOEXEC);
	must(fd >= 0 && pwrite(fd, "a", 1, 0) == 1 && ftruncate(fd, (off_t)length) == 0);
	forge_path(fd, path);
	return fd;
}

START_TEST(test_raw_image_of_one_hole_is_passed_over)
{
	uint64_t length = lengths[_i] - PAGE;
	struct uffdwp_image *image = NULL;
	struct uffdwp_image *other = NULL;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	char path[FORGE_PATH_BYTES];
	char text[512] = "";
	int fd = open_hole(length, path);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &other), 0);
	int error = uffdwp_image_verify(image, &verified);
	(void)uffdwp_image_text(image, text, sizeof(text));
	ck_assert_msg(error == (length > BASE_LENGTH_MOST ? -EFBIG : 0), "%d: %s", error, text);
	ck_assert_msg(error == 0 || strstr(text, "longer than") != NULL, "%s", text);
	ck_assert_int_eq(uffdwp_image_diff(image, other, &diff), 0);
	ck_assert_uint_eq(diff.ranges, 0);
	(void)uffdwp_image_close(image);
	(void)uffdwp_image_close(other);
	close(fd);
}
END_TEST

/* ---- an index that is stored nowhere ---- */

static uint64_t read_bytes;
static uint64_t mapped_bytes;

static ssize_t counted_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	read_bytes += length;
	return kernel_real.pread(fd, buffer, length, offset);
}

static void *counted_mmap(void *address, size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	mapped_bytes += length;
	return kernel_real.mmap(address, length, prot, flags, fd, offset, error);
}

static void *counted_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	mapped_bytes += new_length;
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

/* Header and trailer of an index of `count` entries, and between them `pages` right ones, then a hole. */
static int open_sparse(uint64_t count, size_t pages, char path[FORGE_PATH_BYTES])
{
	struct delta_header header = {.flags = DELTA_PARENT_IS_RAW,
	                              .page_bytes = PAGE,
	                              .region_page_bytes = PAGE,
	                              .length_bytes = DELTA_LENGTH_MOST,
	                              .parent_length_bytes = PAGE,
	                              .parent = {1, 2},
	                              .index_offset = PAGE,
	                              .index_count = count,
	                              .parent_name = "base"};
	uint8_t trailer_bytes[DELTA_TRAILER_BYTES];
	header.file_bytes = PAGE + count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	delta_encode_header(&header, bytes);
	struct delta_trailer trailer = {.file_bytes = header.file_bytes};
	memcpy(&trailer.header_hash, bytes + DELTA_HEADER_COVERED, 8);
	delta_encode_trailer(&trailer, trailer_bytes);
	for (size_t i = 0; i < pages; i++) {
		struct delta_entry entry = {.page = i, .kind = DELTA_ZEROS, .hash = delta_zeros_hash(PAGE)};
		delta_encode_entry(&entry, bytes + PAGE + i * DELTA_ENTRY_BYTES);
	}
	int fd = memfd_create("sparse", MFD_CLOEXEC);
	size_t stored = PAGE + pages * DELTA_ENTRY_BYTES;
	must(fd >= 0 && pwrite(fd, bytes, stored, 0) == (ssize_t)stored);
	must(pwrite(fd, trailer_bytes, sizeof(trailer_bytes), (off_t)(header.file_bytes - sizeof(trailer_bytes))) ==
	     (ssize_t)sizeof(trailer_bytes));
	forge_path(fd, path);
	return fd;
}

START_TEST(test_sparse_index_is_refused_by_its_first_hole)
{
	static const struct {
		uint64_t count;
		size_t pages;
	} rows[] = {{1 << 26, 0}, {1 << 26, 20000}, {(uint64_t)1 << 40, 3}, {(uint64_t)1 << 44, 20000}};
	struct kernel_ops counting = kernel_real;
	struct chain_options options = {0};
	struct uffdwp_image *image = NULL;
	struct text text;
	char path[FORGE_PATH_BYTES];
	counting.pread = counted_pread;
	counting.mmap = counted_mmap;
	counting.mremap = counted_mremap;
	int fd = open_sparse(rows[_i].count, rows[_i].pages, path);
	text_init(&text);
	int error = chain_open(&counting, path, &options, &text, &image);
	ck_assert_msg(error == -EBADMSG && strstr(text.line, "index entry") != NULL, "%d: %s", error, text.line);
	ck_assert_uint_le(read_bytes, 4 << 20);
	ck_assert_uint_le(mapped_bytes, 32 << 20);
	text_fini(&text);
	close(fd);
}
END_TEST

/* ---- what came, of a huge memory ---- */

START_TEST(test_set_of_pages_gives_back_what_it_was_given)
{
	static const uint64_t mosts[] = {1, 64, 4096, 300000, (uint64_t)1 << 40};
	uint64_t most = mosts[_i];
	struct chance chance = chance_new((uint64_t)_i);
	static uint8_t has[300000];
	struct page_set set;
	ck_assert_int_eq(page_set_open(&set, &kernel_real, most), 0);
	uint64_t stride = most / sizeof(has) + 1; /* pages that may be there: multiples of it */
	uint64_t places = (most + stride - 1) / stride;
	for (int i = 0; i < 200; i++) {
		uint64_t place = chance_below(&chance, (size_t)places);
		ck_assert_int_eq(page_set_add(&set, place * stride), has[place]);
		has[place] = 1;
	}
	uint64_t page = 0;
	for (uint64_t place = 0; place < places; place++) {
		if (has[place] == 0) {
			continue;
		}
		ck_assert_int_eq(page_set_next(&set, &page, most), 1);
		ck_assert_uint_eq(page, place * stride);
		ck_assert_int_eq(page_set_next(&set, &page, page), 0);
		page++;
	}
	ck_assert_int_eq(page_set_next(&set, &page, most), 0);
	page_set_close(&set, &kernel_real);
}
END_TEST

static void setup(void)
{
	scratch_folder(folder);
}

int main(void)
{
	support_begin("test_hostile", &(struct support_needs){0, 0});
	Suite *suite = suite_create("hostile");
	TCase *tests = tcase_create("hostile");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_loop_test(tests, test_claimed_lengths_cost_nothing, 0, LENGTHS);
	tcase_add_loop_test(tests, test_what_was_cut_off_is_hidden_where_there_was_something, 0, LENGTHS);
	tcase_add_loop_test(tests, test_raw_image_of_one_hole_is_passed_over, 0, LENGTHS);
	tcase_add_loop_test(tests, test_sparse_index_is_refused_by_its_first_hole, 0, 4);
	tcase_add_loop_test(tests, test_set_of_pages_gives_back_what_it_was_given, 0, 5);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
