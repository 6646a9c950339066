/* SPDX-License-Identifier: MIT */
/*
 * A digest of bytes in their order, to compare an image with the memory at its cut. It detects differences that happen,
 * not ones that were made on purpose.
 */
#ifndef UFFDWP_BENCH_DIGEST_H
#define UFFDWP_BENCH_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_START 0x9e3779b97f4a7c15u

/* The digest of what `digest` stands for, followed by these bytes; length a multiple of 8. */
uint64_t digest_bytes(uint64_t digest, const void *bytes, size_t length);

/* The digest of a whole file; ends the program unless it has `length` bytes. */
uint64_t digest_file(const char *path, uint64_t length);

#endif
