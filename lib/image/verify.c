/* SPDX-License-Identifier: MIT */
/* Every byte of a chain, read and checked; see chain.h. The oldest bytes last: a report names the newest damage. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/math.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/hash.h"
#include "image/io.h"
#include "kernel/pages.h"

#define BUFFER_BYTES BASE_BLOCK_BYTES

static int verify_pages(struct uffdwp_image *image, uint32_t number, unsigned char *buffer,
                        struct uffdwp_image_verified *verified)
{
	const struct image_link *link = &image->links[number];
	int error = 0;

	for (uint64_t i = 0; i < link->header.index_count && !error; i++) {
		struct piece piece = {0, (uint64_t)number << 48 | i};

		piece.page = chain_piece_entry(image, &piece).page;
		error = chain_read_page(image, &piece, buffer);
		verified->pages += !error;
	}
	return error;
}

/* What lies between the pages, too. */
static int verify_data(struct uffdwp_image *image, uint32_t number, unsigned char *buffer)
{
	const struct image_link *link = &image->links[number];
	uint64_t end = link->header.index_offset;
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	for (uint64_t at = DELTA_HEADER_BYTES; at < end; at += BUFFER_BYTES) {
		size_t part = (size_t)math_min_u64(BUFFER_BYTES, end - at);
		int error = io_read(image->k, link->fd, buffer, part, at);

		if (error)
			return chain_note_bad(image, error, number, at / image->page_bytes, at);
		XXH3_128bits_update(&state, buffer, part);
	}
	if (identity_equal(hash_id(XXH3_128bits_digest(&state)), link->trailer.data_hash))
		return 0;
	return text_fail(&image->text, -EBADMSG,
	                 "\"%s\" is damaged somewhere in bytes [%d, %" PRIu64
	                 "): its pages are whole, what lies between "
	                 "them is not",
	                 link->path, DELTA_HEADER_BYTES, end);
}

/* Header, trailer and index were read when the image was opened; once more, because files do not stay. */
static int verify_frame(struct uffdwp_image *image, uint32_t number)
{
	const struct image_link *link = &image->links[number];
	unsigned char bytes[DELTA_HEADER_BYTES];
	struct delta_header header;
	int error = io_read(image->k, link->fd, bytes, sizeof(bytes), 0);

	if (error)
		return chain_note_bad(image, error, number, 0, 0);
	error = delta_decode_header(bytes, link->file_bytes, link->path, &header, &image->text);
	if (!error && !identity_equal(header.id, link->header.id))
		error = text_fail(&image->text, -EBADMSG, "\"%s\" was changed while it was open", link->path);
	return error;
}

static int verify_delta(struct uffdwp_image *image, uint32_t number, unsigned char *buffer,
                        struct uffdwp_image_verified *verified)
{
	int error = verify_frame(image, number);

	if (!error)
		error = verify_pages(image, number, buffer, verified);
	if (!error)
		error = verify_data(image, number, buffer);
	if (!error)
		verified->bytes_read += image->links[number].file_bytes;
	return error;
}

int chain_judge_base(struct uffdwp_image *image, struct image_id id)
{
	char has[DELTA_ID_TEXT];
	char wants[DELTA_ID_TEXT];

	if (image->link_count == 1)
		return 0;
	const struct image_link *child = &image->links[image->link_count - 2];

	if (identity_equal(id, child->header.parent))
		return 0;
	delta_id_text(id, has);
	delta_id_text(child->header.parent, wants);
	return text_fail(&image->text, -EXDEV,
	                 "\"%s\" is not the parent of \"%s\", or was changed: its id is %s, and the parent's is %s",
	                 chain_base(image)->path, child->path, has, wants);
}

int chain_check_base(struct uffdwp_image *image, struct image_id *id)
{
	const struct image_link *base = chain_base(image);
	struct base_list list;
	unsigned char *buffer = pages_new(image->k, BUFFER_BYTES);
	int error = buffer ? base_open(&list, image->k, base->length_bytes) : -ENOMEM;

	if (error) {
		pages_free(image->k, buffer, BUFFER_BYTES);
		return text_fail(&image->text, error, "no list of the blocks of \"%s\": %s", base->path,
		                 base_refusal(error));
	}
	error = base_put_file(&list, base->fd, base->length_bytes, buffer);
	*id = base_id(&list, base->length_bytes);
	base_close(&list);
	pages_free(image->k, buffer, BUFFER_BYTES);
	if (error)
		return text_fail(&image->text, error, "\"%s\" cannot be read: %s", base->path,
		                 error == -EBADMSG ? "it became shorter" : strerror(-error));
	return chain_judge_base(image, *id);
}

int chain_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified)
{
	unsigned char *buffer = pages_new(image->k, BUFFER_BYTES);
	struct image_id id = {0, 0};
	int error = buffer ? 0 : text_fail(&image->text, -ENOMEM, "no memory for checking");

	for (uint32_t i = 0; i + 1 < image->link_count && !error; i++) {
		error = verify_delta(image, i, buffer, verified);
		verified->links += !error;
	}
	pages_free(image->k, buffer, BUFFER_BYTES);
	if (!error)
		error = chain_check_base(image, &id);
	if (!error) {
		verified->links++;
		verified->bytes_read += chain_base(image)->length_bytes;
	}
	verified->raw_id = (struct uffdwp_image_id){id.low, id.high};
	return error;
}
