/* SPDX-License-Identifier: MIT */
/* See writer.h. */
#include "image/writer.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "image/hash.h"
#include "image/pack.h"
#include "image/page_set.h"
#include "image/zeros.h"
#include "kernel/pages.h"

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
	struct page_set came;
	uint64_t zeros_hash;
	uint64_t at; /* where in the file the next byte goes */
	unsigned slot;
	size_t fill;            /* of the slot */
	unsigned char *buffers; /* of the slots */
	unsigned char *packed;  /* a page, compressed */
	void *pack_memory;
	size_t pack_memory_bytes;
	void *pack; /* pack.h; NULL: nothing is compressed */
	XXH3_state_t data_state;
	XXH3_state_t index_state;
	XXH3_state_t id_state;
};

/* ---- opening ---- */

static size_t writer_notes_bytes(const struct image_writer *writer)
{
	return (size_t)writer->options.pages_most * sizeof(struct note) + 1;
}

/* Made for one page at a time: small, whatever the level is. */
static int writer_open_pack(struct image_writer *writer)
{
	int level = (int)writer->options.compress;

	if (!level)
		return 0;
	writer->pack_memory_bytes = pack_bytes(level, (size_t)writer->options.page_bytes);
	writer->pack_memory = pages_new(writer->file.k, writer->pack_memory_bytes);
	writer->packed = pages_new(writer->file.k, DELTA_PAGE_BYTES_MOST);
	if (!writer->pack_memory || !writer->packed)
		return -ENOMEM;
	writer->pack = pack_init(writer->pack_memory, writer->pack_memory_bytes);
	return writer->pack ? 0 : -ENOMEM;
}

static int writer_open_memory(struct image_writer *writer)
{
	const struct kernel_ops *k = writer->file.k;

	writer->notes = pages_new(k, writer_notes_bytes(writer));
	writer->buffers = pages_new(k, (size_t)WRITER_SLOTS * SLOT_BYTES);
	if (!writer->notes || !writer->buffers || page_set_open(&writer->came, k, writer->options.pages_most))
		return -ENOMEM;
	pages_touch(k, writer->buffers, (size_t)WRITER_SLOTS * SLOT_BYTES);
	for (unsigned i = 0; i < WRITER_SLOTS; i++)
		writer->file.slots[i].buffer = writer->buffers + (size_t)i * SLOT_BYTES;
	writer->file.slot_count = WRITER_SLOTS;
	return writer_open_pack(writer);
}

static void writer_begin_stream(struct image_writer *writer)
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
	int error = image_file_open(&writer->file, k, options->path, options->flags, options->mode, text);

	if (error) {
		pages_free(k, writer, sizeof(*writer));
		return error;
	}
	error = writer_open_memory(writer);
	if (error) {
		image_writer_close(writer, 0);
		return text_fail(text, error, "no memory for a delta of %llu pages",
		                 (unsigned long long)options->pages_most);
	}
	writer_begin_stream(writer);
	*out = writer;
	return 0;
}

void image_writer_close(struct image_writer *writer, int committed)
{
	const struct kernel_ops *k = writer->file.k;

	image_file_close(&writer->file, committed);
	pages_free(k, writer->notes, writer_notes_bytes(writer));
	page_set_close(&writer->came, k);
	pages_free(k, writer->buffers, (size_t)WRITER_SLOTS * SLOT_BYTES);
	pages_free(k, writer->pack_memory, writer->pack_memory_bytes);
	pages_free(k, writer->packed, DELTA_PAGE_BYTES_MOST);
	pages_free(k, writer, sizeof(*writer));
}

const struct image_file *image_writer_file(const struct image_writer *writer)
{
	return &writer->file;
}

/* ---- the stream of bytes ---- */

/* The slot is full, or all that will come: it goes to the file, and the next that is idle is filled. */
static int writer_flush_slot(struct image_writer *writer)
{
	struct image_file *file = &writer->file;
	size_t length = (size_t)math_round_up(writer->fill, IMAGE_ALIGN);
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

static int writer_append(struct image_writer *writer, const void *data, size_t length)
{
	const unsigned char *from = data;
	int error = 0;

	writer->at += length;
	while (length > 0 && !error) {
		size_t part = (size_t)math_min_u64(length, SLOT_BYTES - writer->fill);

		memcpy(writer->file.slots[writer->slot].buffer + writer->fill, from, part);
		writer->fill += part;
		from += part;
		length -= part;
		if (writer->fill == SLOT_BYTES)
			error = writer_flush_slot(writer);
	}
	return error;
}

static int writer_append_data(struct image_writer *writer, const void *data, size_t length)
{
	XXH3_128bits_update(&writer->data_state, data, length);
	return writer_append(writer, data, length);
}

/* ---- pages ---- */

/* What the page looks like in the file: it, or packed where that is smaller. */
static const void *writer_stored_form(struct image_writer *writer, const void *data, struct note *note)
{
	size_t page_bytes = (size_t)writer->options.page_bytes;

	note->kind = DELTA_RAW;
	note->length = (uint32_t)page_bytes;
	if (!writer->pack)
		return data;
	size_t packed = pack_run(writer->pack, (int)writer->options.compress, data, page_bytes, writer->packed,
	                         DELTA_PAGE_BYTES_MOST);

	if (!packed)
		return data;
	note->kind = DELTA_ZSTD;
	note->length = (uint32_t)packed;
	return writer->packed;
}

int image_writer_put(struct image_writer *writer, uint64_t page, const void *data)
{
	size_t page_bytes = (size_t)writer->options.page_bytes;
	struct note *note = &writer->notes[page];

	if (page_set_add(&writer->came, page))
		return -EEXIST;
	if (zeros_only(data, page_bytes)) {
		*note = (struct note){.kind = DELTA_ZEROS, .hash = writer->zeros_hash};
		return 0;
	}
	const void *stored = writer_stored_form(writer, data, note);

	note->hash = hash_64(data, page_bytes);
	note->offset = writer->at;
	return writer_append_data(writer, stored, note->length);
}

/* ---- the end ---- */

static int writer_append_index(struct image_writer *writer, uint64_t pages)
{
	unsigned char bytes[DELTA_ENTRY_BYTES];
	int error = 0;

	for (uint64_t page = 0; !error && page_set_next(&writer->came, &page, pages); page++) {
		const struct note *note = &writer->notes[page];
		struct delta_entry entry = {page, note->offset, note->hash, note->length, note->kind};

		delta_encode_entry(&entry, bytes);
		XXH3_128bits_update(&writer->index_state, bytes, sizeof(bytes));
		XXH3_128bits_update(&writer->id_state, bytes, sizeof(bytes));
		error = writer_append(writer, bytes, sizeof(bytes));
	}
	return error;
}

static void writer_fill_header(struct image_writer *writer, const struct image_parent *parent, uint64_t length_bytes,
                               struct delta_header *header)
{
	uint64_t pages =
	        math_min_u64(format_delta_pages(length_bytes, writer->options.page_bytes), writer->options.pages_most);

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
	for (uint64_t page = 0; page_set_next(&writer->came, &page, pages); page++)
		header->index_count++;
	header->file_bytes = header->index_offset + header->index_count * DELTA_ENTRY_BYTES + DELTA_TRAILER_BYTES;
	memcpy(header->parent_name, parent->name, sizeof(header->parent_name));
}

/* Zeros up to the next block, so that the index starts at one. */
static int writer_pad_data(struct image_writer *writer)
{
	static const unsigned char zeros[DELTA_HEADER_BYTES];

	return writer_append_data(writer, zeros, (size_t)(math_round_up(writer->at, DELTA_HEADER_BYTES) - writer->at));
}

static int writer_append_trailer(struct image_writer *writer, const struct delta_header *header,
                                 const unsigned char *header_bytes)
{
	unsigned char bytes[DELTA_TRAILER_BYTES];
	struct delta_trailer trailer = {
	        .index_hash = hash_id(XXH3_128bits_digest(&writer->index_state)),
	        .data_hash = hash_id(XXH3_128bits_digest(&writer->data_state)),
	        .file_bytes = header->file_bytes,
	};

	trailer.header_hash = hash_64(header_bytes, DELTA_HEADER_COVERED);
	delta_encode_trailer(&trailer, bytes);
	return writer_append(writer, bytes, sizeof(bytes));
}

/* The header is written last: it knows what all the rest became. */
static int writer_write_header(struct image_writer *writer, const unsigned char *bytes)
{
	struct image_file *file = &writer->file;
	int error = writer_flush_slot(writer);

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

static int writer_write_end(struct image_writer *writer, struct delta_header *header)
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	uint64_t pages =
	        math_min_u64(format_delta_pages(header->length_bytes, header->page_bytes), writer->options.pages_most);

	delta_encode_header(header, bytes);
	XXH3_128bits_update(&writer->id_state, bytes, DELTA_HEADER_COVERED);
	int error = writer_append_index(writer, pages);

	if (error)
		return error;
	header->id = hash_id(XXH3_128bits_digest(&writer->id_state));
	delta_encode_header(header, bytes);
	error = writer_append_trailer(writer, header, bytes);
	return error ? error : writer_write_header(writer, bytes);
}

int image_writer_commit(struct image_writer *writer, const struct image_parent *parent, uint64_t length_bytes,
                        struct image_identity *identity, struct text *text)
{
	struct delta_header header;
	int error = writer_pad_data(writer);

	if (!error) {
		writer_fill_header(writer, parent, length_bytes, &header);
		error = writer_write_end(writer, &header);
	}
	if (error)
		return text_fail(text, error, "the delta could not be written: %s", errno_text(error));
	identity->id = header.id;
	identity->length_bytes = length_bytes;
	return image_file_commit(&writer->file, header.file_bytes, identity, text);
}
