/* SPDX-License-Identifier: MIT */
/* See format.h. */
#include "image/format.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/math.h"
#include "image/hash.h"
#include "image/zeros.h"

static const unsigned char magic[8] = {0x89, 'U', 'F', 'F', 'D', 'W', 'P', '\n'};
static const unsigned char trailer_magic[8] = {0x89, 'U', 'F', 'F', 'E', 'N', 'D', '\n'};

/* Places in the header. */
enum {
	PLACE_VERSION = 8,
	PLACE_FLAGS = 12,
	PLACE_PAGE = 16,
	PLACE_LENGTH = 24,
	PLACE_PARENT_LENGTH = 32,
	PLACE_ID = DELTA_HEADER_ID,
	PLACE_PARENT = 56,
	PLACE_INDEX = 72,
	PLACE_COUNT = 80,
	PLACE_FILE = 88,
	PLACE_COMPRESS = 96,
	PLACE_REGION_PAGE = 104,
	PLACE_NAME = 112,
	PLACE_REST = PLACE_NAME + DELTA_NAME_BYTES,
	PLACE_HASH = DELTA_HEADER_COVERED,
};

static void format_put32(unsigned char *bytes, size_t at, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes + at, &value, sizeof(value));
}

static void format_put64(unsigned char *bytes, size_t at, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes + at, &value, sizeof(value));
}

static void format_put_id(unsigned char *bytes, size_t at, struct image_id id)
{
	format_put64(bytes, at, id.low);
	format_put64(bytes, at + 8, id.high);
}

static uint32_t format_get32(const unsigned char *bytes, size_t at)
{
	uint32_t value;

	memcpy(&value, bytes + at, sizeof(value));
	return le32toh(value);
}

static uint64_t format_get64(const unsigned char *bytes, size_t at)
{
	uint64_t value;

	memcpy(&value, bytes + at, sizeof(value));
	return le64toh(value);
}

static struct image_id format_get_id(const unsigned char *bytes, size_t at)
{
	return (struct image_id){format_get64(bytes, at), format_get64(bytes, at + 8)};
}

int delta_is_magic(const unsigned char *bytes)
{
	return memcmp(bytes, magic, sizeof(magic)) == 0;
}

int delta_is_trailer(const unsigned char bytes[DELTA_TRAILER_BYTES])
{
	return memcmp(bytes, trailer_magic, sizeof(trailer_magic)) == 0 &&
	       format_get64(bytes, 56) == hash_64(bytes, 56);
}

void delta_id_text(struct image_id id, char text[DELTA_ID_TEXT])
{
	snprintf(text, DELTA_ID_TEXT, "%016" PRIx64 "%016" PRIx64, id.high, id.low);
}

uint64_t delta_zeros_hash(uint64_t page_bytes)
{
	static const unsigned char zeros[DELTA_PAGE_BYTES_MOST];

	return hash_64(zeros, (size_t)page_bytes);
}

/* ---- encoding ---- */

void delta_encode_header(const struct delta_header *header, unsigned char bytes[DELTA_HEADER_BYTES])
{
	memset(bytes, 0, DELTA_HEADER_BYTES);
	memcpy(bytes, magic, sizeof(magic));
	format_put32(bytes, PLACE_VERSION, DELTA_VERSION);
	format_put32(bytes, PLACE_FLAGS, header->flags);
	format_put64(bytes, PLACE_PAGE, header->page_bytes);
	format_put64(bytes, PLACE_LENGTH, header->length_bytes);
	format_put64(bytes, PLACE_PARENT_LENGTH, header->parent_length_bytes);
	format_put_id(bytes, PLACE_ID, header->id);
	format_put_id(bytes, PLACE_PARENT, header->parent);
	format_put64(bytes, PLACE_INDEX, header->index_offset);
	format_put64(bytes, PLACE_COUNT, header->index_count);
	format_put64(bytes, PLACE_FILE, header->file_bytes);
	format_put32(bytes, PLACE_COMPRESS, header->compress);
	format_put64(bytes, PLACE_REGION_PAGE, header->region_page_bytes);
	memcpy(bytes + PLACE_NAME, header->parent_name, strnlen(header->parent_name, DELTA_NAME_BYTES - 1));
	format_put64(bytes, PLACE_HASH, hash_64(bytes, PLACE_HASH));
}

void delta_encode_entry(const struct delta_entry *entry, unsigned char bytes[DELTA_ENTRY_BYTES])
{
	format_put64(bytes, 0, entry->page);
	format_put64(bytes, 8, entry->offset);
	format_put32(bytes, 16, entry->length);
	format_put32(bytes, 20, entry->kind);
	format_put64(bytes, 24, entry->hash);
}

struct delta_entry delta_decode_entry(const unsigned char bytes[DELTA_ENTRY_BYTES])
{
	return (struct delta_entry){.page = format_get64(bytes, 0),
	                            .offset = format_get64(bytes, 8),
	                            .length = format_get32(bytes, 16),
	                            .kind = format_get32(bytes, 20),
	                            .hash = format_get64(bytes, 24)};
}

void delta_encode_trailer(const struct delta_trailer *trailer, unsigned char bytes[DELTA_TRAILER_BYTES])
{
	memcpy(bytes, trailer_magic, sizeof(trailer_magic));
	format_put64(bytes, 8, trailer->header_hash);
	format_put_id(bytes, 16, trailer->index_hash);
	format_put_id(bytes, 32, trailer->data_hash);
	format_put64(bytes, 48, trailer->file_bytes);
	format_put64(bytes, 56, hash_64(bytes, 56));
}

/* ---- checks ---- */

static int format_refuse(struct text *text, const char *path, uint64_t at, const char *field, const char *wrong)
{
	return text_fail(text, -EBADMSG, "\"%s\" is damaged at byte %" PRIu64 " (%s): %s", path, at, field, wrong);
}

static int format_refuse_number(struct text *text, const char *path, uint64_t at, const char *field, uint64_t value)
{
	return text_fail(text, -EBADMSG, "\"%s\" is damaged at byte %" PRIu64 " (%s): it cannot be %" PRIu64, path, at,
	                 field, value);
}

/* A file's name that leads nowhere else: not empty, in this folder, and nothing after its end. */
static int format_is_name(const unsigned char bytes[DELTA_NAME_BYTES])
{
	size_t length = strnlen((const char *)bytes, DELTA_NAME_BYTES);

	if (length == 0 || length == DELTA_NAME_BYTES || memchr(bytes, '/', length))
		return 0;
	if (strcmp((const char *)bytes, ".") == 0 || strcmp((const char *)bytes, "..") == 0)
		return 0;
	return zeros_only(bytes + length, DELTA_NAME_BYTES - length);
}

static int format_is_page_size(uint64_t value)
{
	return math_is_power_of_two(value) && value >= DELTA_PAGE_BYTES_LEAST && value <= DELTA_PAGE_BYTES_MOST;
}

static int format_is_region_page_size(const struct delta_header *header)
{
	return math_is_power_of_two(header->region_page_bytes) && header->region_page_bytes >= header->page_bytes &&
	       header->region_page_bytes <= 1ull << 40;
}

/* Magic, version and checksum: only then the fields mean something. */
static int format_check_outside(const unsigned char *bytes, const char *path, struct text *text)
{
	if (!delta_is_magic(bytes))
		return format_refuse(text, path, 0, "magic", "this is no delta");
	if (format_get64(bytes, PLACE_HASH) != hash_64(bytes, PLACE_HASH)) {
		if (format_get32(bytes, PLACE_VERSION) != DELTA_VERSION)
			return format_refuse_number(text, path, PLACE_VERSION, "version",
			                            format_get32(bytes, PLACE_VERSION));
		return format_refuse(text, path, PLACE_HASH, "the header's checksum", "it is not that of the header");
	}
	if (format_get32(bytes, PLACE_VERSION) != DELTA_VERSION)
		return text_fail(
		        text, -EPROTONOSUPPORT,
		        "\"%s\" is of version %u of the format, and this library knows version %d: use a newer "
		        "one",
		        path, (unsigned)format_get32(bytes, PLACE_VERSION), DELTA_VERSION);
	return 0;
}

/* The first field that cannot be so, by its place; 0: all can. */
static unsigned format_wrong_field(const struct delta_header *header, const unsigned char *bytes)
{
	if (header->flags & ~DELTA_PARENT_IS_RAW)
		return PLACE_FLAGS;
	if (!format_is_page_size(header->page_bytes))
		return PLACE_PAGE;
	if (header->length_bytes > DELTA_LENGTH_MOST)
		return PLACE_LENGTH;
	if (header->parent_length_bytes > DELTA_LENGTH_MOST)
		return PLACE_PARENT_LENGTH;
	if (identity_is_none(header->parent))
		return PLACE_PARENT;
	if (header->index_offset < DELTA_HEADER_BYTES || !math_is_aligned(header->index_offset, DELTA_HEADER_BYTES) ||
	    header->index_offset > DELTA_LENGTH_MOST)
		return PLACE_INDEX;
	if (header->index_count > format_delta_pages(header->length_bytes, header->page_bytes))
		return PLACE_COUNT;
	if (header->file_bytes != header->index_offset + header->index_count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES)
		return PLACE_FILE;
	if (header->compress > 22 || format_get32(bytes, PLACE_COMPRESS + 4))
		return PLACE_COMPRESS;
	if (!format_is_region_page_size(header))
		return PLACE_REGION_PAGE;
	if (!format_is_name(bytes + PLACE_NAME))
		return PLACE_NAME;
	return zeros_only(bytes + PLACE_REST, PLACE_HASH - PLACE_REST) ? 0 : PLACE_REST;
}

static const char *format_field_name(unsigned at)
{
	switch (at) {
	case PLACE_FLAGS:
		return "flags";
	case PLACE_PAGE:
		return "page size";
	case PLACE_LENGTH:
		return "length of the region";
	case PLACE_PARENT_LENGTH:
		return "length of the parent";
	case PLACE_PARENT:
		return "id of the parent";
	case PLACE_INDEX:
		return "place of the index";
	case PLACE_COUNT:
		return "entries of the index";
	case PLACE_FILE:
		return "length of the file";
	case PLACE_COMPRESS:
		return "compression";
	case PLACE_REGION_PAGE:
		return "page size of the region";
	case PLACE_NAME:
		return "name of the parent";
	default:
		return "unused";
	}
}

int delta_decode_header(const unsigned char bytes[DELTA_HEADER_BYTES], uint64_t file_bytes, const char *path,
                        struct delta_header *header, struct text *text)
{
	int error = format_check_outside(bytes, path, text);

	if (error)
		return error;
	*header = (struct delta_header){
	        .flags = format_get32(bytes, PLACE_FLAGS),
	        .compress = format_get32(bytes, PLACE_COMPRESS),
	        .page_bytes = format_get64(bytes, PLACE_PAGE),
	        .region_page_bytes = format_get64(bytes, PLACE_REGION_PAGE),
	        .length_bytes = format_get64(bytes, PLACE_LENGTH),
	        .parent_length_bytes = format_get64(bytes, PLACE_PARENT_LENGTH),
	        .id = format_get_id(bytes, PLACE_ID),
	        .parent = format_get_id(bytes, PLACE_PARENT),
	        .index_offset = format_get64(bytes, PLACE_INDEX),
	        .index_count = format_get64(bytes, PLACE_COUNT),
	        .file_bytes = format_get64(bytes, PLACE_FILE),
	};
	memcpy(header->parent_name, bytes + PLACE_NAME, DELTA_NAME_BYTES);
	unsigned wrong = format_wrong_field(header, bytes);

	if (wrong)
		return format_refuse(text, path, wrong, format_field_name(wrong), "its value is out of range");
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
		return format_refuse(text, path, at, "the trailer's magic", "this is no trailer");
	if (format_get64(bytes, 56) != hash_64(bytes, 56))
		return format_refuse(text, path, at + 56, "the trailer's checksum", "it is not that of the trailer");
	*trailer = (struct delta_trailer){.header_hash = format_get64(bytes, 8),
	                                  .index_hash = format_get_id(bytes, 16),
	                                  .data_hash = format_get_id(bytes, 32),
	                                  .file_bytes = format_get64(bytes, 48)};
	if (trailer->file_bytes != file_bytes)
		return format_refuse_number(text, path, at + 48, "the trailer's length of the file",
		                            trailer->file_bytes);
	return 0;
}

/* Where an entry's bytes are is possible for its kind. */
static int format_has_place(const struct delta_entry *entry, const struct delta_header *header)
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
static const char *format_wrong_in_entry(const struct delta_entry *entry, const struct delta_header *header,
                                         uint64_t least, uint64_t zeros, unsigned *at)
{
	*at = 0;
	if (entry->page < least || entry->page >= format_delta_pages(header->length_bytes, header->page_bytes))
		return "page number";
	*at = 20;
	if (entry->kind >= DELTA_KINDS)
		return "kind";
	*at = 8;
	if (!format_has_place(entry, header))
		return "place of the page";
	*at = 24;
	return entry->kind == DELTA_ZEROS && entry->hash != zeros ? "checksum of zeros" : NULL;
}

/* A number of its own for each place, which no file can know beforehand. */
static uint64_t format_edge_hash(uint64_t place)
{
	uint64_t key = 0;
	const void *random = (const void *)(uintptr_t)getauxval(AT_RANDOM); /* 16 bytes */

	if (random)
		memcpy(&key, random, sizeof(key));
	return XXH3_64bits_withSeed(&place, sizeof(place), key);
}

/*
 * Pages lie in the data without gap and overlap, in any order, if and only if each place between 4096 and the end of
 * them is where as many begin as end, but for these two. (Think of pages as steps upwards: one step more leaves 4096
 * than comes there, so that above each place but the last exactly one step passes.) So sums of the places' hashes say
 * it, and no page has to be sorted.
 */
static void format_add_edges(struct delta_index_check *check, const struct delta_entry *entry)
{
	if (entry->kind == DELTA_ZEROS)
		return;
	check->stored_bytes += entry->length;
	check->edges += format_edge_hash(entry->offset) - format_edge_hash(entry->offset + entry->length);
}

uint64_t delta_data_end(const struct delta_index_check *check)
{
	return DELTA_HEADER_BYTES + check->stored_bytes;
}

int delta_check_entries(struct delta_index_check *check, const struct delta_header *header,
                        const unsigned char *entries, uint64_t count, const char *path, struct text *text)
{
	uint64_t zeros = delta_zeros_hash(header->page_bytes);
	unsigned at;

	for (uint64_t i = 0; i < count; i++) {
		struct delta_entry entry = delta_decode_entry(entries + i * DELTA_ENTRY_BYTES);
		const char *wrong = format_wrong_in_entry(&entry, header, check->least, zeros, &at);

		if (wrong)
			return text_fail(text, -EBADMSG,
			                 "\"%s\" is damaged at byte %" PRIu64 " (index entry %" PRIu64
			                 ", %s): its value is out of range",
			                 path, header->index_offset + check->count * DELTA_ENTRY_BYTES + at,
			                 check->count, wrong);
		format_add_edges(check, &entry);
		check->least = entry.page + 1;
		check->pages[entry.kind]++;
		check->count++;
	}
	return 0;
}

static int format_check_data(const struct delta_index_check *check, const struct delta_header *header, const char *path,
                             struct text *text)
{
	uint64_t end = delta_data_end(check);

	if (check->stored_bytes > header->index_offset - DELTA_HEADER_BYTES ||
	    check->edges != format_edge_hash(DELTA_HEADER_BYTES) - format_edge_hash(end))
		return format_refuse(text, path, DELTA_HEADER_BYTES, "data",
		                     "pages overlap, or there is a gap between them");
	if (math_round_up(end, DELTA_HEADER_BYTES) != header->index_offset)
		return format_refuse(text, path, end, "data", "there is more of it than pages need");
	return 0;
}

int delta_check_padding(const struct delta_header *header, const unsigned char *padding, size_t length,
                        const char *path, struct text *text)
{
	if (zeros_only(padding, length))
		return 0;
	return format_refuse(text, path, header->index_offset - length, "data",
	                     "what lies after the last page is not zeros");
}

static struct image_id format_id_of(const unsigned char *header_bytes, const unsigned char *index, size_t index_bytes)
{
	static const unsigned char none[16];
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, header_bytes, PLACE_ID);
	XXH3_128bits_update(&state, none, sizeof(none));
	XXH3_128bits_update(&state, header_bytes + PLACE_ID + 16, PLACE_HASH - PLACE_ID - 16);
	XXH3_128bits_update(&state, index, index_bytes);
	return hash_id(XXH3_128bits_digest(&state));
}

int delta_check_index(const struct delta_index_check *check, const struct delta_header *header,
                      const struct delta_trailer *trailer, const unsigned char *header_bytes,
                      const unsigned char *index, const char *path, struct text *text)
{
	size_t index_bytes = (size_t)header->index_count * DELTA_ENTRY_BYTES;

	if (trailer->header_hash != format_get64(header_bytes, PLACE_HASH))
		return format_refuse(text, path, header->file_bytes - DELTA_TRAILER_BYTES + 8,
		                     "the trailer's checksum of the header",
		                     "header and trailer are of different files");
	if (!identity_equal(trailer->index_hash, hash_128(index, index_bytes)))
		return format_refuse(text, path, header->index_offset, "index", "its checksum is wrong");
	if (!identity_equal(header->id, format_id_of(header_bytes, index, index_bytes)))
		return format_refuse(text, path, PLACE_ID, "id", "it is not that of header and index");
	return format_check_data(check, header, path, text);
}
