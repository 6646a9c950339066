/* SPDX-License-Identifier: MIT */
/*
 * FORMAT.md, sentence by sentence: a delta that breaks one of them, with checksums that are right, is refused where the
 * reader can first see it, with a text that says what and where. One row a sentence; the untouched delta is the witness
 * that it is the row's change that is refused.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "forge.h"
#include "image/hash.h"
#include "image/pack.h"
#include "squeeze.h"
#include "support.h"
#include "uffdwp.h"

#define PAGE ((size_t)4096)
#define LENGTH (6 * PAGE - 1000) /* the last page is cut */
#define DATA PAGE                /* where it begins: page 0 raw, page 2 packed, page 5 raw; page 1 is zeros */
#define BYTES_MOST (16 * PAGE)

enum { ENTRY_RAW, ENTRY_ZEROS, ENTRY_PACKED, ENTRY_LAST, ENTRIES };

static uint8_t bytes[BYTES_MOST];
static size_t size;
static struct delta_entry entries[ENTRIES];
static uint8_t base_bytes[FORGE_BYTES_MOST];
static struct forged base = {.bytes = base_bytes};

/* Text that packs well, with zeros from `inside` on. */
static void fill(uint8_t *page, size_t inside)
{
	memset(page, 0, PAGE);
	for (size_t i = 0; i < inside; i++) {
		page[i] = (uint8_t)(i / 64 + 1);
	}
}

static void put_entry(size_t number)
{
	delta_encode_entry(&entries[number],
	                   bytes + size - DELTA_TRAILER_BYTES - (ENTRIES - number) * DELTA_ENTRY_BYTES);
}

/* Everything from the end of the pages on: zeros to the next page, index, trailer, header. */
static void close_at(size_t end)
{
	struct delta_header header = {.flags = DELTA_PARENT_IS_RAW,
	                              .compress = 3,
	                              .page_bytes = PAGE,
	                              .region_page_bytes = PAGE,
	                              .length_bytes = LENGTH,
	                              .parent_length_bytes = base.length,
	                              .parent = base.id,
	                              .index_offset = (end + PAGE - 1) / PAGE * PAGE,
	                              .index_count = ENTRIES,
	                              .parent_name = "base"};
	struct delta_trailer trailer = {0};
	size = header.index_offset + ENTRIES * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	must(size <= BYTES_MOST);
	header.file_bytes = size;
	trailer.file_bytes = size;
	delta_encode_header(&header, bytes);
	delta_encode_trailer(&trailer, bytes + size - DELTA_TRAILER_BYTES);
	for (size_t i = 0; i < ENTRIES; i++) {
		put_entry(i);
	}
}

/* How the packed page is stored: its bytes go to `to`. */
typedef size_t (*pack_fn)(uint8_t *to, const uint8_t *page);

static size_t pack_one_frame(uint8_t *to, const uint8_t *page)
{
	return squeeze(to, PAGE, page, PAGE);
}

static size_t make(pack_fn pack)
{
	uint8_t page[PAGE];
	memset(bytes, 0, sizeof(bytes));
	fill(bytes + DATA, PAGE);
	fill(page, PAGE);
	size_t packed = pack(bytes + DATA + PAGE, page);
	fill(bytes + DATA + PAGE + packed, LENGTH % PAGE);
	entries[ENTRY_RAW] = (struct delta_entry){0, DATA, 0, PAGE, DELTA_RAW};
	entries[ENTRY_ZEROS] = (struct delta_entry){1, 0, 0, 0, DELTA_ZEROS};
	entries[ENTRY_PACKED] = (struct delta_entry){2, DATA + PAGE, hash_64(page, PAGE), (uint32_t)packed, DELTA_ZSTD};
	entries[ENTRY_LAST] = (struct delta_entry){5, DATA + PAGE + packed, 0, PAGE, DELTA_RAW};
	size_t end = DATA + 2 * PAGE + packed;
	close_at(end);
	return end;
}

static void put64(size_t at, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes + at, &value, sizeof(value));
}

/* ---- what rows do ---- */

static void nothing(void)
{
}

static void magic(void)
{
	bytes[0] = 0;
}

static void trailer_magic(void)
{
	bytes[size - DELTA_TRAILER_BYTES] = 0;
}

static void version(void)
{
	bytes[8] = 2;
}

static void flags(void)
{
	bytes[12] |= 2;
}

static void page_too_small(void)
{
	put64(16, 2048);
}

static void page_too_large(void)
{
	put64(16, 131072);
	put64(104, 131072);
}

static void page_no_power(void)
{
	put64(16, 12288);
}

static void length_too_large(void)
{
	put64(24, (1ull << 56) + 1);
}

static void parent_length_too_large(void)
{
	put64(32, (1ull << 56) + 1);
}

static void parent_none(void)
{
	memset(bytes + 56, 0, 16);
}

static void index_not_aligned(void)
{
	put64(72, size - DELTA_TRAILER_BYTES - ENTRIES * DELTA_ENTRY_BYTES + 8);
}

static void index_in_header(void)
{
	put64(72, 0);
}

static void entries_too_many(void)
{
	put64(80, 7);
}

static void file_length(void)
{
	put64(88, size + 1);
}

static void level(void)
{
	bytes[96] = 23;
}

static void byte_after_level(void)
{
	bytes[100] = 1;
}

static void region_page_below(void)
{
	put64(104, 2048);
}

static void region_page_no_power(void)
{
	put64(104, 12288);
}

static void name_empty(void)
{
	memset(bytes + 112, 0, 256);
}

static void name_with_folder(void)
{
	memcpy(bytes + 112, "../a", 5);
}

static void name_dot(void)
{
	memcpy(bytes + 112, ".\0\0\0", 4);
}

static void name_dots(void)
{
	memcpy(bytes + 112, "..\0\0", 4);
}

static void name_without_end(void)
{
	memset(bytes + 112, 'a', 256);
}

static void name_with_rest(void)
{
	bytes[112 + 200] = 1;
}

static void first_unused(void)
{
	bytes[368] = 1;
}

static void last_unused(void)
{
	bytes[4087] = 1;
}

static void page_twice(void)
{
	entries[ENTRY_ZEROS].page = 0;
	put_entry(ENTRY_ZEROS);
}

static void pages_out_of_order(void)
{
	entries[ENTRY_PACKED].page = 0;
	put_entry(ENTRY_PACKED);
}

static void page_outside(void)
{
	entries[ENTRY_LAST].page = 6;
	put_entry(ENTRY_LAST);
}

static void zeros_with_place(void)
{
	entries[ENTRY_ZEROS].offset = DATA;
	put_entry(ENTRY_ZEROS);
}

static void zeros_with_length(void)
{
	entries[ENTRY_ZEROS].length = 4;
	put_entry(ENTRY_ZEROS);
}

static void raw_too_short(void)
{
	entries[ENTRY_RAW].length = PAGE - 1;
	put_entry(ENTRY_RAW);
}

static void packed_too_long(void)
{
	entries[ENTRY_PACKED].length = PAGE;
	put_entry(ENTRY_PACKED);
}

static void packed_empty(void)
{
	entries[ENTRY_PACKED].length = 0;
	put_entry(ENTRY_PACKED);
}

static void kind_unknown(void)
{
	entries[ENTRY_RAW].kind = DELTA_KINDS;
	put_entry(ENTRY_RAW);
}

static void place_in_header(void)
{
	entries[ENTRY_RAW].offset = 0;
	put_entry(ENTRY_RAW);
}

static void place_in_index(void)
{
	entries[ENTRY_LAST].offset = size - DELTA_TRAILER_BYTES - ENTRIES * DELTA_ENTRY_BYTES - PAGE + 1;
	put_entry(ENTRY_LAST);
}

static void place_wraps(void)
{
	entries[ENTRY_LAST].offset = UINT64_MAX - 100;
	put_entry(ENTRY_LAST);
}

static void pages_share_a_place(void)
{
	entries[ENTRY_LAST].offset = DATA;
	put_entry(ENTRY_LAST);
}

static void pages_overlap(void)
{
	entries[ENTRY_LAST].offset = entries[ENTRY_PACKED].offset;
	put_entry(ENTRY_LAST);
}

/* All of the data is there, and in another place than it should be. */
static void gap_between_pages(void)
{
	size_t end = make(pack_one_frame);
	memmove(bytes + entries[ENTRY_LAST].offset + 8, bytes + entries[ENTRY_LAST].offset, PAGE);
	entries[ENTRY_LAST].offset += 8;
	close_at(end + 8);
}

static void data_without_entry(void)
{
	size_t end = make(pack_one_frame);
	close_at(end + PAGE);
}

static void padding_not_zeros(void)
{
	bytes[size - DELTA_TRAILER_BYTES - ENTRIES * DELTA_ENTRY_BYTES - 1] = 1;
}

static size_t pack_two_frames(uint8_t *to, const uint8_t *page)
{
	size_t first = squeeze(to, PAGE, page, PAGE / 2);
	return first + squeeze(to + first, PAGE, page + PAGE / 2, PAGE / 2);
}

static void two_frames(void)
{
	make(pack_two_frames);
}

static size_t pack_with_skipped(uint8_t *to, const uint8_t *page)
{
	static const uint8_t skipped[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 'a', 'b', 'c', 'd'};
	size_t first = squeeze(to, PAGE, page, PAGE);
	memcpy(to + first, skipped, sizeof(skipped));
	return first + sizeof(skipped);
}

static void skipped_frame(void)
{
	make(pack_with_skipped);
}

static size_t pack_half(uint8_t *to, const uint8_t *page)
{
	return squeeze(to, PAGE, page, PAGE / 2);
}

static void frame_of_half_a_page(void)
{
	make(pack_half);
}

static size_t pack_trailing(uint8_t *to, const uint8_t *page)
{
	size_t first = squeeze(to, PAGE, page, PAGE);
	to[first] = 0;
	return first + 1;
}

static void byte_after_frame(void)
{
	make(pack_trailing);
}

static void tail_not_zeros(void)
{
	bytes[entries[ENTRY_LAST].offset + PAGE - 1] = 1;
}

/* The cut page, packed. */
static size_t pack_as_last(uint8_t *to, const uint8_t *page)
{
	return squeeze(to, PAGE, page, PAGE);
}

static void packed_tail_not_zeros(void)
{
	size_t end = make(pack_as_last) - PAGE;
	struct delta_entry packed = entries[ENTRY_PACKED];
	memset(bytes + end, 0, 2 * PAGE); /* page 2 becomes one of zeros, page 5 the packed one */
	packed.page = 5;
	entries[ENTRY_PACKED] = (struct delta_entry){2, 0, 0, 0, DELTA_ZEROS};
	entries[ENTRY_LAST] = packed;
	close_at(end);
}

static void file_longer(void)
{
	size++;
}

/* ---- after the sums were made ---- */

static void id_of_another(void)
{
	bytes[40] ^= 1;
	put64(DELTA_HEADER_COVERED, hash_64(bytes, DELTA_HEADER_COVERED));
	uint8_t *trailer = bytes + size - DELTA_TRAILER_BYTES;
	memcpy(trailer + 8, bytes + DELTA_HEADER_COVERED, 8);
	put64(size - 8, hash_64(trailer, 56));
}

static void header_sum_of_trailer(void)
{
	bytes[size - DELTA_TRAILER_BYTES + 8] ^= 1;
	put64(size - 8, hash_64(bytes + size - DELTA_TRAILER_BYTES, 56));
}

static void index_sum(void)
{
	bytes[size - DELTA_TRAILER_BYTES + 16] ^= 1;
	put64(size - 8, hash_64(bytes + size - DELTA_TRAILER_BYTES, 56));
}

static void data_sum(void)
{
	bytes[size - DELTA_TRAILER_BYTES + 32] ^= 1;
	put64(size - 8, hash_64(bytes + size - DELTA_TRAILER_BYTES, 56));
}

static void trailer_file_length(void)
{
	bytes[size - DELTA_TRAILER_BYTES + 48] ^= 1;
	put64(size - 8, hash_64(bytes + size - DELTA_TRAILER_BYTES, 56));
}

static void trailer_sum(void)
{
	bytes[size - 1] ^= 1;
}

static void header_sum(void)
{
	bytes[DELTA_HEADER_COVERED] ^= 1;
}

static void content(void)
{
	bytes[DATA] ^= 1;
}

/* ---- the table ---- */

enum seen { SEEN_NEVER, SEEN_OPEN, SEEN_READ, SEEN_VERIFY };

struct row {
	void (*change)(void);
	const char *text; /* part of it */
	enum seen seen;   /* by what it is refused */
	int after;        /* the change is made after the sums */
	int error;        /* 0: -EBADMSG */
};

#define AT_OPEN(change, text)                                                                                          \
	{                                                                                                              \
		change, text, SEEN_OPEN, 0, 0                                                                          \
	}
#define AFTER(change, text)                                                                                            \
	{                                                                                                              \
		change, text, SEEN_OPEN, 1, 0                                                                          \
	}

static const struct row rows[] = {
        {nothing, "", SEEN_NEVER, 0, 0},
        AFTER(magic, "magic"),
        AFTER(trailer_magic, "trailer"),
        {version, "version 2", SEEN_OPEN, 0, -EPROTONOSUPPORT},
        AT_OPEN(flags, "flags"),
        AT_OPEN(page_too_small, "page size"),
        AT_OPEN(page_too_large, "page size"),
        AT_OPEN(page_no_power, "page size"),
        AT_OPEN(length_too_large, "length of the region"),
        AT_OPEN(parent_length_too_large, "length of the parent"),
        AT_OPEN(parent_none, "id of the parent"),
        AT_OPEN(index_not_aligned, "place of the index"),
        AT_OPEN(index_in_header, "place of the index"),
        AT_OPEN(entries_too_many, "entries of the index"),
        AT_OPEN(file_length, "length of the file"),
        AT_OPEN(level, "compression"),
        AT_OPEN(byte_after_level, "compression"),
        AT_OPEN(region_page_below, "page size of the region"),
        AT_OPEN(region_page_no_power, "page size of the region"),
        AT_OPEN(name_empty, "name of the parent"),
        AT_OPEN(name_with_folder, "name of the parent"),
        AT_OPEN(name_dot, "name of the parent"),
        AT_OPEN(name_dots, "name of the parent"),
        AT_OPEN(name_without_end, "name of the parent"),
        AT_OPEN(name_with_rest, "name of the parent"),
        AT_OPEN(first_unused, "unused"),
        AT_OPEN(last_unused, "unused"),
        AT_OPEN(page_twice, "page number"),
        AT_OPEN(pages_out_of_order, "page number"),
        AT_OPEN(page_outside, "page number"),
        AT_OPEN(zeros_with_place, "place of the page"),
        AT_OPEN(zeros_with_length, "place of the page"),
        AT_OPEN(raw_too_short, "place of the page"),
        AT_OPEN(packed_too_long, "place of the page"),
        AT_OPEN(packed_empty, "place of the page"),
        AT_OPEN(kind_unknown, "kind"),
        AT_OPEN(place_in_header, "place of the page"),
        AT_OPEN(place_in_index, "place of the page"),
        AT_OPEN(place_wraps, "place of the page"),
        AT_OPEN(pages_share_a_place, "pages overlap"),
        AT_OPEN(pages_overlap, "pages overlap"),
        AT_OPEN(gap_between_pages, "a gap between them"),
        AT_OPEN(data_without_entry, "more of it than pages need"),
        AT_OPEN(padding_not_zeros, "not zeros"),
        {two_frames, "page 2", SEEN_READ, 0, 0},
        {skipped_frame, "page 2", SEEN_READ, 0, 0},
        {frame_of_half_a_page, "page 2", SEEN_READ, 0, 0},
        {byte_after_frame, "page 2", SEEN_READ, 0, 0},
        {tail_not_zeros, "page 5", SEEN_READ, 0, 0},
        {packed_tail_not_zeros, "page 5", SEEN_READ, 0, 0},
        {content, "page 0", SEEN_READ, 1, 0},
        AFTER(file_longer, "its header says"),
        AFTER(id_of_another, "id"),
        AFTER(header_sum, "checksum"),
        AFTER(header_sum_of_trailer, "different files"),
        AFTER(index_sum, "index"),
        AFTER(trailer_file_length, "length of the file"),
        AFTER(trailer_sum, "trailer"),
        {data_sum, "what lies between", SEEN_VERIFY, 1, 0},
};
#define ROWS (sizeof(rows) / sizeof(*rows))

static void build(const struct row *row)
{
	make(pack_one_frame);
	if (!row->after) {
		row->change();
	}
	forge_repair(bytes, size);
	if (row->after) {
		row->change();
	}
}

static void expect(int error, enum seen seen, const struct row *row, struct uffdwp_image *image, size_t number)
{
	char text[512] = "";
	int expected = row->seen == seen ? row->error ? row->error : -EBADMSG : 0;
	if (error != 0) {
		(void)(image ? uffdwp_image_text(image, text, sizeof(text)) : uffdwp_error_text(text, sizeof(text)));
	}
	ck_assert_msg(error == expected, "row %zu: %d and \"%s\", expected %d and \"%s\"", number, error, text,
	              expected, row->text);
	ck_assert_msg(error == 0 || strstr(text, row->text) != NULL, "row %zu: \"%s\" does not say \"%s\"", number,
	              text, row->text);
}

static void try_image(struct uffdwp_image *image, const struct row *row, size_t number)
{
	static uint8_t memory[6 * PAGE];
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	/* in one piece, and in parts that do not hold a page whole */
	int error = uffdwp_image_read(image, 0, memory, LENGTH);
	expect(error, SEEN_READ, row, image, number);
	int parts = 0;
	for (size_t at = 0; at < LENGTH && parts == 0; at += 500) {
		parts = uffdwp_image_read(image, at, memory, LENGTH - at < 500 ? LENGTH - at : 500);
	}
	ck_assert_msg((parts != 0) == (row->seen == SEEN_READ), "row %zu in parts: %d", number, parts);
	error = uffdwp_image_verify(image, &verified);
	if (row->seen == SEEN_READ) {
		ck_assert_int_eq(error, -EBADMSG);
	} else {
		expect(error, SEEN_VERIFY, row, image, number);
	}
}

static void check_row(const struct row *row, size_t number)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;
	char path[FORGE_PATH_BYTES];
	char base_path[FORGE_PATH_BYTES];
	const char *paths[] = {base_path};
	build(row);
	struct forged delta = {.bytes = bytes, .stored = size, .length = size};
	int fd = forge_file(&delta);
	int base_fd = forge_file(&base);
	forge_path(fd, path);
	forge_path(base_fd, base_path);
	options.paths = paths;
	options.path_count = 1;
	int error = uffdwp_image_open(path, &options, &image);
	expect(error, SEEN_OPEN, row, NULL, number);
	if (error == 0) {
		try_image(image, row, number);
		(void)uffdwp_image_close(image);
	}
	close(fd);
	close(base_fd);
}

START_TEST(test_what_the_format_forbids_is_refused)
{
	struct forge_input input = {(const uint8_t *)"\x0a\x01", 2};
	forge_raw(&input, &base);
	check_row(&rows[_i], (size_t)_i);
}
END_TEST

/* Bytes that cannot be looked into: in a library that was built without zstd a packed page is any bytes. */
static size_t pack_any(uint8_t *to, const uint8_t *page)
{
	memcpy(to, page, 100);
	return 100;
}

static void packed_by_others(void)
{
	make(pack_any);
}

START_TEST(test_packed_page_without_zstd_is_refused)
{
	static const struct row row = {packed_by_others, "built without zstd", SEEN_OPEN, 0, -EOPNOTSUPP};
	struct forge_input input = {(const uint8_t *)"\x0a\x01", 2};
	forge_raw(&input, &base);
	check_row(&row, 0);
}
END_TEST

int main(void)
{
	support_begin("test_format", &(struct support_needs){0, 0});
	Suite *suite = suite_create("format");
	TCase *tests = tcase_create("format");
	if (pack_built()) {
		tcase_add_loop_test(tests, test_what_the_format_forbids_is_refused, 0, (int)ROWS);
	} else {
		support_note("test_what_the_format_forbids_is_refused", "the library was built without zstd");
		tcase_add_test(tests, test_packed_page_without_zstd_is_refused);
	}
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
