/* SPDX-License-Identifier: MIT */
/* See base.h. */
#include "image/base.h"

#include <endian.h>
#include <errno.h>

#include "base/math.h"
#include "image/hash.h"
#include "image/io.h"
#include "region/region.h"

static uint64_t block_count(uint64_t length_bytes)
{
	return length_bytes / BASE_BLOCK_BYTES + (length_bytes % BASE_BLOCK_BYTES != 0);
}

int base_open(struct base_list *list, const struct kernel_ops *k, uint64_t length_bytes)
{
	list->k = k;
	list->most = block_count(length_bytes);
	list->blocks = pages_new(k, list->most * sizeof(*list->blocks) + 1);
	return list->blocks ? 0 : -ENOMEM;
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
		size_t part = (size_t)min_u64(BASE_BLOCK_BYTES, length - at);

		list->blocks[(offset + at) / BASE_BLOCK_BYTES] = hash128((const unsigned char *)data + at, part);
	}
}

static void update_zeros(XXH3_state_t *state, uint64_t length)
{
	static const unsigned char zeros[4096];

	for (uint64_t at = 0; at < length; at += sizeof(zeros))
		XXH3_128bits_update(state, zeros, (size_t)min_u64(sizeof(zeros), length - at));
}

void base_put_runs(struct base_list *list, uint64_t offset, const void *data, size_t length,
                   const struct base_run *runs, size_t count)
{
	XXH3_state_t state;
	size_t at = 0;

	XXH3_128bits_reset(&state);
	for (size_t i = 0; i < count; i++) {
		update_zeros(&state, runs[i].start - at);
		XXH3_128bits_update(&state, (const unsigned char *)data + runs[i].start, runs[i].end - runs[i].start);
		at = runs[i].end;
	}
	update_zeros(&state, length - at);
	list->blocks[offset / BASE_BLOCK_BYTES] = hash_id(XXH3_128bits_digest(&state));
}

static struct image_id hash_zeros(uint64_t length)
{
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	update_zeros(&state, length);
	return hash_id(XXH3_128bits_digest(&state));
}

struct image_id base_id(const struct base_list *list, uint64_t length_bytes)
{
	struct image_id zeros = hash_zeros(BASE_BLOCK_BYTES);
	uint64_t count = block_count(length_bytes);
	uint64_t last = length_bytes % BASE_BLOCK_BYTES;
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	for (uint64_t i = 0; i < count; i++) {
		struct image_id block = list->blocks[i];

		if (image_id_is_none(block))
			block = i == count - 1 && last ? hash_zeros(last) : zeros;
		uint64_t halves[2] = {htole64(block.low), htole64(block.high)};

		XXH3_128bits_update(&state, halves, sizeof(halves));
	}
	return hash_id(XXH3_128bits_digest(&state));
}

int base_put_file(struct base_list *list, int fd, uint64_t length_bytes, unsigned char *buffer)
{
	int error = 0;

	for (uint64_t at = 0; at < length_bytes && !error; at += BASE_BLOCK_BYTES) {
		size_t part = (size_t)min_u64(BASE_BLOCK_BYTES, length_bytes - at);

		if (io_is_hole(list->k, fd, at, part))
			continue;
		error = io_read(list->k, fd, buffer, part, at);
		if (!error)
			base_put(list, at, buffer, part);
	}
	return error;
}
