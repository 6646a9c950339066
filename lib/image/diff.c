/* SPDX-License-Identifier: MIT */
/*
 * Two images, compared as they read: as ranges, and as the delta that leads from the one to the other. See chain.h.
 */
#include <errno.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/gauge.h"
#include "image/io.h"
#include "kernel/pages.h"

#define BLOCK_BYTES BASE_BLOCK_BYTES

struct compare {
	struct uffdwp_image *from;
	struct uffdwp_image *to;
	struct uffdwp_image_diff *diff;
	struct image_writer *writer; /* NULL: only ranges */
	unsigned char *buffers;      /* a block of each */
	struct image_id raw_id;      /* of from's base */
	uint64_t start;              /* of the range that is open */
	uint64_t end;                /* of it; equal: none is open */
	struct gauge gauge; /* counts bytes of the raw images that are checked first, then of what is compared */
};

/* Where an image has something that is not known to be zeros; looked for again only where that was passed. */
struct content {
	const struct uffdwp_image *image;
	uint64_t next; /* UINT64_MAX: nowhere */
	int is_known;
};

static uint64_t diff_next_content(struct content *content, uint64_t offset)
{
	uint64_t length_bytes = content->image->length_bytes;

	if (content->is_known && content->next >= offset)
		return content->next;
	content->is_known = 1;
	content->next = offset < length_bytes ? chain_skip_zeros(content->image, offset, UINT64_MAX) : length_bytes;
	if (content->next == length_bytes)
		content->next = UINT64_MAX;
	return content->next;
}

/* A block, zeros beyond the image's end. */
static int diff_read_block(struct uffdwp_image *image, uint64_t offset, unsigned char *buffer)
{
	size_t part =
	        offset < image->length_bytes ? (size_t)math_min_u64(BLOCK_BYTES, image->length_bytes - offset) : 0;

	memset(buffer + part, 0, BLOCK_BYTES - part);
	return part ? chain_read(image, offset, buffer, part) : 0;
}

static int diff_end_range(struct compare *compare)
{
	struct uffdwp_image_diff *diff = compare->diff;
	uint64_t length = compare->end - compare->start;

	if (!length)
		return 0;
	diff->ranges++;
	diff->bytes += length;
	int error = diff->callback ? diff->callback(diff->user, compare->start, length) : 0;

	compare->start = compare->end;
	return error;
}

/* A page that differs: joins the open range, or begins one. */
static int diff_add_page(struct compare *compare, uint64_t offset, uint64_t page_bytes)
{
	uint64_t most = compare->from->length_bytes > compare->to->length_bytes ? compare->from->length_bytes
	                                                                        : compare->to->length_bytes;
	int error = 0;

	if (offset != compare->end) {
		error = diff_end_range(compare);
		compare->start = offset;
	}
	compare->end = math_min_u64(offset + page_bytes, most);
	return error;
}

static int diff_compare_block(struct compare *compare, uint64_t offset)
{
	uint64_t page_bytes = compare->diff->page_bytes;
	unsigned char *one = compare->buffers;
	unsigned char *two = compare->buffers + BLOCK_BYTES;
	int error = diff_read_block(compare->from, offset, one);

	if (!error)
		error = diff_read_block(compare->to, offset, two);
	for (uint64_t at = 0; at < BLOCK_BYTES && !error; at += page_bytes) {
		if (memcmp(one + at, two + at, (size_t)page_bytes) == 0)
			continue;
		error = diff_add_page(compare, offset + at, page_bytes);
		if (!error && compare->writer && offset + at < compare->to->length_bytes)
			error = image_writer_put(compare->writer, (offset + at) / page_bytes, two + at);
	}
	return error;
}

/* Zeros of both are passed over, however long they are. */
static int diff_compare_all(struct compare *compare)
{
	struct content from = {.image = compare->from};
	struct content to = {.image = compare->to};
	uint64_t before = atomic_load(&compare->gauge.done);
	uint64_t offset = 0;
	int error = 0;

	while (!error) {
		offset = math_min_u64(diff_next_content(&from, offset), diff_next_content(&to, offset));
		if (offset == UINT64_MAX)
			break;
		offset -= offset % BLOCK_BYTES;
		error = diff_compare_block(compare, offset);
		offset += BLOCK_BYTES;
		if (!error)
			error = gauge_move(&compare->gauge, before + offset);
	}
	if (!error)
		error = diff_end_range(compare);
	return error ? error : gauge_end(&compare->gauge);
}

/* The text is from's, whichever image failed. */
static int diff_pass_text(struct compare *compare, int error)
{
	char line[sizeof(compare->to->text.line)];

	chain_form_text(compare->to);
	text_copy(&compare->to->text, line, sizeof(line));
	return text_fail(&compare->from->text, error, "%s", line);
}

static int diff_checks_from(const struct compare *compare)
{
	return compare->from->link_count > 1 || compare->diff->path;
}

static int diff_checks_to(const struct compare *compare)
{
	return compare->to->link_count > 1;
}

static uint64_t diff_total(const struct compare *compare)
{
	const struct uffdwp_image *from = compare->from;
	const struct uffdwp_image *to = compare->to;

	return (diff_checks_from(compare) ? chain_base(from)->length_bytes : 0) +
	       (diff_checks_to(compare) ? chain_base(to)->length_bytes : 0) +
	       (from->length_bytes > to->length_bytes ? from->length_bytes : to->length_bytes);
}

static int diff_check_bases(struct compare *compare)
{
	struct image_id id;
	int error = 0;

	if (diff_checks_from(compare))
		error = chain_check_base(compare->from, &compare->raw_id, &compare->gauge);
	if (error || !diff_checks_to(compare))
		return error;
	error = chain_check_base(compare->to, &id, &compare->gauge);
	return error ? diff_pass_text(compare, error) : 0;
}

static int diff_open_writer(struct compare *compare)
{
	const struct uffdwp_image_diff *diff = compare->diff;
	const struct image_link *newest = &compare->from->links[0];
	struct image_writer_options options = {
	        .path = diff->path,
	        .flags = IMAGE_FILE_NO_URING, /* the thread is the caller's: its callback runs here, too */
	        .mode = diff->mode,
	        .compress = diff->compress,
	        .page_bytes = diff->page_bytes,
	        .region_page_bytes = newest->is_raw ? diff->page_bytes : newest->header.region_page_bytes,
	        .pages_most = format_delta_pages(compare->to->length_bytes, diff->page_bytes),
	};
	struct text *text = &compare->from->text;
	int error = chain_check_target(compare->from, diff->path, text);

	if (!error)
		error = chain_check_target(compare->to, diff->path, text);
	return error ? error : image_writer_open(compare->from->k, &options, text, &compare->writer);
}

static int diff_finish(struct compare *compare, int error)
{
	struct image_parent parent;
	struct image_identity identity;
	struct text *text = &compare->from->text;

	if (gauge_was_ended(&compare->gauge, text))
		return error;
	if (error && atomic_load(&compare->to->bad))
		return diff_pass_text(compare, error);
	if (error && !atomic_load(&compare->from->bad))
		return text_fail(text, error, "the comparison ended early: %s", errno_text(error));
	if (error || !compare->writer)
		return error;
	chain_as_parent(compare->from, compare->raw_id, &parent);
	return image_writer_commit(compare->writer, &parent, compare->to->length_bytes, &identity, text);
}

int chain_diff(struct uffdwp_image *from, struct uffdwp_image *to, struct uffdwp_image_diff *diff)
{
	struct compare compare = {.from = from, .to = to, .diff = diff};

	gauge_begin(&compare.gauge, from, diff_total(&compare));
	int error = diff_check_bases(&compare);

	diff->page_bytes = from->links[0].is_raw ? to->page_bytes : from->page_bytes;
	if (!error && diff->path)
		error = diff_open_writer(&compare);
	if (error)
		return error;
	compare.buffers = pages_new(from->k, 2 * BLOCK_BYTES);
	error = compare.buffers ? diff_compare_all(&compare) : -ENOMEM;
	error = diff_finish(&compare, error);
	if (compare.writer)
		image_writer_close(compare.writer, !error);
	pages_free(from->k, compare.buffers, 2 * BLOCK_BYTES);
	return error;
}
