/* SPDX-License-Identifier: MIT */
/*
 * Images: chains of random deltas against a shadow of what they must show; damage of every byte that frames a delta, of
 * bytes inside of it, and cuts; links that are missing, swapped, foreign or changed. INV-LINK: none of them is taken,
 * and the text names the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain.h"
#include "image/hash.h"
#include "image/pack.h"
#include "support.h"
#include "uffdwp.h"

#define MIB (1u << 20)

static void expect_text(struct uffdwp_image *image, const char *part)
{
	char text[512] = "";
	(void)(image ? uffdwp_image_text(image, text, sizeof(text)) : uffdwp_error_text(text, sizeof(text)));
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

static void expect_refused(const char *path, int error, const char *part)
{
	struct uffdwp_image *image = NULL;
	int result = uffdwp_image_open(path, NULL, &image);
	ck_assert_msg(result == error, "%s: opened with %d, expected %d", path, result, error);
	ck_assert_ptr_null(image);
	expect_text(NULL, part);
}

static int verify(const char *path, struct uffdwp_image_verified *verified)
{
	struct uffdwp_image *image = NULL;
	int error = uffdwp_image_open(path, NULL, &image);
	if (error != 0) {
		return error;
	}
	verified->sz = sizeof(*verified);
	error = uffdwp_image_verify(image, verified);
	if (error != 0) {
		expect_text(image, "/");
	}
	(void)uffdwp_image_close(image);
	return error;
}

static void expect_merge_shows(struct test_chain *chain, uint32_t deltas, uint32_t compress)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	options.deltas = deltas;
	options.compress = pack_built() ? compress : 0;
	scratch_join(path, chain->folder, "merged");
	ck_assert_int_eq(uffdwp_image_open(chain->path, NULL, &image), 0);
	int error = uffdwp_image_merge(image, path, &options);
	expect_text(image, "");
	ck_assert_int_eq(error, 0);
	(void)uffdwp_image_close(image);
	ck_assert(test_chain_shows(path, chain->shadow, chain->length, &chain->chance));
	if (deltas == 0) {
		uint8_t *bytes = malloc(chain->length + 1);
		ck_assert(scratch_read(path, bytes, chain->length));
		ck_assert_mem_eq(bytes, chain->shadow, chain->length);
		free(bytes);
	}
	struct uffdwp_image_verified verified;
	ck_assert_int_eq(verify(path, &verified), 0);
}

static size_t any_length(struct test_chain *chain)
{
	size_t length = chance_below(&chain->chance, CHAIN_SHADOW_MOST);
	return chance_below(&chain->chance, 2) ? length / 4096 * 4096 : length;
}

static void check_chain(size_t page_bytes, uint64_t salt)
{
	struct test_chain chain;
	test_chain_begin(&chain, page_bytes, 2 * MIB + 77, salt);
	for (unsigned i = 0; i < 20; i++) {
		static const uint32_t levels[] = {0, 1, 3, 19};
		size_t length = chance_below(&chain.chance, 3) ? chain.length : any_length(&chain);
		test_chain_step(&chain, levels[chance_below(&chain.chance, 4)], length);
		ck_assert_msg(test_chain_shows(chain.path, chain.shadow, chain.length, &chain.chance),
		              "delta %u of %zu bytes, pages of %zu", i, chain.length, page_bytes);
	}
	struct uffdwp_image_verified verified;
	ck_assert_int_eq(verify(chain.path, &verified), 0);
	ck_assert_uint_eq(verified.links, 21);
	expect_merge_shows(&chain, 0, 0);
	for (uint32_t deltas = 1; deltas <= 20; deltas++) {
		expect_merge_shows(&chain, deltas, deltas % 2 ? 0 : 3);
	}
	test_chain_end(&chain);
}

START_TEST(test_chain_of_twenty_deltas_shows_the_shadow_and_merges)
{
	check_chain((size_t)4096 << _i, (uint64_t)_i);
}
END_TEST

/* ---- damage ---- */

struct file {
	char path[SCRATCH_PATH];
	uint8_t *bytes;
	size_t length;
};

static void load_file(struct file *file, const char *path)
{
	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	file->length = (size_t)st.st_size;
	file->bytes = malloc(file->length);
	(void)snprintf(file->path, sizeof(file->path), "%s", path);
	ck_assert(scratch_read(path, file->bytes, file->length));
}

static void flip(const struct file *file, int fd, size_t at, uint8_t bits)
{
	uint8_t byte = (uint8_t)(file->bytes[at] ^ bits);
	must(pwrite(fd, &byte, 1, (off_t)at) == 1);
}

static uint64_t index_of(const struct file *file)
{
	uint64_t at;
	memcpy(&at, file->bytes + 72, sizeof(at));
	return at;
}

static void small_chain(struct test_chain *chain, struct file *file, uint32_t compress)
{
	test_chain_begin(chain, 4096, 100000, 77);
	test_chain_step(chain, compress, 100000);
	test_chain_step(chain, compress, 100000);
	load_file(file, chain->path);
}

START_TEST(test_every_byte_of_header_index_and_trailer_counts)
{
	struct test_chain chain;
	struct file file;
	small_chain(&chain, &file, 0);
	int fd = open(file.path, O_RDWR | O_CLOEXEC);
	size_t refused = 0;
	for (size_t at = 0; at < file.length; at = at + 1 == 4096 ? index_of(&file) : at + 1) {
		struct uffdwp_image *image = NULL;
		flip(&file, fd, at, (uint8_t)(1u << chance_below(&chain.chance, 8)));
		int error = uffdwp_image_open(file.path, NULL, &image);
		ck_assert_msg(error == -EBADMSG, "byte %zu: %d", at, error);
		expect_text(NULL, file.path);
		refused++;
		flip(&file, fd, at, 0);
	}
	printf("%zu flipped bytes refused\n", refused);
	close(fd);
	ck_assert(test_chain_shows(chain.path, chain.shadow, chain.length, &chain.chance));
	free(file.bytes);
	test_chain_end(&chain);
}
END_TEST

/* What a damaged file shows is right, or it is refused. */
static void check_never_wrong(const struct test_chain *chain, const char *path)
{
	struct uffdwp_image *image = NULL;
	static uint8_t bytes[CHAIN_SHADOW_MOST];
	if (uffdwp_image_open(path, NULL, &image) != 0) {
		return;
	}
	if (uffdwp_image_read(image, 0, bytes, chain->length) == 0) {
		ck_assert_mem_eq(bytes, chain->shadow, chain->length);
	} else {
		expect_text(image, "damaged at byte");
	}
	(void)uffdwp_image_close(image);
}

START_TEST(test_flipped_bytes_of_pages_are_found)
{
	struct test_chain chain;
	struct file file;
	struct uffdwp_image_verified verified;
	small_chain(&chain, &file, (uint32_t)_i);
	int fd = open(file.path, O_RDWR | O_CLOEXEC);
	uint64_t end = index_of(&file);
	for (int i = 0; i < 300; i++) {
		size_t at = 4096 + chance_below(&chain.chance, end - 4096);
		flip(&file, fd, at, (uint8_t)(1u << chance_below(&chain.chance, 8)));
		ck_assert_msg(verify(file.path, &verified) == -EBADMSG, "byte %zu", at);
		check_never_wrong(&chain, file.path);
		flip(&file, fd, at, 0);
	}
	close(fd);
	ck_assert_int_eq(verify(file.path, &verified), 0);
	free(file.bytes);
	test_chain_end(&chain);
}
END_TEST

START_TEST(test_cut_files_are_refused)
{
	struct test_chain chain;
	struct file file;
	small_chain(&chain, &file, 0);
	for (size_t length = file.length - 1; length >= 8; length -= 1 + chance_below(&chain.chance, 200)) {
		ck_assert_int_eq(truncate(file.path, (off_t)length), 0);
		expect_refused(file.path, -EBADMSG, file.path);
		if (length < 220) {
			break;
		}
	}
	scratch_write(file.path, file.bytes, file.length);
	ck_assert_int_eq(truncate(file.path, (off_t)file.length + 1), 0);
	expect_refused(file.path, -EBADMSG, "its header says");
	free(file.bytes);
	test_chain_end(&chain);
}
END_TEST

/* A header that lies, with a checksum that is right: bounds are checked all the same. */
START_TEST(test_fields_out_of_range_are_refused)
{
	static const struct {
		size_t at;
		const char *name;
	} fields[] = {{12, "flags"},
	              {16, "page size"},
	              {24, "length of the region"},
	              {32, "length of the parent"},
	              {72, "index"},
	              {80, "entries"},
	              {88, "length of the file"},
	              {96, "compression"},
	              {104, "page size of"},
	              {112, "name of the parent"},
	              {2000, "unused"}};
	struct test_chain chain;
	struct file file;
	small_chain(&chain, &file, 0);
	uint8_t bytes[DELTA_HEADER_BYTES];
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		struct delta_header header;
		struct text text;
		memcpy(bytes, file.bytes, sizeof(bytes));
		memset(bytes + fields[i].at, fields[i].at == 112 ? '/' : 0xff,
		       fields[i].at == 96 || fields[i].at == 12 ? 4 : 8);
		/* as the encoder would: the checksum of all before it */
		text_init(&text);
		ck_assert_int_eq(delta_decode_header(bytes, file.length, "x", &header, &text), -EBADMSG);
		uint64_t hash = hash_64(bytes, DELTA_HEADER_COVERED);
		memcpy(bytes + DELTA_HEADER_COVERED, &hash, sizeof(hash));
		ck_assert_int_eq(delta_decode_header(bytes, file.length, "x", &header, &text), -EBADMSG);
		ck_assert_msg(strstr(text.line, fields[i].name) != NULL, "%s: %s", fields[i].name, text.line);
		text_fini(&text);
	}
	uint32_t later = 2;
	memcpy(bytes, file.bytes, sizeof(bytes));
	memcpy(bytes + 8, &later, sizeof(later));
	uint64_t hash = hash_64(bytes, DELTA_HEADER_COVERED);
	memcpy(bytes + DELTA_HEADER_COVERED, &hash, sizeof(hash));
	int fd = open(file.path, O_RDWR | O_CLOEXEC);
	must(pwrite(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes));
	close(fd);
	expect_refused(file.path, -EPROTONOSUPPORT, "version 2");
	free(file.bytes);
	test_chain_end(&chain);
}
END_TEST

/* ---- links ---- */

static void rename_in(const struct test_chain *chain, const char *from, const char *to)
{
	char a[SCRATCH_PATH];
	char b[SCRATCH_PATH];
	scratch_join(a, chain->folder, from);
	scratch_join(b, chain->folder, to);
	ck_assert_int_eq(rename(a, b), 0);
}

START_TEST(test_missing_swapped_and_foreign_links_are_refused)
{
	struct test_chain chain;
	struct test_chain foreign;
	test_chain_begin(&chain, 4096, 100000, 1);
	test_chain_begin(&foreign, 4096, 100000, 2);
	for (int i = 0; i < 3; i++) {
		test_chain_step(&chain, 0, 100000);
		test_chain_step(&foreign, 0, 100000);
	}
	rename_in(&chain, "delta-2", "kept");
	expect_refused(chain.path, -ENOENT, "delta-2");
	char path[SCRATCH_PATH];
	char kept[SCRATCH_PATH];
	scratch_join(kept, chain.folder, "kept");
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	const char *paths[] = {"/nowhere", kept};
	options.paths = paths;
	options.path_count = 2;
	struct uffdwp_image *image = NULL;
	ck_assert_int_eq(uffdwp_image_open(chain.path, &options, &image), 0);
	(void)uffdwp_image_close(image);
	rename_in(&chain, "delta-1", "delta-2");
	expect_refused(chain.path, -EXDEV, "delta-2");
	scratch_join(path, foreign.folder, "delta-2");
	scratch_join(kept, chain.folder, "delta-2");
	ck_assert_int_eq(rename(path, kept), 0);
	expect_refused(chain.path, -EXDEV, "its id is");
	scratch_join(path, foreign.folder, "base");
	ck_assert_int_eq(rename(path, kept), 0);
	expect_refused(chain.path, -EXDEV, "a raw image");
	test_chain_end(&chain);
	test_chain_end(&foreign);
}
END_TEST

/* A raw file of the same length, of which one byte is another. */
static void write_another(const struct file *base, const char *path)
{
	scratch_write(path, base->bytes, base->length);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	flip(base, fd, base->length / 2, 1);
	close(fd);
}

static int open_with(const struct test_chain *chain, const char *one, const char *two, struct uffdwp_image **image)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	const char *paths[] = {one, two};
	options.paths = paths;
	options.path_count = two != NULL ? 2 : 1;
	return uffdwp_image_open(chain->path, &options, image);
}

static void expect_base(const struct test_chain *chain, const char *one, const char *two, const char *base)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	uint8_t *bytes = malloc(chain->length);
	ck_assert_int_eq(open_with(chain, one, two, &image), 0);
	ck_assert_int_eq(uffdwp_image_info(image, 1, &info), 0);
	ck_assert_str_eq(info.path, base);
	ck_assert_int_eq(uffdwp_image_read(image, 0, bytes, chain->length), 0);
	ck_assert_mem_eq(bytes, chain->shadow, chain->length);
	ck_assert_int_eq(uffdwp_image_verify(image, &verified), 0);
	(void)uffdwp_image_close(image);
	free(bytes);
}

START_TEST(test_of_raw_files_of_one_length_the_parent_is_taken)
{
	struct test_chain chain;
	struct file base;
	struct uffdwp_image *image = NULL;
	char folder[SCRATCH_PATH];
	char x[SCRATCH_PATH];
	char y[SCRATCH_PATH];
	char named[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, MIB + 5000, 5);
	load_file(&base, chain.path);
	test_chain_step(&chain, 0, MIB + 5000);
	scratch_join(x, chain.folder, "x");
	scratch_join(y, chain.folder, "y");
	scratch_folder(folder);
	scratch_join(named, folder, "base");
	write_another(&base, named);
	write_another(&base, y);
	expect_base(&chain, named, y, base.path); /* it lies beside */
	rename_in(&chain, "base", "x");
	expect_base(&chain, x, NULL, x);
	expect_base(&chain, y, x, x);
	expect_base(&chain, x, y, x);
	expect_base(&chain, named, x, x);
	write_another(&base, base.path);
	expect_base(&chain, x, NULL, x); /* another one lies beside */
	ck_assert_int_eq(open_with(&chain, y, named, &image), -EXDEV);
	expect_text(NULL, "none of the raw images");
	ck_assert_int_eq(open_with(&chain, base.path, base.path, &image), 0); /* one file: verify finds it */
	(void)uffdwp_image_close(image);
	free(base.bytes);
	test_chain_end(&chain);
}
END_TEST

START_TEST(test_another_base_is_refused_before_anything_is_committed)
{
	struct test_chain chain;
	char base[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, 3 * MIB / 2, 3);
	test_chain_step(&chain, 0, MIB);
	scratch_join(base, chain.folder, "base");
	scratch_join(path, chain.folder, "result");
	int fd = open(base, O_RDWR | O_CLOEXEC);
	uint8_t byte;
	off_t last = 3 * MIB / 2 - 1; /* what the delta does not even show */
	must(pread(fd, &byte, 1, last) == 1);
	byte ^= 1;
	must(pwrite(fd, &byte, 1, last) == 1);
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_verify(image, &verified), -EXDEV);
	ck_assert_uint_eq(verified.links, 1);
	expect_text(image, base);
	size_t entries = scratch_entries(chain.folder);
	ck_assert_int_eq(uffdwp_image_merge(image, path, NULL), -EXDEV);
	expect_text(image, base);
	ck_assert_uint_eq(scratch_entries(chain.folder), entries);
	ck_assert_int_eq(uffdwp_image_merge(image, base, NULL), -EINVAL);
	(void)uffdwp_image_close(image);
	ck_assert_int_eq(ftruncate(fd, 3 * MIB / 2 - 1), 0);
	expect_refused(chain.path, -EXDEV, "bytes");
	close(fd);
	test_chain_end(&chain);
}
END_TEST

static int merge_two(const struct test_chain *chain, const char *path)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	options.deltas = 2;
	ck_assert_int_eq(uffdwp_image_open(chain->path, NULL, &image), 0);
	int error = uffdwp_image_merge(image, path, &options);
	(void)uffdwp_image_close(image);
	return error;
}

static uint64_t pages_of(const char *path)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_info(image, 0, &info), 0);
	(void)uffdwp_image_close(image);
	return info.pages_raw + info.pages_zeros + info.pages_packed;
}

/* The last page is cut, by no delta: its bytes stay those of the raw image. */
START_TEST(test_merged_delta_has_nothing_of_the_raw_image)
{
	struct test_chain chain;
	struct file base;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, 10000, 6);
	load_file(&base, chain.path);
	test_chain_step_page(&chain, 0, 10000);
	test_chain_step_page(&chain, 0, 10000);
	scratch_join(path, chain.folder, "merged");
	int fd = open(base.path, O_RDWR | O_CLOEXEC);
	flip(&base, fd, 9000, 1);
	ck_assert_int_eq(merge_two(&chain, path), 0);
	flip(&base, fd, 9000, 0);
	close(fd);
	ck_assert_uint_eq(pages_of(path), 1);
	ck_assert(test_chain_shows(path, chain.shadow, chain.length, &chain.chance));
	ck_assert_int_eq(verify(path, &verified), 0);
	free(base.bytes);
	test_chain_end(&chain);
}
END_TEST

/* The older delta ends in the last page, which neither has: the merged one must have it, with bytes of the raw image.
 */
START_TEST(test_raw_image_is_checked_before_bytes_of_it_are_merged)
{
	struct test_chain chain;
	struct file base;
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, 10000, 7);
	load_file(&base, chain.path);
	test_chain_step_page(&chain, 0, 9000);
	test_chain_step_page(&chain, 0, 10000);
	scratch_join(path, chain.folder, "merged");
	size_t entries = scratch_entries(chain.folder);
	int fd = open(base.path, O_RDWR | O_CLOEXEC);
	flip(&base, fd, 8500, 1);
	ck_assert_int_eq(merge_two(&chain, path), -EXDEV);
	expect_text(NULL, base.path);
	ck_assert_uint_eq(scratch_entries(chain.folder), entries);
	flip(&base, fd, 8500, 0);
	close(fd);
	expect_merge_shows(&chain, 2, 0);
	ck_assert_uint_eq(pages_of(path), 2);
	free(base.bytes);
	test_chain_end(&chain);
}
END_TEST

/* Every byte of the raw image of a chain counts, also those that no newer image shows. */
START_TEST(test_every_byte_of_a_base_counts)
{
	struct test_chain chain;
	struct uffdwp_image_verified verified;
	struct file base;
	test_chain_begin(&chain, 4096, MIB + MIB / 2 + 5000, 4);
	load_file(&base, chain.path);
	test_chain_step(&chain, 0, MIB + 100000);
	test_chain_step(&chain, 3, base.length);
	int fd = open(base.path, O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 150; i++) {
		size_t at = chance_below(&chain.chance, base.length);
		flip(&base, fd, at, (uint8_t)(1u << chance_below(&chain.chance, 8)));
		ck_assert_msg(verify(chain.path, &verified) == -EXDEV, "byte %zu", at);
		flip(&base, fd, at, 0);
	}
	for (int i = 0; i < 50; i++) {
		ck_assert_int_eq(ftruncate(fd, (off_t)chance_below(&chain.chance, base.length)), 0);
		expect_refused(chain.path, -EXDEV, base.path);
	}
	ck_assert_int_eq(ftruncate(fd, (off_t)base.length + 1), 0);
	expect_refused(chain.path, -EXDEV, base.path);
	close(fd);
	scratch_write(base.path, base.bytes, base.length);
	ck_assert_int_eq(verify(chain.path, &verified), 0);
	free(base.bytes);
	test_chain_end(&chain);
}
END_TEST

/* ---- differences ---- */

struct ranges {
	uint64_t bytes;
	uint64_t count;
	uint64_t end;
	const uint8_t *one;
	const uint8_t *two;
};

static int take_range(void *user, uint64_t offset, uint64_t length)
{
	struct ranges *ranges = user;
	must(offset >= ranges->end && length > 0);
	must(memcmp(ranges->one + ranges->end, ranges->two + ranges->end, offset - ranges->end) == 0);
	for (uint64_t at = offset; at < offset + length; at += 4096) {
		uint64_t part = offset + length - at < 4096 ? offset + length - at : 4096;
		must(memcmp(ranges->one + at, ranges->two + at, part) != 0);
	}
	ranges->bytes += length;
	ranges->count++;
	ranges->end = offset + length;
	return 0;
}

static void check_diff(struct test_chain *chain, const char *from_path, const uint8_t *from_bytes, uint32_t compress)
{
	struct uffdwp_image *from = NULL;
	struct uffdwp_image *to = NULL;
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	struct ranges ranges = {.one = from_bytes, .two = chain->shadow};
	char path[SCRATCH_PATH];
	scratch_join(path, chain->folder, "difference");
	ck_assert_int_eq(uffdwp_image_open(from_path, NULL, &from), 0);
	ck_assert_int_eq(uffdwp_image_open(chain->path, NULL, &to), 0);
	diff.path = path;
	diff.compress = pack_built() ? compress : 0;
	diff.callback = take_range;
	diff.user = &ranges;
	int error = uffdwp_image_diff(from, to, &diff);
	expect_text(from, "");
	ck_assert_int_eq(error, 0);
	ck_assert_uint_eq(diff.ranges, ranges.count);
	ck_assert_uint_eq(diff.bytes, ranges.bytes);
	must(memcmp(from_bytes + ranges.end, chain->shadow + ranges.end, CHAIN_SHADOW_MOST - ranges.end) == 0);
	(void)uffdwp_image_close(from);
	(void)uffdwp_image_close(to);
	ck_assert(test_chain_shows(path, chain->shadow, chain->length, &chain->chance));
}

START_TEST(test_difference_leads_from_one_image_to_the_other)
{
	struct test_chain chain;
	char base[SCRATCH_PATH];
	char middle[SCRATCH_PATH];
	uint8_t *shadows[2] = {malloc(CHAIN_SHADOW_MOST), malloc(CHAIN_SHADOW_MOST)};
	test_chain_begin(&chain, 4096, MIB + 5000, 9);
	(void)snprintf(base, sizeof(base), "%s", chain.path);
	memcpy(shadows[0], chain.shadow, CHAIN_SHADOW_MOST);
	test_chain_step(&chain, 3, MIB + 9000);
	(void)snprintf(middle, sizeof(middle), "%s", chain.path);
	memcpy(shadows[1], chain.shadow, CHAIN_SHADOW_MOST);
	test_chain_step(&chain, 0, MIB - 1);
	test_chain_step(&chain, 0, _i ? 2 * MIB : 4097);
	check_diff(&chain, base, shadows[0], 0);
	check_diff(&chain, middle, shadows[1], 5);
	free(shadows[0]);
	free(shadows[1]);
	test_chain_end(&chain);
}
END_TEST

/* An image that was opened by a link is the parent under the name of its file. */
START_TEST(test_difference_names_the_file_that_a_link_leads_to)
{
	struct test_chain chain;
	char folder[SCRATCH_PATH];
	char link[SCRATCH_PATH];
	uint8_t *shadow = malloc(CHAIN_SHADOW_MOST);
	test_chain_begin(&chain, 4096, MIB, 10);
	memcpy(shadow, chain.shadow, CHAIN_SHADOW_MOST);
	scratch_folder(folder);
	scratch_join(link, folder, "link");
	ck_assert_int_eq(symlink(chain.path, link), 0);
	test_chain_step(&chain, 0, MIB);
	check_diff(&chain, link, shadow, 0);
	ck_assert_int_eq(unlink(link), 0);
	ck_assert_int_eq(symlink(chain.path, link), 0); /* the newest, opened by a link */
	ck_assert(test_chain_shows(link, chain.shadow, chain.length, &chain.chance));
	free(shadow);
	test_chain_end(&chain);
}
END_TEST

/* ---- arguments, threads ---- */

START_TEST(test_copy_of_an_unfinished_export_is_refused)
{
	static const char label[4096] = UFFDWP_NBD_UNFINISHED;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;
	scratch_folder(folder);
	scratch_join(path, folder, "copy");
	scratch_write(path, label, sizeof(label));
	expect_refused(path, -EBADMSG, "not finished");
	options.flags = UFFDWP_IMAGE_OPEN_RAW;
	ck_assert_int_eq(uffdwp_image_open(path, &options, &image), 0);
	(void)uffdwp_image_close(image);
	scratch_write(path, label, sizeof(UFFDWP_NBD_UNFINISHED) - 2);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	(void)uffdwp_image_close(image);
}
END_TEST

START_TEST(test_arguments_are_checked)
{
	struct test_chain chain;
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image_merge_options merge = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	uint8_t byte;
	test_chain_begin(&chain, 4096, 5000, 4);
	ck_assert_int_eq(uffdwp_image_open(NULL, NULL, &image), -EINVAL);
	ck_assert_int_eq(uffdwp_image_open("", NULL, &image), -EINVAL);
	ck_assert_int_eq(uffdwp_image_open(chain.folder, NULL, &image), -EISDIR);
	options.flags = 1u << 31;
	ck_assert_int_eq(uffdwp_image_open(chain.path, &options, &image), -EINVAL);
	options.flags = 0;
	options.sz = 3;
	ck_assert_int_eq(uffdwp_image_open(chain.path, &options, &image), -EINVAL);
	ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_read(image, 5000, &byte, 1), -ERANGE);
	ck_assert_int_eq(uffdwp_image_read(image, UINT64_MAX, &byte, 2), -EOVERFLOW);
	ck_assert_int_eq(uffdwp_image_read(image, 5000, &byte, 0), 0);
	ck_assert_int_eq(uffdwp_image_info(image, 1, &info), -ERANGE);
	merge.deltas = 1;
	ck_assert_int_eq(uffdwp_image_merge(image, "/nowhere/x", &merge), -ERANGE);
	ck_assert_int_eq(uffdwp_image_merge(image, "/nowhere/x", NULL), -ENOENT);
	merge.compress = 20;
	ck_assert_int_eq(uffdwp_image_merge(image, "/nowhere/x", &merge), -EINVAL);
	(void)uffdwp_image_close(image);
	ck_assert_int_eq(uffdwp_image_close(NULL), 0);
	test_chain_end(&chain);
}
END_TEST

struct reader {
	struct uffdwp_image *image;
	const struct test_chain *chain;
	struct chance chance;
};

static void *read_at_random(void *argument)
{
	struct reader *reader = argument;
	static _Thread_local uint8_t bytes[20000];
	for (int i = 0; i < 3000; i++) {
		size_t length = chance_below(&reader->chance, sizeof(bytes));
		size_t offset = chance_below(&reader->chance, reader->chain->length - length);
		must(uffdwp_image_read(reader->image, offset, bytes, length) == 0);
		must(memcmp(bytes, reader->chain->shadow + offset, length) == 0);
	}
	return NULL;
}

START_TEST(test_many_threads_read_with_few_contexts)
{
	struct test_chain chain;
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct reader readers[6];
	pthread_t threads[6];
	test_chain_begin(&chain, 4096, MIB, 5);
	test_chain_step(&chain, 3, MIB);
	test_chain_step(&chain, 0, MIB);
	options.contexts = 2;
	struct uffdwp_image *image = NULL;
	ck_assert_int_eq(uffdwp_image_open(chain.path, &options, &image), 0);
	for (unsigned i = 0; i < 6; i++) {
		readers[i] = (struct reader){image, &chain, chance_new(100 + i)};
		threads[i] = thread_start(read_at_random, &readers[i]);
	}
	for (unsigned i = 0; i < 6; i++) {
		thread_join(threads[i]);
	}
	(void)uffdwp_image_close(image);
	test_chain_end(&chain);
}
END_TEST

int main(void)
{
	support_begin("test_image", &(struct support_needs){0, 0});
	Suite *suite = suite_create("image");
	TCase *tests = tcase_create("image");
	tcase_set_timeout(tests, 100);
	tcase_add_loop_test(tests, test_chain_of_twenty_deltas_shows_the_shadow_and_merges, 0, 5);
	tcase_add_test(tests, test_every_byte_of_header_index_and_trailer_counts);
	tcase_add_loop_test(tests, test_flipped_bytes_of_pages_are_found, 0, 2);
	tcase_add_test(tests, test_cut_files_are_refused);
	tcase_add_test(tests, test_fields_out_of_range_are_refused);
	tcase_add_test(tests, test_missing_swapped_and_foreign_links_are_refused);
	tcase_add_test(tests, test_of_raw_files_of_one_length_the_parent_is_taken);
	tcase_add_test(tests, test_another_base_is_refused_before_anything_is_committed);
	tcase_add_test(tests, test_merged_delta_has_nothing_of_the_raw_image);
	tcase_add_test(tests, test_raw_image_is_checked_before_bytes_of_it_are_merged);
	tcase_add_test(tests, test_every_byte_of_a_base_counts);
	tcase_add_loop_test(tests, test_difference_leads_from_one_image_to_the_other, 0, 2);
	tcase_add_test(tests, test_difference_names_the_file_that_a_link_leads_to);
	tcase_add_test(tests, test_copy_of_an_unfinished_export_is_refused);
	tcase_add_test(tests, test_arguments_are_checked);
	tcase_add_test(tests, test_many_threads_read_with_few_contexts);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
