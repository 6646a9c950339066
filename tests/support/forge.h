/* SPDX-License-Identifier: MIT */
/*
 * Deltas that are wrong in what they say, and right in their checksums: what lies after the checks of sums is reached.
 *
 * Two functions: forge_repair() makes the sums of any bytes right, and forge_delta() builds a delta from a few bytes of
 * input, with places that the input overwrites before (or after) the sums are made.
 */
#ifndef SUPPORT_FORGE_H
#define SUPPORT_FORGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/identity.h"
#include "image/format.h"

/* The input, read from the front; zeros where it has ended. */
struct forge_input {
	const uint8_t *at;
	size_t left;
};

uint8_t forge_take8(struct forge_input *input);
uint64_t forge_take(struct forge_input *input, size_t bytes);

/* 8 bytes, or often a number that programs stumble over. */
uint64_t forge_take_number(struct forge_input *input);

#define FORGE_BYTES_MOST (1u << 20)

/* A file: `bytes` and from there to `length` zeros that are stored nowhere. */
struct forged {
	uint8_t *bytes; /* FORGE_BYTES_MOST */
	size_t stored;
	uint64_t length;
	uint64_t content_bytes; /* length of the memory that it says it shows */
	uint64_t page_bytes;
	struct image_id id;
	int is_raw;
};

/* A raw image of up to 256 KiB, with holes. */
void forge_raw(struct forge_input *input, struct forged *out);

/* A delta whose parent is `parent`. */
void forge_delta(struct forge_input *input, const struct forged *parent, struct forged *out);

/* Makes the checksums of a delta's bytes right, as far as its header says where they are. */
void forge_repair(uint8_t *bytes, size_t size);

/* Makes header and trailer agree with the length of the file, and with a parent. */
void forge_fit(uint8_t *bytes, size_t size, const struct forged *parent);

/* A descriptor of a file in memory that holds it. */
int forge_file(const struct forged *forged);

/* "/proc/self/fd/N" */
#define FORGE_PATH_BYTES 32
void forge_path(int fd, char path[FORGE_PATH_BYTES]);

/* Ends the program where `holds` is 0: what must hold for every input. */
void forge_must(int holds, const char *what);

/* The folder for files of a fuzzer: UFFDWP_FUZZ_SCRATCH, which tests/fuzz/run.sh removes, else one in memory where the
 * system has such a folder. */
const char *forge_scratch(void);

#endif
