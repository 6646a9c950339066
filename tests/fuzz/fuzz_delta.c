/* SPDX-License-Identifier: MIT */
/*
 * The input is a delta's file. What mutates it makes its checksums right again, most of the time, so that the checks
 * after those of the sums are reached; where there is no input yet, one is built. It is opened over a raw image, read,
 * and verified: what verify finds whole must be readable, and all that a look at extents says must be what is read.
 *
 * fuzz-options: -max_len=65536
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forge.h"
#include "uffdwp.h"
#include "visit.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t base_bytes[FORGE_BYTES_MOST];
static uint8_t scratch_bytes[FORGE_BYTES_MOST];

static const struct forged *base(void)
{
	static struct forged raw = {.bytes = base_bytes};
	struct forge_input input = {(const uint8_t *)"\x0a\x01", 2};

	if (!raw.is_raw)
		forge_raw(&input, &raw);
	return &raw;
}

/* A new delta by a few random bytes. */
static size_t build(uint8_t *data, size_t most, unsigned seed)
{
	uint8_t bytes[48];
	struct forge_input input = {bytes, sizeof(bytes)};
	struct forged delta = {.bytes = scratch_bytes};

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
	bytes[0] &= 0x78; /* small pages */
	bytes[1] = 0;     /* no patch */
	forge_delta(&input, base(), &delta);
	if (delta.stored > most)
		return 0;
	memcpy(data, delta.bytes, delta.stored);
	return delta.stored;
}

/* One part of the file is mutated in its place: the header's fields, the index and the trailer, or anything. */
static void mutate_part(uint8_t *data, size_t size, unsigned seed)
{
	size_t start = seed % 4 == 0 ? 0 : seed % 4 == 1 ? size - size % 4096 : seed % size;
	size_t length = size - start;

	if (seed % 4 == 0)
		length = 384;
	else if (length > 64 && seed % 4 > 1)
		length = 64;
	memcpy(scratch_bytes, data + start, length);
	size_t got = LLVMFuzzerMutate(scratch_bytes, length, length);

	memcpy(data + start, scratch_bytes, got < length ? got : length);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
	if (size < DELTA_HEADER_BYTES + DELTA_TRAILER_BYTES)
		return build(data, most, seed);
	if (seed % 16 == 0)
		size = LLVMFuzzerMutate(data, size, most);
	else
		mutate_part(data, size, seed / 16);
	if (seed % 8 < 4)
		forge_fit(data, size, base());
	if (seed % 32 != 7)
		forge_repair(data, size);
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct forged delta = {.bytes = scratch_bytes, .stored = size, .length = size};

	if (size > FORGE_BYTES_MOST)
		return 0;
	if (size > 0)
		memcpy(scratch_bytes, data, size);
	struct visit visit;

	visit_begin(&visit);
	visit_add(&visit, &delta);
	visit_add(&visit, base());
	struct uffdwp_image *image = visit_open(&visit, 0);

	if (image) {
		visit_look(image);
		visit_verify(image);
		(void)uffdwp_image_close(image);
	}
	visit_end(&visit);
	return 0;
}
