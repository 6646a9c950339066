/* SPDX-License-Identifier: MIT */
/* See format.h. */
#include "image/format.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "image/hash.h"
#include "image/zeros.h"

static const unsigned char magic[8] = {0x89, 'U', 'F', 'F', 'D', 'W', 'P', '\n'};
static const unsigned char trailer_magic[8] = {0x89, 'U', 'F', 'F', 'E', 'N', 'D', '\n'};

/* Places in the header. */
enum {
	AT_VERSION = 8,
	AT_FLAGS = 12,
	AT_PAGE = 16,
	AT_LENGTH = 24,
	AT_PARENT_LENGTH = 32,
	AT_ID = DELTA_HEADER_ID,
	AT_PARENT = 56,
	AT_INDEX = 72,
	AT_COUNT = 80,
	AT_FILE = 88,
	AT_COMPRESS = 96,
	AT_REGION_PAGE = 104,
	AT_NAME = 112,
	AT_REST = AT_NAME + DELTA_NAME_BYTES,
	AT_HASH = DELTA_HEADER_COVERED,
};

static void put32(unsigned char *bytes, size_t at, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes + at, &value, sizeof(value));
}

static void put64(unsigned char *bytes, size_t at, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes + at, &value, sizeof(value));
}

static void put_id(unsigned char *bytes, size_t at, struct image_id id)
{
	put64(bytes, at, id.low);
	put64(bytes, at + 8, id.high);
}

static uint32_t get32(const unsigned char *bytes, size_t at)
{
	uint32_t value;

	memcpy(&value, bytes + at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const unsigned char *bytes, size_t at)
{
	uint64_t value;

	memcpy(&value, bytes + at, sizeof(value));
	return le64toh(value);
}

static struct image_id get_id(const unsigned char *bytes, size_t at)
{
	return (struct image_id){get64(bytes, at), get64(bytes, at + 8)};
}

int delta_is_magic(const unsigned char *bytes)
{
	return memcmp(bytes, magic, sizeof(magic)) == 0;
}

int delta_is_trailer(const unsigned char bytes[DELTA_TRAILER_BYTES])
{
	return memcmp(bytes, trailer_magic, sizeof(trailer_magic)) == 0 && get64(bytes, 56) == hash64(bytes, 56);
}

void delta_id_text(struct image_id id, char text[DELTA_ID_TEXT])
{
	snprintf(text, DELTA_ID_TEXT, "%016" PRIx64 "%016" PRIx64, id.high, id.low);
}

uint64_t delta_zeros_hash(uint64_t page_bytes)
{
	static const unsigned char zeros[DELTA_PAGE_BYTES_MOST];

	return hash64(zeros, (size_t)page_bytes);
}

/* ---- encoding ---- */

void delta_encode_header(const struct delta_header *header, unsigned char bytes[DELTA_HEADER_BYTES])
{
	memset(bytes, 0, DELTA_HEADER_BYTES);
	memcpy(bytes, magic, sizeof(magic));
	put32(bytes, AT_VERSION, DELTA_VERSION);
	put32(bytes, AT_FLAGS, header->flags);
	put64(bytes, AT_PAGE, header->page_bytes);
	put64(bytes, AT_LENGTH, header->length_bytes);
	put64(bytes, AT_PARENT_LENGTH, header->parent_length_bytes);
	put_id(bytes, AT_ID, header->id);
	put_id(bytes, AT_PARENT, header->parent);
	put64(bytes, AT_INDEX, header->index_offset);
	put64(bytes, AT_COUNT, header->index_count);
	put64(bytes, AT_FILE, header->file_bytes);
	put32(bytes, AT_COMPRESS, header->compress);
	put64(bytes, AT_REGION_PAGE, header->region_page_bytes);
	memcpy(bytes + AT_NAME, header->parent_name, strnlen(header->parent_name, DELTA_NAME_BYTES - 1));
	put64(bytes, AT_HASH, hash64(bytes, AT_HASH));
}

void delta_encode_entry(const struct delta_entry *entry, unsigned char bytes[DELTA_ENTRY_BYTES])
{
	put64(bytes, 0, entry->page);
	put64(bytes, 8, entry->offset);
	put32(bytes, 16, entry->length);
	put32(bytes, 20, entry->kind);
	put64(bytes, 24, entry->hash);
}

struct delta_entry delta_decode_entry(const unsigned char bytes[DELTA_ENTRY_BYTES])
{
	return (struct delta_entry){.page = get64(bytes, 0),
	                            .offset = get64(bytes, 8),
	                            .length = get32(bytes, 16),
	                            .kind = get32(bytes, 20),
	                            .hash = get64(bytes, 24)};
}

void delta_encode_trailer(const struct delta_trailer *trailer, unsigned char bytes[DELTA_TRAILER_BYTES])
{
	memcpy(bytes, trailer_magic, sizeof(trailer_magic));
	put64(bytes, 8, trailer->header_hash);
	put_id(bytes, 16, trailer->index_hash);
	put_id(bytes, 32, trailer->data_hash);
	put64(bytes, 48, trailer->file_bytes);
	put64(bytes, 56, hash64(bytes, 56));
}

/* ---- checks ---- */

static int refuse(struct text *text, const char *path, uint64_t at, const char *field, const char *wrong)
{
	return text_fail(text, -EBADMSG, "\"%s\" is damaged at byte %" PRIu64 " (%s): %s", path, at, field, wrong);
}

static int refuse_number(struct text *text, const char *path, uint64_t at, const char *field, uint64_t value)
{
	return text_fail(text, -EBADMSG, "\"%s\" is damaged at byte %" PRIu64 " (%s): it cannot be %" PRIu64, path, at,
	                 field, value);
}

/* A file's name that leads nowhere else: not empty, in this folder, and nothing behind its end. */
static int is_name(const unsigned char bytes[DELTA_NAME_BYTES])
{
	size_t length = strnlen((const char *)bytes, DELTA_NAME_BYTES);

	if (length == 0 || length == DELTA_NAME_BYTES || memchr(bytes, '/', length))
		return 0;
	if (strcmp((const char *)bytes, ".") == 0 || strcmp((const char *)bytes, "..") == 0)
		return 0;
	return zeros_only(bytes + length, DELTA_NAME_BYTES - length);
}

static int is_page_size(uint64_t value)
{
	return is_power_of_two(value) && value >= DELTA_PAGE_BYTES_LEAST && value <= DELTA_PAGE_BYTES_MOST;
}

static int is_region_page_size(const struct delta_header *header)
{
	return is_power_of_two(header->region_page_bytes) && header->region_page_bytes >= header->page_bytes &&
	       header->region_page_bytes <= 1ull << 40;
}

/* Magic, version and checksum: only then the fields mean something. */
static int check_outside(const unsigned char *bytes, const char *path, struct text *text)
{
	if (!delta_is_magic(bytes))
		return refuse(text, path, 0, "magic", "this is no delta");
	if (get64(bytes, AT_HASH) != hash64(bytes, AT_HASH)) {
		if (get32(bytes, AT_VERSION) != DELTA_VERSION)
			return refuse_number(text, path, AT_VERSION, "version", get32(bytes, AT_VERSION));
		return refuse(text, path, AT_HASH, "the header's checksum", "it is not that of the header");
	}
	if (get32(bytes, AT_VERSION) != DELTA_VERSION)
		return text_fail(
		        text, -ENOTSUP,
		        "\"%s\" is of version %u of the format, and this library knows version %d: use a newer "
		        "one",
		        path, (unsigned)get32(bytes, AT_VERSION), DELTA_VERSION);
	return 0;
}

/* The first field that cannot be so, by its place; 0: all can. */
static unsigned wrong_field(const struct delta_header *header, const unsigned char *bytes)
{
	if (header->flags & ~DELTA_PARENT_IS_RAW)
		return AT_FLAGS;
	if (!is_page_size(header->page_bytes))
		return AT_PAGE;
	if (header->length_bytes > DELTA_LENGTH_MOST)
		return AT_LENGTH;
	if (header->parent_length_bytes > DELTA_LENGTH_MOST)
		return AT_PARENT_LENGTH;
	if (image_id_is_none(header->parent))
		return AT_PARENT;
	if (header->index_offset < DELTA_HEADER_BYTES || !is_aligned(header->index_offset, DELTA_HEADER_BYTES) ||
	    header->index_offset > DELTA_LENGTH_MOST)
		return AT_INDEX;
	if (header->index_count > delta_pages(header->length_bytes, header->page_bytes))
		return AT_COUNT;
	if (header->file_bytes != header->index_offset + header->index_count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES)
		return AT_FILE;
	if (header->compress > 22 || get32(bytes, AT_COMPRESS + 4))
		return AT_COMPRESS;
	if (!is_region_page_size(header))
		return AT_REGION_PAGE;
	if (!is_name(bytes + AT_NAME))
		return AT_NAME;
	return zeros_only(bytes + AT_REST, AT_HASH - AT_REST) ? 0 : AT_REST;
}

static const char *field_name(unsigned at)
{
	switch (at) {
	case AT_FLAGS:
		return "flags";
	case AT_PAGE:
		return "page size";
	case AT_LENGTH:
		return "length of the region";
	case AT_PARENT_LENGTH:
		return "length of the parent";
	case AT_PARENT:
		return "id of the parent";
	case AT_INDEX:
		return "place of the index";
	case AT_COUNT:
		return "entries of the index";
	case AT_FILE:
		return "length of the file";
	case AT_COMPRESS:
		return "compression";
	case AT_REGION_PAGE:
		return "page size of the region";
	case AT_NAME:
		return "name of the parent";
	default:
		return "unused";
	}
}

int delta_decode_header(const unsigned char bytes[DELTA_HEADER_BYTES], uint64_t file_bytes, const char *path,
                        struct delta_header *header, struct text *text)
{
	int error = check_outside(bytes, path, text);

	if (error)
		return error;
	*header = (struct delta_header){
	        .flags = get32(bytes, AT_FLAGS),
	        .compress = get32(bytes, AT_COMPRESS),
	        .page_bytes = get64(bytes, AT_PAGE),
	        .region_page_bytes = get64(bytes, AT_REGION_PAGE),
	        .length_bytes = get64(bytes, AT_LENGTH),
	        .parent_length_bytes = get64(bytes, AT_PARENT_LENGTH),
	        .id = get_id(bytes, AT_ID),
	        .parent = get_id(bytes, AT_PARENT),
	        .index_offset = get64(bytes, AT_INDEX),
	        .index_count = get64(bytes, AT_COUNT),
	        .file_bytes = get64(bytes, AT_FILE),
	};
	memcpy(header->parent_name, bytes + AT_NAME, DELTA_NAME_BYTES);
	unsigned wrong = wrong_field(header, bytes);

	if (wrong)
		return refuse(text, path, wrong, field_name(wrong), "its value is out of range");
	if (header->file_bytes != file_bytes)
		return text_fail(text, -EBADMSG,
		                 "\"%s\" is damaged at byte %" PRIu64 ": the file has %" PRIu64
		                 " bytes, and its header says %" PRIu64,
		                 path, file_bytes < header->file_bytes ? file_bytes : header->file_bytes, file_bytes,
		                 header->file_bytes);
	return 0;
}

int delta_decode_trailer(const unsigned char bytes[DELTA_TRAILER_BYTES], uint64_t file_bytes, const char *path,
                         struct delta_trailer *trailer, struct text *text)
{
	uint64_t at = file_bytes - DELTA_TRAILER_BYTES;

	if (memcmp(bytes, trailer_magic, sizeof(trailer_magic)) != 0)
		return refuse(text, path, at, "the trailer's magic", "this is no trailer");
	if (get64(bytes, 56) != hash64(bytes, 56))
		return refuse(text, path, at + 56, "the trailer's checksum", "it is not that of the trailer");
	*trailer = (struct delta_trailer){.header_hash = get64(bytes, 8),
	                                  .index_hash = get_id(bytes, 16),
	                                  .data_hash = get_id(bytes, 32),
	                                  .file_bytes = get64(bytes, 48)};
	if (trailer->file_bytes != file_bytes)
		return refuse_number(text, path, at + 48, "the trailer's length of the file", trailer->file_bytes);
	return 0;
}

/* Where an entry's bytes are is possible for its kind. */
static int has_place(const struct delta_entry *entry, const struct delta_header *header)
{
	if (entry->kind == DELTA_ZEROS)
		return entry->offset == 0 && entry->length == 0;
	if (entry->kind == DELTA_RAW ? entry->length != header->page_bytes
	                             : entry->length == 0 || entry->length >= header->page_bytes)
		return 0;
	return entry->offset >= DELTA_HEADER_BYTES && entry->offset <= header->index_offset &&
	       entry->length <= header->index_offset - entry->offset;
}

/* NULL: the entry can be so; else which of its fields cannot, and where that is. */
static const char *wrong_in_entry(const struct delta_entry *entry, const struct delta_header *header, uint64_t least,
                                  uint64_t zeros, unsigned *at)
{
	*at = 0;
	if (entry->page < least || entry->page >= delta_pages(header->length_bytes, header->page_bytes))
		return "page number";
	*at = 20;
	if (entry->kind >= DELTA_KINDS)
		return "kind";
	*at = 8;
	if (!has_place(entry, header))
		return "place of the page";
	*at = 24;
	return entry->kind == DELTA_ZEROS && entry->hash != zeros ? "checksum of zeros" : NULL;
}

static int check_entries(const struct delta_header *header, const unsigned char *index, const char *path,
                         struct text *text)
{
	uint64_t zeros = delta_zeros_hash(header->page_bytes);
	uint64_t least = 0;
	unsigned at;

	for (uint64_t i = 0; i < header->index_count; i++) {
		struct delta_entry entry = delta_decode_entry(index + i * DELTA_ENTRY_BYTES);
		const char *wrong = wrong_in_entry(&entry, header, least, zeros, &at);

		if (wrong)
			return text_fail(text, -EBADMSG,
			                 "\"%s\" is damaged at byte %" PRIu64 " (index entry %" PRIu64
			                 ", %s): its value is out of range",
			                 path, header->index_offset + i * DELTA_ENTRY_BYTES + at, i, wrong);
		least = entry.page + 1;
	}
	return 0;
}

static struct image_id id_of(const unsigned char *header_bytes, const unsigned char *index, size_t index_bytes)
{
	static const unsigned char none[16];
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, header_bytes, AT_ID);
	XXH3_128bits_update(&state, none, sizeof(none));
	XXH3_128bits_update(&state, header_bytes + AT_ID + 16, AT_HASH - AT_ID - 16);
	XXH3_128bits_update(&state, index, index_bytes);
	return hash_id(XXH3_128bits_digest(&state));
}

int delta_check_index(const struct delta_header *header, const struct delta_trailer *trailer,
                      const unsigned char *header_bytes, const unsigned char *index, const char *path,
                      struct text *text)
{
	size_t index_bytes = (size_t)header->index_count * DELTA_ENTRY_BYTES;

	if (trailer->header_hash != get64(header_bytes, AT_HASH))
		return refuse(text, path, header->file_bytes - DELTA_TRAILER_BYTES + 8,
		              "the trailer's checksum of the header", "header and trailer are of different files");
	if (!image_id_equal(trailer->index_hash, hash128(index, index_bytes)))
		return refuse(text, path, header->index_offset, "index", "its checksum is wrong");
	if (!image_id_equal(header->id, id_of(header_bytes, index, index_bytes)))
		return refuse(text, path, AT_ID, "id", "it is not that of header and index");
	return check_entries(header, index, path, text);
}
