/* SPDX-License-Identifier: MIT */
/* See base.h. */
#include "image/base.h"

#include <endian.h>
#include <errno.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "image/hash.h"
#include "image/io.h"
#include "kernel/holes.h"
#include "kernel/pages.h"

/* Blocks whose hashes go into the id by one call. */
#define ID_BATCH 256

static uint64_t base_block_count(uint64_t length_bytes)
{
	return length_bytes / BASE_BLOCK_BYTES + (length_bytes % BASE_BLOCK_BYTES != 0);
}

int base_open(struct base_list *list, const struct kernel_ops *k, uint64_t length_bytes)
{
	list->k = k;
	list->blocks = NULL;
	if (length_bytes > BASE_LENGTH_MOST)
		return -EFBIG;
	list->most = base_block_count(length_bytes);
	list->blocks = pages_new(k, list->most * sizeof(*list->blocks) + 1);
	return list->blocks ? 0 : -ENOMEM;
}

const char *base_refusal(int error)
{
	return error == -EFBIG ? "it is longer than 128 TiB" : errno_text(error);
}

void base_close(struct base_list *list)
{
	if (list->blocks)
		pages_free(list->k, list->blocks, list->most * sizeof(*list->blocks) + 1);
	list->blocks = NULL;
}

void base_put(struct base_list *list, uint64_t offset, const void *data, size_t length)
{
	for (size_t at = 0; at < length; at += BASE_BLOCK_BYTES) {
		size_t part = (size_t)math_min_u64(BASE_BLOCK_BYTES, length - at);

		list->blocks[(offset + at) / BASE_BLOCK_BYTES] = hash_128((const unsigned char *)data + at, part);
	}
}

static void base_update_zeros(XXH3_state_t *state, uint64_t length)
{
	static const unsigned char zeros[4096];

	for (uint64_t at = 0; at < length; at += sizeof(zeros))
		XXH3_128bits_update(state, zeros, (size_t)math_min_u64(sizeof(zeros), length - at));
}

void base_put_runs(struct base_list *list, uint64_t offset, const void *data, size_t length,
                   const struct base_run *runs, size_t count)
{
	XXH3_state_t state;
	size_t at = 0;

	XXH3_128bits_reset(&state);
	for (size_t i = 0; i < count; i++) {
		base_update_zeros(&state, runs[i].start - at);
		XXH3_128bits_update(&state, (const unsigned char *)data + runs[i].start, runs[i].end - runs[i].start);
		at = runs[i].end;
	}
	base_update_zeros(&state, length - at);
	list->blocks[offset / BASE_BLOCK_BYTES] = hash_id(XXH3_128bits_digest(&state));
}

static struct image_id base_hash_zeros(uint64_t length)
{
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	base_update_zeros(&state, length);
	return hash_id(XXH3_128bits_digest(&state));
}

struct image_id base_id(const struct base_list *list, uint64_t length_bytes)
{
	struct image_id zeros = base_hash_zeros(BASE_BLOCK_BYTES);
	uint64_t count = base_block_count(length_bytes);
	uint64_t last = length_bytes % BASE_BLOCK_BYTES;
	uint64_t halves[2 * ID_BATCH];
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	for (uint64_t i = 0; i < count; i++) {
		struct image_id block = list->blocks[i];
		uint64_t *of = &halves[i % ID_BATCH * 2];

		if (identity_is_none(block))
			block = i == count - 1 && last ? base_hash_zeros(last) : zeros;
		of[0] = htole64(block.low);
		of[1] = htole64(block.high);
		if (i % ID_BATCH == ID_BATCH - 1 || i == count - 1)
			XXH3_128bits_update(&state, halves, (i % ID_BATCH + 1) * sizeof(struct image_id));
	}
	return hash_id(XXH3_128bits_digest(&state));
}

int base_put_file(struct base_list *list, int fd, uint64_t length_bytes, unsigned char *buffer, base_read_fn each,
                  void *user)
{
	for (uint64_t at = 0; at < length_bytes; at += BASE_BLOCK_BYTES) {
		at = holes_next_data(list->k, fd, at, length_bytes);
		if (at == length_bytes)
			break;
		at -= at % BASE_BLOCK_BYTES;
		size_t part = (size_t)math_min_u64(BASE_BLOCK_BYTES, length_bytes - at);
		int error = io_read(list->k, fd, buffer, part, at);

		if (error)
			return error;
		base_put(list, at, buffer, part);
		error = each ? each(user, at + part) : 0;
		if (error)
			return error;
	}
	return 0;
}
