/* SPDX-License-Identifier: MIT */
/*
 * Compression of a page, in memory of the caller: by zstd (pack_zstd.c), or none, in a library that was built without
 * it (pack_none.c): then pack_built() says so, a caller that wants to pack or unpack is refused, and nothing else is
 * called.
 *
 * Threads: any; a state is one thread's at a time. Nothing allocates; pack_back_run() is called in signal handlers.
 */
#ifndef UFFDWP_IMAGE_PACK_H
#define UFFDWP_IMAGE_PACK_H

#include <stddef.h>

/* 1, or 0: the library was built without zstd. */
int pack_built(void);

/* What the state takes to pack pages of so many bytes. */
size_t pack_bytes(int level, size_t page_bytes);

/* A state, or NULL: the memory does not do. */
void *pack_init(void *memory, size_t bytes);

/* The length of the packed page; 0: it would not be shorter than `length`, or not fit. */
size_t pack_run(void *state, int level, const void *page, size_t length, void *to, size_t room);

/* The same for unpacking. */
size_t pack_back_bytes(void);
void *pack_back_init(void *memory, size_t bytes);

/* 0 or -EBADMSG: not one frame that gives exactly so many bytes. */
int pack_back_run(void *state, const void *packed, size_t packed_bytes, void *to, size_t length);

#endif
