/* SPDX-License-Identifier: MIT */
/* pack.h in a library that was built without zstd. */
#include <errno.h>

#include "image/pack.h"

int pack_built(void)
{
	return 0;
}

size_t pack_bytes(int level, size_t page_bytes)
{
	(void)level;
	(void)page_bytes;
	return 0;
}

void *pack_init(void *memory, size_t bytes)
{
	(void)memory;
	(void)bytes;
	return NULL;
}

size_t pack_run(void *state, int level, const void *page, size_t length, void *to, size_t room)
{
	(void)state;
	(void)level;
	(void)page;
	(void)length;
	(void)to;
	(void)room;
	return 0;
}

size_t pack_back_bytes(void)
{
	return 0;
}

void *pack_back_init(void *memory, size_t bytes)
{
	return pack_init(memory, bytes);
}

int pack_back_run(void *state, const void *packed, size_t packed_bytes, void *to, size_t length)
{
	(void)state;
	(void)packed;
	(void)packed_bytes;
	(void)to;
	(void)length;
	return -EBADMSG;
}
