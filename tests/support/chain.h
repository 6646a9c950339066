/* SPDX-License-Identifier: MIT */
/*
 * A chain of images in a folder, and its shadow: what the newest one must show. Each step changes the shadow at random,
 * grows or shrinks it, and writes a delta of exactly the pages that changed.
 */
#ifndef SUPPORT_CHAIN_H
#define SUPPORT_CHAIN_H

#include <stddef.h>
#include <stdint.h>

#include "chance.h"
#include "image/writer.h"
#include "scratch.h"

#define CHAIN_SHADOW_MOST (3u << 20)

struct test_chain {
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH]; /* of the newest */
	uint8_t *shadow;         /* CHAIN_SHADOW_MOST bytes, zeros beyond the length */
	size_t length;
	size_t page_bytes;
	unsigned count; /* deltas */
	struct image_parent newest;
	struct chance chance;
};

/* A raw image "base" of random content with holes. */
void test_chain_begin(struct test_chain *chain, size_t page_bytes, size_t length, uint64_t salt);

/* A delta "delta-N" more: a level of zstd (of a library that was built without it: none), and the length that the image
 * has then. */
void test_chain_step(struct test_chain *chain, uint32_t compress, size_t length);

/* The same, not compressed, of this page alone. */
void test_chain_step_page(struct test_chain *chain, size_t page, size_t length);
void test_chain_end(struct test_chain *chain);

/* The id of a raw file. */
struct image_id test_chain_raw_id(const char *path, size_t length);

/* 1: what a chain shows is exactly these bytes, by one read and by parts. */
int test_chain_shows(const char *path, const uint8_t *bytes, size_t length, struct chance *chance);

#endif
