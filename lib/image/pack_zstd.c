/* SPDX-License-Identifier: MIT */
/* pack.h by zstd. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <errno.h>

#include "image/pack.h"

int pack_built(void)
{
	return 1;
}

size_t pack_bytes(int level, size_t page_bytes)
{
	return ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, page_bytes, 0));
}

void *pack_init(void *memory, size_t bytes)
{
	return ZSTD_initStaticCCtx(memory, bytes);
}

size_t pack_run(void *state, int level, const void *page, size_t length, void *to, size_t room)
{
	size_t packed = ZSTD_compressCCtx(state, to, room, page, length, level);

	return ZSTD_isError(packed) || packed >= length ? 0 : packed;
}

size_t pack_back_bytes(void)
{
	return ZSTD_estimateDCtxSize();
}

void *pack_back_init(void *memory, size_t bytes)
{
	return ZSTD_initStaticDCtx(memory, bytes);
}

int pack_back_run(void *state, const void *packed, size_t packed_bytes, void *to, size_t length)
{
	/* one frame: zstd itself would take several, and frames to be skipped */
	if (ZSTD_findFrameCompressedSize(packed, packed_bytes) != packed_bytes)
		return -EBADMSG;
	size_t got = ZSTD_decompressDCtx(state, to, length, packed, packed_bytes);

	return ZSTD_isError(got) || got != length ? -EBADMSG : 0;
}
