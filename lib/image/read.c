/* SPDX-License-Identifier: MIT */
/* Reading a chain, and where its bytes are; see chain.h. Nothing here allocates, takes a lock or forms a text. */
#include <errno.h>
#include <string.h>

#include "base/math.h"
#include "image/chain.h"
#include "image/hash.h"
#include "image/io.h"
#include "image/zeros.h"
#include "kernel/holes.h"

/* What one system call reads of pages that follow each other in the file. */
#define RUN_BYTES_MOST (1u << 20)

uint64_t chain_find(const struct uffdwp_image *image, uint64_t page)
{
	uint64_t low = 0;
	uint64_t high = image->piece_count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (image->pieces[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The first damage that is found is what is reported. */
int chain_note_bad(struct uffdwp_image *image, int error, uint32_t link, uint64_t page, uint64_t at)
{
	uint32_t none = 0;

	if (atomic_compare_exchange_strong(&image->bad, &none, 2)) {
		image->bad_link = link;
		image->bad_error = error;
		image->bad_page = page;
		image->bad_at = at;
		atomic_store_explicit(&image->bad, 1, memory_order_release);
	}
	return error;
}

/* ---- one page of a delta ---- */

/* Bytes [at, at + length) of a page: 1 where those beyond the end of the link's memory are zeros, as they must be. */
static int read_has_zero_tail(const struct uffdwp_image *image, const struct piece *piece, const unsigned char *bytes,
                              size_t at, size_t length)
{
	uint64_t start = piece->page * image->page_bytes;
	uint64_t inside = image->links[chain_piece_link(piece)].length_bytes - start;

	if (inside >= at + length)
		return 1;
	size_t skip = inside > at ? (size_t)inside - at : 0;

	return zeros_only(bytes + skip, length - skip);
}

/* A part of a raw page, through the stack: all of it is read, because all of it is checked. */
static int read_part(const struct uffdwp_image *image, const struct piece *piece, const struct delta_entry *entry,
                     size_t skip, void *to, size_t length)
{
	int fd = image->links[chain_piece_link(piece)].fd;
	unsigned char bytes[DELTA_PAGE_BYTES_LEAST];
	XXH3_state_t state;
	size_t end = skip + length;

	XXH3_64bits_reset(&state);
	for (size_t at = 0; at < image->page_bytes; at += sizeof(bytes)) {
		int error = io_read(image->k, fd, bytes, sizeof(bytes), entry->offset + at);

		if (!error && !read_has_zero_tail(image, piece, bytes, at, sizeof(bytes)))
			error = -EBADMSG;
		if (error)
			return error;
		XXH3_64bits_update(&state, bytes, sizeof(bytes));
		size_t from = at > skip ? at : skip;
		size_t until = at + sizeof(bytes) < end ? at + sizeof(bytes) : end;

		if (from < until)
			memcpy((unsigned char *)to + (from - skip), bytes + (from - at), until - from);
	}
	return XXH3_64bits_digest(&state) == entry->hash ? 0 : -EBADMSG;
}

static int read_packed(struct uffdwp_image *image, const struct piece *piece, const struct delta_entry *entry,
                       size_t skip, void *to, size_t length)
{
	size_t page_bytes = (size_t)image->page_bytes;
	struct unpacker *unpacker = unpacker_take(image);
	unsigned char *page = length == page_bytes ? to : unpacker->page;
	int error = io_read(image->k, image->links[chain_piece_link(piece)].fd, unpacker->packed, entry->length,
	                    entry->offset);

	if (!error)
		error = unpacker_run(unpacker, entry->length, page, page_bytes);
	if (!error &&
	    (hash_64(page, page_bytes) != entry->hash || !read_has_zero_tail(image, piece, page, 0, page_bytes)))
		error = -EBADMSG;
	if (!error && page != to)
		memcpy(to, page + skip, length);
	unpacker_give(image, unpacker);
	return error;
}

static int read_piece(struct uffdwp_image *image, const struct piece *piece, size_t skip, void *to, size_t length)
{
	struct delta_entry entry = chain_piece_entry(image, piece);
	int error = 0;

	if (entry.kind == DELTA_ZEROS)
		memset(to, 0, length);
	else if (entry.kind == DELTA_ZSTD)
		error = read_packed(image, piece, &entry, skip, to, length);
	else
		error = read_part(image, piece, &entry, skip, to, length);
	return error ? chain_note_bad(image, error, chain_piece_link(piece), piece->page, entry.offset) : 0;
}

int chain_read_page(struct uffdwp_image *image, const struct piece *piece, void *to)
{
	return read_piece(image, piece, 0, to, (size_t)image->page_bytes);
}

/* ---- runs of whole raw pages ---- */

static int read_follows(const struct uffdwp_image *image, const struct piece *a, const struct piece *b)
{
	struct delta_entry first = chain_piece_entry(image, a);
	struct delta_entry second = chain_piece_entry(image, b);

	return b->page == a->page + 1 && chain_piece_link(a) == chain_piece_link(b) && first.kind == DELTA_RAW &&
	       second.kind == DELTA_RAW && second.offset == first.offset + image->page_bytes;
}

/* How many pieces from `number` on can be read by one call into `length` bytes: at least one. */
static uint64_t read_run_length(const struct uffdwp_image *image, uint64_t number, size_t length)
{
	uint64_t most = math_min_u64(length, RUN_BYTES_MOST) / image->page_bytes;
	uint64_t count = 1;

	while (count < most && number + count < image->piece_count &&
	       read_follows(image, &image->pieces[number + count - 1], &image->pieces[number + count]))
		count++;
	return count;
}

static int read_run(struct uffdwp_image *image, uint64_t number, uint64_t count, unsigned char *to)
{
	size_t page_bytes = (size_t)image->page_bytes;
	const struct piece *first = &image->pieces[number];
	uint32_t link = chain_piece_link(first);
	struct delta_entry entry = chain_piece_entry(image, first);
	int error = io_read(image->k, image->links[link].fd, to, count * page_bytes, entry.offset);

	if (error)
		return chain_note_bad(image, error, link, first->page, entry.offset);
	for (uint64_t i = 0; i < count; i++) {
		entry = chain_piece_entry(image, &first[i]);
		if (hash_64(to + i * page_bytes, page_bytes) != entry.hash ||
		    !read_has_zero_tail(image, &first[i], to + i * page_bytes, 0, page_bytes))
			return chain_note_bad(image, -EBADMSG, link, first[i].page, entry.offset);
	}
	return 0;
}

/* ---- any range ---- */

static int read_base(struct uffdwp_image *image, uint64_t offset, unsigned char *to, size_t length)
{
	const struct image_link *base = chain_base(image);
	size_t part = offset < base->clip ? (size_t)math_min_u64(length, base->clip - offset) : 0;
	int error = part ? io_read(image->k, base->fd, to, part, offset) : 0;

	memset(to + part, 0, length - part);
	return error ? chain_note_bad(image, error, image->link_count - 1, offset / image->page_bytes, offset) : 0;
}

/* From the piece on: as much as one step reads is said in *done. */
static int read_step(struct uffdwp_image *image, uint64_t number, uint64_t offset, unsigned char *to, size_t length,
                     size_t *done)
{
	size_t page_bytes = (size_t)image->page_bytes;
	const struct piece *piece = &image->pieces[number];
	uint64_t clip = image->links[chain_piece_link(piece)].clip;
	size_t skip = (size_t)(offset % page_bytes);
	size_t part = (size_t)math_min_u64(page_bytes - skip, length);
	int error;

	if (part == page_bytes && chain_piece_entry(image, piece).kind == DELTA_RAW) {
		uint64_t count = read_run_length(image, number, length);

		part = (size_t)count * page_bytes;
		error = read_run(image, number, count, to);
	} else {
		error = read_piece(image, piece, skip, to, part);
	}
	if (offset + part > clip) {
		size_t shown = clip > offset ? (size_t)(clip - offset) : 0;

		memset(to + shown, 0, part - shown);
	}
	*done = part;
	return error;
}

int chain_read(struct uffdwp_image *image, uint64_t offset, void *to, size_t length)
{
	uint64_t number = chain_find(image, offset / image->page_bytes);
	unsigned char *at = to;
	int error = 0;

	while (length > 0 && !error) {
		size_t done = length;
		uint64_t next =
		        number < image->piece_count ? image->pieces[number].page * image->page_bytes : UINT64_MAX;

		if (next <= offset) {
			error = read_step(image, number, offset, at, length, &done);
			number += done / image->page_bytes ? done / image->page_bytes : 1;
		} else {
			done = (size_t)math_min_u64(length, next - offset);
			error = read_base(image, offset, at, done);
		}
		at += done;
		offset += done;
		length -= done;
	}
	return error;
}

/* ---- where the bytes are ---- */

/* Where data of the base begins in [offset, end), as far as the file system reports it. */
static uint64_t read_base_data(const struct uffdwp_image *image, uint64_t offset, uint64_t end)
{
	const struct image_link *base = chain_base(image);

	return offset < base->clip ? holes_next_data(image->k, base->fd, offset, end) : end;
}

uint64_t chain_skip_zeros(const struct uffdwp_image *image, uint64_t offset, uint64_t end)
{
	uint64_t number = chain_find(image, offset / image->page_bytes);

	end = math_min_u64(end, image->length_bytes);
	while (offset < end) {
		const struct piece *piece = number < image->piece_count ? &image->pieces[number] : NULL;
		uint64_t next = math_min_u64(piece ? piece->page * image->page_bytes : end, end);

		if (next > offset) {
			offset = read_base_data(image, offset, next);
			if (offset < next)
				return offset;
		} else if (chain_piece_entry(image, piece).kind == DELTA_ZEROS) {
			offset = next + image->page_bytes;
			number++;
		} else {
			return offset;
		}
	}
	return end;
}

/* [offset, end) is the base's: data or a hole. */
static void read_base_extent(const struct uffdwp_image *image, uint64_t end, struct uffdwp_image_extent *extent)
{
	const struct image_link *base = chain_base(image);
	uint64_t offset = extent->offset;
	uint64_t limit = math_min_u64(end, base->clip);
	uint64_t data = offset < limit ? holes_next_data(image->k, base->fd, offset, limit) : limit;

	extent->link = image->link_count - 1;
	extent->length = end - offset;
	if (data >= limit)
		return;
	if (data > offset) {
		extent->length = data - offset;
		return;
	}
	uint64_t hole = holes_next(image->k, base->fd, offset, limit);

	extent->kind = UFFDWP_EXTENT_DATA;
	extent->length = (hole > offset ? hole : limit) - offset;
	extent->fd = base->fd;
	extent->file_offset = offset;
}

static void read_piece_extent(const struct uffdwp_image *image, uint64_t number, struct uffdwp_image_extent *extent)
{
	static const uint32_t kinds[DELTA_KINDS] = {UFFDWP_EXTENT_DATA, UFFDWP_EXTENT_ZEROS, UFFDWP_EXTENT_PACKED};
	const struct piece *piece = &image->pieces[number];
	const struct image_link *link = &image->links[chain_piece_link(piece)];
	struct delta_entry entry = chain_piece_entry(image, piece);
	uint64_t skip = extent->offset - piece->page * image->page_bytes;
	uint64_t count = 1;

	while (number + count < image->piece_count && entry.kind == DELTA_RAW &&
	       read_follows(image, &image->pieces[number + count - 1], &image->pieces[number + count]))
		count++;
	extent->link = chain_piece_link(piece);
	extent->kind = kinds[entry.kind];
	extent->length = count * image->page_bytes - skip;
	if (extent->offset + extent->length > link->clip) {
		if (extent->offset < link->clip) {
			extent->length = link->clip - extent->offset;
		} else {
			extent->kind = UFFDWP_EXTENT_ZEROS;
			return;
		}
	}
	if (entry.kind == DELTA_RAW) {
		extent->fd = link->fd;
		extent->file_offset = entry.offset + skip;
	}
}

int chain_next(const struct uffdwp_image *image, uint64_t offset, struct uffdwp_image_extent *extent)
{
	uint64_t number = chain_find(image, offset / image->page_bytes);
	uint64_t next = number < image->piece_count ? image->pieces[number].page * image->page_bytes : UINT64_MAX;

	if (offset >= image->length_bytes)
		return 0;
	extent->offset = offset;
	extent->kind = UFFDWP_EXTENT_ZEROS;
	extent->fd = -1;
	extent->file_offset = 0;
	if (next <= offset)
		read_piece_extent(image, number, extent);
	else
		read_base_extent(image, math_min_u64(next, image->length_bytes), extent);
	if (extent->length > image->length_bytes - offset)
		extent->length = image->length_bytes - offset;
	return 1;
}
