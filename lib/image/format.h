/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a delta: FORMAT.md beside this file draws them. Here they become structures and are checked: what a
 * structure holds has been found to be in range, and what is wrong was refused with the file, the byte and the field.
 *
 * Threads: none; no state.
 */
#ifndef UFFDWP_IMAGE_FORMAT_H
#define UFFDWP_IMAGE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/identity.h"
#include "base/text.h"

#define DELTA_VERSION 1
#define DELTA_HEADER_BYTES 4096
#define DELTA_ENTRY_BYTES 32
#define DELTA_TRAILER_BYTES 64
#define DELTA_NAME_BYTES 256
#define DELTA_PAGE_BYTES_LEAST 4096
#define DELTA_PAGE_BYTES_MOST 65536
#define DELTA_LENGTH_MOST (1ull << 56)

#define DELTA_PARENT_IS_RAW (1u << 0)

enum delta_kind { DELTA_RAW = 0, DELTA_ZEROS = 1, DELTA_ZSTD = 2, DELTA_KINDS = 3 };

struct delta_header {
	uint32_t flags;
	uint32_t compress;          /* zstd level that was asked for; 0: none */
	uint64_t page_bytes;        /* what the index counts in */
	uint64_t region_page_bytes; /* granularity of the region it was taken of: a multiple of page_bytes */
	uint64_t length_bytes;
	uint64_t parent_length_bytes;
	struct image_id id;
	struct image_id parent;
	uint64_t index_offset;
	uint64_t index_count;
	uint64_t file_bytes;
	char parent_name[DELTA_NAME_BYTES];
};

struct delta_entry {
	uint64_t page;
	uint64_t offset; /* in the file */
	uint64_t hash;   /* of the page's content */
	uint32_t length; /* as stored */
	uint32_t kind;   /* enum delta_kind */
};

struct delta_trailer {
	uint64_t header_hash;
	struct image_id index_hash;
	struct image_id data_hash;
	uint64_t file_bytes;
};

/* Pages of an image of length_bytes. */
static inline uint64_t format_delta_pages(uint64_t length_bytes, uint64_t page_bytes)
{
	return length_bytes / page_bytes + (length_bytes % page_bytes != 0);
}

/* 1: these first 8 bytes are a delta's. */
int delta_is_magic(const unsigned char *bytes);

/* 1: these last bytes of a file are a delta's, and whole. */
int delta_is_trailer(const unsigned char bytes[DELTA_TRAILER_BYTES]);

void delta_encode_header(const struct delta_header *header, unsigned char bytes[DELTA_HEADER_BYTES]);
void delta_encode_entry(const struct delta_entry *entry, unsigned char bytes[DELTA_ENTRY_BYTES]);
void delta_encode_trailer(const struct delta_trailer *trailer, unsigned char bytes[DELTA_TRAILER_BYTES]);

/* -EBADMSG: damaged; -EPROTONOSUPPORT: made by a later version. `path` is for the text. */
int delta_decode_header(const unsigned char bytes[DELTA_HEADER_BYTES], uint64_t file_bytes, const char *path,
                        struct delta_header *header, struct text *text);
int delta_decode_trailer(const unsigned char bytes[DELTA_TRAILER_BYTES], uint64_t file_bytes, const char *path,
                         struct delta_trailer *trailer, struct text *text);

/* No check: of an index that delta_check_index() has found to be right. */
struct delta_entry delta_decode_entry(const unsigned char bytes[DELTA_ENTRY_BYTES]);

/* What is known of an index that is checked as it comes. */
struct delta_index_check {
	uint64_t count;              /* entries so far, all in range and in order */
	uint64_t least;              /* the next page is not below */
	uint64_t stored_bytes;       /* of their pages */
	uint64_t edges;              /* hashes of where pages begin, less those of where they end */
	uint64_t pages[DELTA_KINDS]; /* of each kind */
};

/* The next `count` entries, at `entries`: each in range, and after the last. */
int delta_check_entries(struct delta_index_check *check, const struct delta_header *header,
                        const unsigned char *entries, uint64_t count, const char *path, struct text *text);

/* All entries have come, and are at `index`: their pages lie in the data without gap and overlap, the trailer's
 * checksums and the header's id are as they should be. */
int delta_check_index(const struct delta_index_check *check, const struct delta_header *header,
                      const struct delta_trailer *trailer, const unsigned char *header_bytes,
                      const unsigned char *index, const char *path, struct text *text);

/* Zeros between the last page and the index, which have been read: [delta_data_end(), index_offset). */
uint64_t delta_data_end(const struct delta_index_check *check);
int delta_check_padding(const struct delta_header *header, const unsigned char *padding, size_t length,
                        const char *path, struct text *text);

/* XXH3-64 of a page of zeros. */
uint64_t delta_zeros_hash(uint64_t page_bytes);

/* An id as people read it: 32 hexadecimal digits, high half first. */
#define DELTA_ID_TEXT 33
void delta_id_text(struct image_id id, char text[DELTA_ID_TEXT]);

/* The header's part that the id and its checksum cover. */
#define DELTA_HEADER_COVERED 4088
#define DELTA_HEADER_ID 40

#endif
