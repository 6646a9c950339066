/* SPDX-License-Identifier: MIT */
/* Workplaces for compressed pages, all made when the image is opened; see chain.h. */
#include <errno.h>

#include "base/math.h"
#include "image/chain.h"
#include "image/pack.h"
#include "kernel/backoff.h"
#include "kernel/pages.h"

static int unpack_has_packed_pages(const struct uffdwp_image *image)
{
	for (uint32_t i = 0; i < image->link_count; i++) {
		if (image->links[i].kinds[DELTA_ZSTD])
			return 1;
	}
	return 0;
}

int unpackers_open(struct uffdwp_image *image, unsigned count)
{
	size_t state_bytes = (size_t)math_round_up(pack_back_bytes(), 4096);
	size_t each = state_bytes + 2 * (size_t)image->page_bytes;

	if (!unpack_has_packed_pages(image))
		return 0;
	if (!pack_built())
		return -EOPNOTSUPP;
	image->unpacker_bytes = each * count;
	image->unpacker_memory = pages_new(image->k, image->unpacker_bytes);
	if (!image->unpacker_memory)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		unsigned char *memory = image->unpacker_memory + i * each;

		image->unpackers[i] = (struct unpacker){pack_back_init(memory, state_bytes), memory + state_bytes,
		                                        memory + state_bytes + image->page_bytes};
		if (!image->unpackers[i].state)
			return -ENOMEM;
	}
	image->unpacker_count = count;
	return 0;
}

void unpackers_close(struct uffdwp_image *image)
{
	pages_free(image->k, image->unpacker_memory, image->unpacker_bytes);
}

struct unpacker *unpacker_take(struct uffdwp_image *image)
{
	unsigned turn = BACKOFF_YIELD;

	for (;;) {
		uint64_t taken = atomic_load(&image->unpackers_taken);
		uint64_t idle = ~taken & math_low_bits(image->unpacker_count);

		if (!idle) {
			kernel_back_off(image->k, &turn); /* another thread is done in microseconds */
			continue;
		}
		uint64_t bit = idle & (~idle + 1);

		if (atomic_compare_exchange_weak(&image->unpackers_taken, &taken, taken | bit))
			return &image->unpackers[__builtin_ctzll(bit)];
	}
}

void unpacker_give(struct uffdwp_image *image, struct unpacker *unpacker)
{
	atomic_fetch_and(&image->unpackers_taken, ~(1ull << (unpacker - image->unpackers)));
}

int unpacker_run(struct unpacker *unpacker, size_t packed_bytes, void *to, size_t page_bytes)
{
	return pack_back_run(unpacker->state, unpacker->packed, packed_bytes, to, page_bytes);
}
