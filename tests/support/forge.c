/* SPDX-License-Identifier: MIT */
/* See forge.h. */
#include "forge.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/math.h"
#include "image/hash.h"
#include "squeeze.h"

/* Places in the header, the trailer and an entry, as FORMAT.md has them. */
enum {
	AT_PAGE = 16,
	AT_LENGTH = 24,
	AT_PARENT_LENGTH = 32,
	AT_ID = 40,
	AT_PARENT = 56,
	AT_INDEX = 72,
	AT_COUNT = 80,
	AT_FILE = 88,
};

#define RAW_BYTES_MOST (256u << 10)
#define ENTRIES_MOST 24
#define PATCHES_MOST 8

void forge_must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "it does not hold: %s\n", what);
	abort();
}

/* ---- the input ---- */

uint64_t forge_take(struct forge_input *input, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes && input->left > 0; i++, input->at++, input->left--)
		value |= (uint64_t)*input->at << (8 * i);
	return value;
}

uint8_t forge_take8(struct forge_input *input)
{
	return (uint8_t)forge_take(input, 1);
}

uint64_t forge_take_number(struct forge_input *input)
{
	static const uint64_t numbers[] = {
	        0,          1,          31,         32,         63,         64,
	        4095,       4096,       4097,       65535,      65536,      1ull << 20,
	        1ull << 31, 1ull << 32, 1ull << 40, 1ull << 47, 1ull << 56, (1ull << 56) + 1,
	        1ull << 58, 1ull << 59, 1ull << 63, INT64_MAX,  UINT64_MAX, UINT64_MAX - 4095};
	uint8_t choice = forge_take8(input);

	if (choice < 2 * sizeof(numbers) / sizeof(numbers[0]))
		return numbers[choice / 2] - (choice & 1);
	return choice < 128 ? forge_take(input, 2) : forge_take(input, 8);
}

/* ---- bytes ---- */

static uint64_t get64(const uint8_t *bytes, size_t at)
{
	uint64_t value;

	memcpy(&value, bytes + at, sizeof(value));
	return le64toh(value);
}

static void put64(uint8_t *bytes, size_t at, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes + at, &value, sizeof(value));
}

static void put_id(uint8_t *bytes, size_t at, struct image_id id)
{
	put64(bytes, at, id.low);
	put64(bytes, at + 8, id.high);
}

/* Pages of four kinds by one byte: zeros, one value, a few, noise. */
static void fill_page(uint8_t *page, size_t length, uint8_t pattern)
{
	uint64_t state = pattern * 0x9e3779b97f4a7c15ull + 1;

	memset(page, pattern & 3 ? pattern : 0, length);
	if ((pattern & 3) == 2) {
		page[pattern] = 1;
		page[length - 1] = pattern;
	}
	for (size_t i = 0; (pattern & 3) == 3 && i < length; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		page[i] = (uint8_t)(state >> 56);
	}
}

/* ---- sums ---- */

static void repair_entry(const uint8_t *bytes, uint64_t index_offset, uint64_t page_bytes, uint8_t *raw)
{
	static uint8_t page[DELTA_PAGE_BYTES_MOST];
	struct delta_entry entry = delta_decode_entry(raw);

	if (entry.kind == DELTA_ZEROS) {
		put64(raw, 24, delta_zeros_hash(page_bytes));
		return;
	}
	if (entry.offset < DELTA_HEADER_BYTES || entry.offset > index_offset ||
	    entry.length > index_offset - entry.offset)
		return;
	if (entry.kind == DELTA_RAW && entry.length == page_bytes)
		put64(raw, 24, hash_64(bytes + entry.offset, entry.length));
	if (entry.kind != DELTA_ZSTD)
		return;
	if (unsqueeze(page, (size_t)page_bytes, bytes + entry.offset, entry.length))
		put64(raw, 24, hash_64(page, (size_t)page_bytes));
}

static int is_page_size(uint64_t page_bytes)
{
	return math_is_power_of_two(page_bytes) && page_bytes >= DELTA_PAGE_BYTES_LEAST &&
	       page_bytes <= DELTA_PAGE_BYTES_MOST;
}

/* The sums that rest on the index. */
static void repair_index(uint8_t *bytes, size_t size)
{
	uint64_t page_bytes = get64(bytes, AT_PAGE);
	uint64_t index = get64(bytes, AT_INDEX);
	uint64_t room = size - DELTA_TRAILER_BYTES;
	XXH3_state_t state;

	if (index < DELTA_HEADER_BYTES || index > room)
		return;
	uint64_t count = math_min_u64(get64(bytes, AT_COUNT), (room - index) / DELTA_ENTRY_BYTES);

	for (uint64_t i = 0; i < count && is_page_size(page_bytes); i++)
		repair_entry(bytes, index, page_bytes, bytes + index + i * DELTA_ENTRY_BYTES);
	put_id(bytes, size - DELTA_TRAILER_BYTES + 16, hash_128(bytes + index, count * DELTA_ENTRY_BYTES));
	put_id(bytes, size - DELTA_TRAILER_BYTES + 32,
	       hash_128(bytes + DELTA_HEADER_BYTES, index - DELTA_HEADER_BYTES));
	put_id(bytes, AT_ID, (struct image_id){0, 0});
	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, bytes, DELTA_HEADER_COVERED);
	XXH3_128bits_update(&state, bytes + index, count * DELTA_ENTRY_BYTES);
	put_id(bytes, AT_ID, hash_id(XXH3_128bits_digest(&state)));
}

void forge_repair(uint8_t *bytes, size_t size)
{
	if (size < DELTA_HEADER_BYTES + DELTA_TRAILER_BYTES)
		return;
	uint8_t *trailer = bytes + size - DELTA_TRAILER_BYTES;

	repair_index(bytes, size);
	put64(bytes, DELTA_HEADER_COVERED, hash_64(bytes, DELTA_HEADER_COVERED));
	put64(trailer, 8, get64(bytes, DELTA_HEADER_COVERED));
	put64(trailer, 56, hash_64(trailer, 56));
}

void forge_fit(uint8_t *bytes, size_t size, const struct forged *parent)
{
	if (size < DELTA_HEADER_BYTES + DELTA_TRAILER_BYTES)
		return;
	uint64_t room = size - DELTA_HEADER_BYTES - DELTA_TRAILER_BYTES;
	uint64_t count = math_min_u64(get64(bytes, AT_COUNT), room / DELTA_ENTRY_BYTES);
	uint64_t index = size - DELTA_TRAILER_BYTES - count * DELTA_ENTRY_BYTES;

	if (index % DELTA_HEADER_BYTES == 0)
		put64(bytes, AT_INDEX, index);
	put64(bytes, AT_COUNT, count);
	put64(bytes, AT_FILE, size);
	put64(bytes, size - DELTA_TRAILER_BYTES + 48, size);
	put_id(bytes, AT_PARENT, parent->id);
	put64(bytes, AT_PARENT_LENGTH, parent->content_bytes);
}

/* ---- a raw image ---- */

static struct image_id raw_id(const uint8_t *bytes, size_t length)
{
	struct image_id block = hash_128(bytes, length);
	uint64_t halves[2] = {htole64(block.low), htole64(block.high)};

	return length ? hash_128(halves, sizeof(halves)) : hash_128("", 0);
}

void forge_raw(struct forge_input *input, struct forged *out)
{
	unsigned pages = forge_take8(input) % (RAW_BYTES_MOST / 4096);
	size_t length = (size_t)pages * 4096 + (forge_take8(input) & 1 ? 0 : 4096 - forge_take(input, 1) * 16 % 4096);

	for (size_t at = 0; at < length; at += 4096)
		fill_page(out->bytes + at, 4096, (uint8_t)(at / 4096 * 37 + pages));
	out->stored = length;
	out->length = length;
	out->content_bytes = length;
	out->page_bytes = 4096;
	out->is_raw = 1;
	out->id = raw_id(out->bytes, length);
}

/* ---- a delta ---- */

struct builder {
	struct forge_input *input;
	struct forged *out;
	struct delta_header header;
	struct delta_entry entries[ENTRIES_MOST];
	size_t at; /* where the next page is stored */
};

static void add_stored(struct builder *builder, struct delta_entry *entry, uint8_t pattern)
{
	static uint8_t page[DELTA_PAGE_BYTES_MOST];
	size_t page_bytes = (size_t)builder->header.page_bytes;

	fill_page(page, page_bytes, pattern);
	entry->hash = hash_64(page, page_bytes);
	entry->offset = builder->at;
	entry->length = (uint32_t)page_bytes;
	if (entry->kind == DELTA_ZSTD) {
		size_t got = squeeze(builder->out->bytes + builder->at, page_bytes, page, page_bytes);

		entry->kind = got ? DELTA_ZSTD : DELTA_RAW;
		if (got)
			entry->length = (uint32_t)got;
	}
	if (entry->kind == DELTA_RAW)
		memcpy(builder->out->bytes + builder->at, page, page_bytes);
	builder->at += entry->length;
}

static void add_pages(struct builder *builder)
{
	unsigned wanted = forge_take8(builder->input) % ENTRIES_MOST;
	uint64_t pages = format_delta_pages(builder->header.length_bytes, builder->header.page_bytes);
	size_t room = FORGE_BYTES_MOST - (ENTRIES_MOST + 4) * DELTA_HEADER_BYTES;
	uint64_t page = 0;
	uint64_t count = 0;

	while (count < wanted) {
		struct delta_entry *entry = &builder->entries[count];

		page += forge_take8(builder->input) % 8;
		if (page >= pages || builder->at + builder->header.page_bytes > room)
			break;
		*entry = (struct delta_entry){.page = page, .kind = forge_take8(builder->input) % DELTA_KINDS};
		page++;
		if (entry->kind == DELTA_ZEROS)
			entry->hash = delta_zeros_hash(builder->header.page_bytes);
		else
			add_stored(builder, entry, forge_take8(builder->input));
		count++;
	}
	builder->header.index_count = count;
}

/* The end of the data, the index, the header, the trailer. */
static void close_file(struct builder *builder)
{
	struct forged *out = builder->out;
	struct delta_header *header = &builder->header;
	size_t index = (size_t)math_round_up(builder->at, DELTA_HEADER_BYTES);
	struct delta_trailer trailer = {0};

	memset(out->bytes + builder->at, 0, index - builder->at);
	header->index_offset = index;
	for (uint64_t i = 0; i < header->index_count; i++)
		delta_encode_entry(&builder->entries[i], out->bytes + index + i * DELTA_ENTRY_BYTES);
	out->stored = index + header->index_count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	out->length = out->stored;
	header->file_bytes = out->length;
	trailer.file_bytes = out->length;
	delta_encode_header(header, out->bytes);
	delta_encode_trailer(&trailer, out->bytes + out->stored - DELTA_TRAILER_BYTES);
}

/* Where a patch goes: a field of the header, of an entry, of the trailer, any byte, or the length of the file. */
static uint8_t *patch_place(const struct builder *builder, uint8_t where)
{
	static const uint16_t fields[] = {8, 12, 16, 24, 32, 40, 56, 72, 80, 88, 96, 100, 104, 112, 116, 368};
	struct forged *out = builder->out;
	uint8_t choice = forge_take8(builder->input);
	size_t index = (size_t)builder->header.index_offset;

	switch (where % 4) {
	case 0:
		return out->bytes + fields[choice % (sizeof(fields) / sizeof(fields[0]))];
	case 1:
		return out->bytes + index +
		       (size_t)(choice / 5) % (builder->header.index_count + 1) * DELTA_ENTRY_BYTES +
		       (size_t)(choice % 5 < 2    ? choice % 5 * 8
		                : choice % 5 == 2 ? 16
		                : choice % 5 == 3 ? 20
		                                  : 24);
	case 2:
		return out->bytes + out->stored - DELTA_TRAILER_BYTES + choice % 8 * 8;
	default:
		return out->bytes + (forge_take(builder->input, 2) | (uint64_t)choice << 16) % (out->stored - 8);
	}
}

static void patch(struct builder *builder, unsigned count)
{
	static const size_t sizes[] = {8, 4, 1, 8};

	for (unsigned i = 0; i < count; i++) {
		uint8_t where = forge_take8(builder->input);
		uint8_t *place = patch_place(builder, where);
		uint64_t number = forge_take_number(builder->input);
		uint64_t value = htole64(where & 16 ? get64(place, 0) + number : number);
		size_t size = sizes[where >> 6];
		size_t room = (size_t)(builder->out->bytes + builder->out->stored - place);

		memcpy(place, &value, size < room ? size : room);
	}
}

/* The index moves to the end of a file with a great hole, as a forged header may say. */
static void stretch(struct builder *builder)
{
	struct forged *out = builder->out;

	out->length = out->stored + forge_take_number(builder->input) % (1ull << 40);
}

void forge_delta(struct forge_input *input, const struct forged *parent, struct forged *out)
{
	struct builder builder = {.input = input, .out = out, .at = DELTA_HEADER_BYTES};
	uint8_t shape = forge_take8(input);
	uint64_t page_bytes =
	        parent->is_raw || !is_page_size(parent->page_bytes) ? 4096ull << (shape & 7) % 5 : parent->page_bytes;
	uint8_t patches = forge_take8(input);

	builder.header = (struct delta_header){.flags = parent->is_raw ? DELTA_PARENT_IS_RAW : 0,
	                                       .page_bytes = page_bytes,
	                                       .region_page_bytes = page_bytes << (shape >> 3 & 1),
	                                       .compress = shape >> 4 & 3,
	                                       .parent = parent->id,
	                                       .parent_length_bytes = parent->content_bytes,
	                                       .parent_name = "parent"};
	builder.header.length_bytes = shape & 128 ? forge_take_number(input)
	                                          : forge_take(input, 1) % 64 * page_bytes + forge_take(input, 1) * 16;
	add_pages(&builder);
	close_file(&builder);
	patch(&builder, patches % PATCHES_MOST);
	forge_repair(out->bytes, out->stored);
	if (patches & 128)
		patch(&builder, 1);
	if (patches & 64)
		stretch(&builder);
	out->page_bytes = get64(out->bytes, AT_PAGE);
	out->content_bytes = get64(out->bytes, AT_LENGTH);
	out->id = (struct image_id){get64(out->bytes, AT_ID), get64(out->bytes, AT_ID + 8)};
	out->is_raw = 0;
}

/* ---- files ---- */

int forge_file(const struct forged *forged)
{
	int fd = memfd_create("forged", MFD_CLOEXEC);

	forge_must(fd >= 0, "a file in memory is made");
	for (size_t at = 0; at < forged->stored;) {
		ssize_t wrote = write(fd, forged->bytes + at, forged->stored - at);

		forge_must(wrote > 0, "a file in memory is written");
		at += (size_t)wrote;
	}
	forge_must(ftruncate(fd, (off_t)forged->length) == 0, "a file in memory gets its length");
	return fd;
}

void forge_path(int fd, char path[FORGE_PATH_BYTES])
{
	snprintf(path, FORGE_PATH_BYTES, "/proc/self/fd/%d", fd);
}

const char *forge_scratch(void)
{
	const char *folder = getenv("UFFDWP_FUZZ_SCRATCH");
	if (folder != NULL) {
		return folder;
	}
	return access("/dev/shm", W_OK) != 0 ? "/tmp" : "/dev/shm";
}
