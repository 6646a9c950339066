/* SPDX-License-Identifier: MIT */
/* Every byte of a chain, read and checked; see chain.h. The oldest bytes last: a report names the newest damage. */
#include <errno.h>
#include <inttypes.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/gauge.h"
#include "image/hash.h"
#include "image/io.h"
#include "kernel/pages.h"

#define BUFFER_BYTES BASE_BLOCK_BYTES

struct verify {
	struct uffdwp_image *image;
	struct uffdwp_image_verified *verified;
	unsigned char *buffer;
	struct gauge gauge; /* counts bytes of files; a delta is read twice, each time counts for half of it */
	uint64_t before;    /* bytes of the files that are done */
};

static uint64_t verify_total(const struct uffdwp_image *image)
{
	uint64_t total = chain_base(image)->length_bytes;

	for (uint32_t i = 0; i + 1 < image->link_count; i++)
		total += image->links[i].file_bytes;
	return total;
}

/* So much of the half of a file that its pages count for is done with page i of count. */
static uint64_t verify_half(uint64_t file_bytes, uint64_t i, uint64_t count)
{
	return (uint64_t)((double)file_bytes / 2 * (double)(i + 1) / (double)count);
}

static int verify_pages(struct verify *verify, uint32_t number)
{
	struct uffdwp_image *image = verify->image;
	const struct image_link *link = &image->links[number];
	uint64_t count = link->header.index_count;
	int error = 0;

	for (uint64_t i = 0; i < count && !error; i++) {
		struct piece piece = {0, (uint64_t)number << 48 | i};

		piece.page = chain_piece_entry(image, &piece).page;
		error = chain_read_page(image, &piece, verify->buffer);
		verify->verified->pages += !error;
		if (!error)
			error = gauge_move(&verify->gauge, verify->before + verify_half(link->file_bytes, i, count));
	}
	return error;
}

/* What lies between the pages, too. */
static int verify_data(struct verify *verify, uint32_t number)
{
	struct uffdwp_image *image = verify->image;
	const struct image_link *link = &image->links[number];
	uint64_t end = link->header.index_offset;
	unsigned char *buffer = verify->buffer;
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	for (uint64_t at = DELTA_HEADER_BYTES; at < end; at += BUFFER_BYTES) {
		size_t part = (size_t)math_min_u64(BUFFER_BYTES, end - at);
		int error = io_read(image->k, link->fd, buffer, part, at);

		if (error)
			return chain_note_bad(image, error, number, at / image->page_bytes, at);
		XXH3_128bits_update(&state, buffer, part);
		error = gauge_move(&verify->gauge, verify->before + link->file_bytes / 2 + at / 2);
		if (error)
			return error;
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

static int verify_delta(struct verify *verify, uint32_t number)
{
	uint64_t file_bytes = verify->image->links[number].file_bytes;
	int error = verify_frame(verify->image, number);

	if (!error)
		error = verify_pages(verify, number);
	if (!error)
		error = verify_data(verify, number);
	if (error)
		return error;
	verify->verified->links++;
	verify->verified->bytes_read += file_bytes;
	verify->before += file_bytes;
	return gauge_move(&verify->gauge, verify->before);
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

/* What the call had counted before, and what the raw file adds. */
struct verify_base {
	struct gauge *gauge;
	uint64_t before;
};

static int verify_note_base(void *user, uint64_t at)
{
	const struct verify_base *counted = user;

	return gauge_move(counted->gauge, counted->before + at);
}

int chain_check_base(struct uffdwp_image *image, struct image_id *id, struct gauge *gauge)
{
	const struct image_link *base = chain_base(image);
	struct verify_base counted = {gauge, atomic_load(&gauge->done)};
	struct base_list list;
	unsigned char *buffer = pages_new(image->k, BUFFER_BYTES);
	int error = buffer ? base_open(&list, image->k, base->length_bytes) : -ENOMEM;

	if (error) {
		pages_free(image->k, buffer, BUFFER_BYTES);
		return text_fail(&image->text, error, "no list of the blocks of \"%s\": %s", base->path,
		                 base_refusal(error));
	}
	error = base_put_file(&list, base->fd, base->length_bytes, buffer, verify_note_base, &counted);
	*id = base_id(&list, base->length_bytes);
	base_close(&list);
	pages_free(image->k, buffer, BUFFER_BYTES);
	if (!error)
		error = gauge_move(gauge, counted.before + base->length_bytes);
	if (gauge_was_ended(gauge, &image->text))
		return error;
	if (error)
		return text_fail(&image->text, error, "\"%s\" cannot be read: %s", base->path,
		                 error == -EBADMSG ? "it became shorter" : errno_text(error));
	return chain_judge_base(image, *id);
}

int chain_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified)
{
	struct verify verify = {image, verified, pages_new(image->k, BUFFER_BYTES), .before = 0};
	struct image_id id = {0, 0};
	int error = verify.buffer ? 0 : text_fail(&image->text, -ENOMEM, "no memory for checking");

	gauge_begin(&verify.gauge, image, verify_total(image));
	for (uint32_t i = 0; i + 1 < image->link_count && !error; i++)
		error = verify_delta(&verify, i);
	pages_free(image->k, verify.buffer, BUFFER_BYTES);
	if (gauge_was_ended(&verify.gauge, &image->text))
		return error;
	if (!error)
		error = chain_check_base(image, &id, &verify.gauge);
	if (!error) {
		verified->links++;
		verified->bytes_read += chain_base(image)->length_bytes;
	}
	verified->raw_id = (struct uffdwp_image_id){id.low, id.high};
	return error ? error : gauge_end(&verify.gauge);
}
