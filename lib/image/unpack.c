/* SPDX-License-Identifier: MIT */
/* Workplaces for compressed pages, all made when the image is opened; see chain.h. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <errno.h>
#include <sched.h>

#include "base/math.h"
#include "image/chain.h"
#include "region/region.h"

static int has_packed_pages(const struct uffdwp_image *image)
{
	for (uint32_t i = 0; i < image->link_count; i++) {
		if (image->links[i].kinds[DELTA_ZSTD])
			return 1;
	}
	return 0;
}

int unpackers_open(struct uffdwp_image *image, unsigned count)
{
	size_t zstd_bytes = (size_t)round_up(ZSTD_estimateDCtxSize(), 4096);
	size_t each = zstd_bytes + 2 * (size_t)image->page_bytes;

	if (!has_packed_pages(image))
		return 0;
	image->unpacker_bytes = each * count;
	image->unpacker_memory = pages_new(image->k, image->unpacker_bytes);
	if (!image->unpacker_memory)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		unsigned char *memory = image->unpacker_memory + i * each;

		image->unpackers[i] = (struct unpacker){ZSTD_initStaticDCtx(memory, zstd_bytes), memory + zstd_bytes,
		                                        memory + zstd_bytes + image->page_bytes};
		if (!image->unpackers[i].zstd)
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
	for (;;) {
		uint64_t taken = atomic_load(&image->unpackers_taken);
		uint64_t idle = ~taken & low_bits(image->unpacker_count);

		if (!idle) {
			sched_yield(); /* another thread is done in microseconds */
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
	size_t got = ZSTD_decompressDCtx(unpacker->zstd, to, page_bytes, unpacker->packed, packed_bytes);

	return ZSTD_isError(got) || got != page_bytes ? -EBADMSG : 0;
}
