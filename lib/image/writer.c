/* SPDX-License-Identifier: MIT */
/* See writer.h. */
#include "image/writer.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "base/math.h"
#include "image/hash.h"
#include "image/zeros.h"
#include "region/region.h"

#define WRITER_SLOTS 4
#define SLOT_BYTES (1u << 20)

/* What is known of a page that came. */
struct note {
	uint64_t offset;
	uint64_t hash;
	uint32_t length;
	uint32_t kind;
};

struct image_writer {
	struct image_file file;
	struct image_writer_options options; /* `path` is not kept */
	struct note *notes;                  /* by page */
	uint64_t *came;                      /* a bit a page */
	uint64_t zeros_hash;
	uint64_t at; /* where in the file the next byte goes */
	unsigned slot;
	size_t fill;            /* of the slot */
	unsigned char *buffers; /* of the slots */
	unsigned char *packed;  /* a page, compressed */
	void *zstd_memory;
	size_t zstd_bytes;
	ZSTD_CCtx *zstd;
	XXH3_state_t data_state;
	XXH3_state_t index_state;
	XXH3_state_t id_state;
};

/* ---- opening ---- */

static size_t notes_bytes(const struct image_writer *writer)
{
	return (size_t)writer->options.pages_most * sizeof(struct note) + 1;
}

static size_t came_bytes(const struct image_writer *writer)
{
	return (size_t)round_up(writer->options.pages_most + 1, 64) / 8;
}

/* Made for one page at a time: small, whatever the level is. */
static int open_zstd(struct image_writer *writer)
{
	int level = (int)writer->options.compress;

	if (!level)
		return 0;
	ZSTD_compressionParameters parameters = ZSTD_getCParams(level, writer->options.page_bytes, 0);

	writer->zstd_bytes = ZSTD_estimateCCtxSize_usingCParams(parameters);
	writer->zstd_memory = pages_new(writer->file.k, writer->zstd_bytes);
	writer->packed = pages_new(writer->file.k, DELTA_PAGE_BYTES_MOST);
	if (!writer->zstd_memory || !writer->packed)
		return -ENOMEM;
	writer->zstd = ZSTD_initStaticCCtx(writer->zstd_memory, writer->zstd_bytes);
	return writer->zstd ? 0 : -ENOMEM;
}

static int open_memory(struct image_writer *writer)
{
	const struct kernel_ops *k = writer->file.k;

	writer->notes = pages_new(k, notes_bytes(writer));
	writer->came = pages_new(k, came_bytes(writer));
	writer->buffers = pages_new(k, (size_t)WRITER_SLOTS * SLOT_BYTES);
	if (!writer->notes || !writer->came || !writer->buffers)
		return -ENOMEM;
	pages_touch(k, writer->buffers, (size_t)WRITER_SLOTS * SLOT_BYTES);
	for (unsigned i = 0; i < WRITER_SLOTS; i++)
		writer->file.slots[i].buffer = writer->buffers + (size_t)i * SLOT_BYTES;
	writer->file.slot_count = WRITER_SLOTS;
	return open_zstd(writer);
}

static void begin_stream(struct image_writer *writer)
{
	writer->at = DELTA_HEADER_BYTES;
	writer->file.slots[0].offset = DELTA_HEADER_BYTES;
	writer->zeros_hash = delta_zeros_hash(writer->options.page_bytes);
	XXH3_128bits_reset(&writer->data_state);
	XXH3_128bits_reset(&writer->index_state);
	XXH3_128bits_reset(&writer->id_state);
}

int image_writer_open(const struct kernel_ops *k, const struct image_writer_options *options, struct text *text,
                      struct image_writer **out)
{
	struct image_writer *writer = pages_new(k, sizeof(*writer));

	if (!writer)
		return text_fail(text, -ENOMEM, "no memory for a delta");
	writer->options = *options;
	writer->options.path = NULL;
	int error = image_file_open(&writer->file, k, options->path, options->flags, text);

	if (error) {
		pages_free(k, writer, sizeof(*writer));
		return error;
	}
	error = open_memory(writer);
	if (error) {
		image_writer_close(writer, 0);
		return text_fail(text, error, "no memory for a delta of %llu pages",
		                 (unsigned long long)options->pages_most);
	}
	begin_stream(writer);
	*out = writer;
	return 0;
}

void image_writer_close(struct image_writer *writer, int committed)
{
	const struct kernel_ops *k = writer->file.k;

	image_file_close(&writer->file, committed);
	pages_free(k, writer->notes, notes_bytes(writer));
	pages_free(k, writer->came, came_bytes(writer));
	pages_free(k, writer->buffers, (size_t)WRITER_SLOTS * SLOT_BYTES);
	pages_free(k, writer->zstd_memory, writer->zstd_bytes);
	pages_free(k, writer->packed, DELTA_PAGE_BYTES_MOST);
	pages_free(k, writer, sizeof(*writer));
}

const struct image_file *image_writer_file(const struct image_writer *writer)
{
	return &writer->file;
}

/* ---- the stream of bytes ---- */

/* The slot is full, or all that will come: it goes to the file, and the next that is idle is filled. */
static int flush_slot(struct image_writer *writer)
{
	struct image_file *file = &writer->file;
	size_t length = (size_t)round_up(writer->fill, IMAGE_ALIGN);
	unsigned char *buffer = file->slots[writer->slot].buffer;
	uint64_t next = file->slots[writer->slot].offset + length;

	memset(buffer + writer->fill, 0, length - writer->fill);
	int error = length ? image_file_submit(file, writer->slot, 0, length) : 0;

	writer->slot = (writer->slot + 1) % WRITER_SLOTS;
	while (!error && file->slots[writer->slot].pending)
		error = image_file_reap(file);
	file->slots[writer->slot].offset = next;
	writer->fill = 0;
	return error;
}

static int append(struct image_writer *writer, const void *data, size_t length)
{
	const unsigned char *from = data;
	int error = 0;

	writer->at += length;
	while (length > 0 && !error) {
		size_t part = (size_t)min_u64(length, SLOT_BYTES - writer->fill);

		memcpy(writer->file.slots[writer->slot].buffer + writer->fill, from, part);
		writer->fill += part;
		from += part;
		length -= part;
		if (writer->fill == SLOT_BYTES)
			error = flush_slot(writer);
	}
	return error;
}

static int append_data(struct image_writer *writer, const void *data, size_t length)
{
	XXH3_128bits_update(&writer->data_state, data, length);
	return append(writer, data, length);
}

/* ---- pages ---- */

/* What the page looks like in the file: it, or packed where that is smaller. */
static const void *stored_form(struct image_writer *writer, const void *data, struct note *note)
{
	size_t page_bytes = (size_t)writer->options.page_bytes;

	note->kind = DELTA_RAW;
	note->length = (uint32_t)page_bytes;
	if (!writer->zstd)
		return data;
	size_t packed = ZSTD_compressCCtx(writer->zstd, writer->packed, DELTA_PAGE_BYTES_MOST, data, page_bytes,
	                                  (int)writer->options.compress);

	if (ZSTD_isError(packed) || packed >= page_bytes)
		return data;
	note->kind = DELTA_ZSTD;
	note->length = (uint32_t)packed;
	return writer->packed;
}

int image_writer_put(struct image_writer *writer, uint64_t page, const void *data)
{
	size_t page_bytes = (size_t)writer->options.page_bytes;
	struct note *note = &writer->notes[page];

	if (writer->came[page / 64] >> (page % 64) & 1)
		return -EEXIST;
	writer->came[page / 64] |= 1ull << (page % 64);
	if (zeros_only(data, page_bytes)) {
		*note = (struct note){.kind = DELTA_ZEROS, .hash = writer->zeros_hash};
		return 0;
	}
	const void *stored = stored_form(writer, data, note);

	note->hash = hash64(data, page_bytes);
	note->offset = writer->at;
	return append_data(writer, stored, note->length);
}

/* ---- the end ---- */

static int next_page(const struct image_writer *writer, uint64_t *page, uint64_t end)
{
	while (*page < end) {
		uint64_t bits = writer->came[*page / 64] >> (*page % 64);

		if (bits) {
			*page += (uint64_t)__builtin_ctzll(bits);
			return *page < end;
		}
		*page = (*page / 64 + 1) * 64;
	}
	return 0;
}

static int append_index(struct image_writer *writer, uint64_t pages)
{
	unsigned char bytes[DELTA_ENTRY_BYTES];
	int error = 0;

	for (uint64_t page = 0; !error && next_page(writer, &page, pages); page++) {
		const struct note *note = &writer->notes[page];
		struct delta_entry entry = {page, note->offset, note->hash, note->length, note->kind};

		delta_encode_entry(&entry, bytes);
		XXH3_128bits_update(&writer->index_state, bytes, sizeof(bytes));
		XXH3_128bits_update(&writer->id_state, bytes, sizeof(bytes));
		error = append(writer, bytes, sizeof(bytes));
	}
	return error;
}

static void fill_header(struct image_writer *writer, const struct image_parent *parent, uint64_t length_bytes,
                        struct delta_header *header)
{
	uint64_t pages = min_u64(delta_pages(length_bytes, writer->options.page_bytes), writer->options.pages_most);

	*header = (struct delta_header){
	        .flags = parent->is_raw ? DELTA_PARENT_IS_RAW : 0,
	        .compress = writer->options.compress,
	        .page_bytes = writer->options.page_bytes,
	        .region_page_bytes = writer->options.region_page_bytes,
	        .length_bytes = length_bytes,
	        .parent_length_bytes = parent->length_bytes,
	        .parent = parent->id,
	        .index_offset = writer->at,
	};
	for (uint64_t page = 0; next_page(writer, &page, pages); page++)
		header->index_count++;
	header->file_bytes = header->index_offset + header->index_count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	memcpy(header->parent_name, parent->name, sizeof(header->parent_name));
}

/* Zeros up to the next block, so that the index starts at one. */
static int pad_data(struct image_writer *writer)
{
	static const unsigned char zeros[DELTA_HEADER_BYTES];

	return append_data(writer, zeros, (size_t)(round_up(writer->at, DELTA_HEADER_BYTES) - writer->at));
}

static int append_trailer(struct image_writer *writer, const struct delta_header *header,
                          const unsigned char *header_bytes)
{
	unsigned char bytes[DELTA_TRAILER_BYTES];
	struct delta_trailer trailer = {
	        .index_hash = hash_id(XXH3_128bits_digest(&writer->index_state)),
	        .data_hash = hash_id(XXH3_128bits_digest(&writer->data_state)),
	        .file_bytes = header->file_bytes,
	};

	trailer.header_hash = hash64(header_bytes, DELTA_HEADER_COVERED);
	delta_encode_trailer(&trailer, bytes);
	return append(writer, bytes, sizeof(bytes));
}

/* The header is written last: it knows what all the rest became. */
static int write_header(struct image_writer *writer, const unsigned char *bytes)
{
	struct image_file *file = &writer->file;
	int error = flush_slot(writer);

	file->slots[writer->slot].offset = 0;
	memcpy(file->slots[writer->slot].buffer, bytes, DELTA_HEADER_BYTES);
	if (!error)
		error = image_file_submit(file, writer->slot, 0, DELTA_HEADER_BYTES);
	for (unsigned i = 0; i < WRITER_SLOTS; i++) {
		while (!error && file->slots[i].pending)
			error = image_file_reap(file);
	}
	return error;
}

static int write_end(struct image_writer *writer, struct delta_header *header)
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	uint64_t pages = min_u64(delta_pages(header->length_bytes, header->page_bytes), writer->options.pages_most);

	delta_encode_header(header, bytes);
	XXH3_128bits_update(&writer->id_state, bytes, DELTA_HEADER_COVERED);
	int error = append_index(writer, pages);

	if (error)
		return error;
	header->id = hash_id(XXH3_128bits_digest(&writer->id_state));
	delta_encode_header(header, bytes);
	error = append_trailer(writer, header, bytes);
	return error ? error : write_header(writer, bytes);
}

int image_writer_commit(struct image_writer *writer, const struct image_parent *parent, uint64_t length_bytes,
                        struct image_identity *identity, struct text *text)
{
	struct delta_header header;
	int error = pad_data(writer);

	if (!error) {
		fill_header(writer, parent, length_bytes, &header);
		error = write_end(writer, &header);
	}
	if (error)
		return text_fail(text, error, "the delta could not be written: %s", strerror(-error));
	identity->id = header.id;
	identity->length_bytes = length_bytes;
	return image_file_commit(&writer->file, header.file_bytes, identity, text);
}
