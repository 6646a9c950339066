/* SPDX-License-Identifier: MIT */
/*
 * The identity of a raw image: XXH3-128 over the list of the XXH3-128 (low half first, little-endian) of each 1 MiB of
 * it, the last one as long as it is. The blocks may come in any order; those that never come hold zeros.
 *
 * Threads: base_put() of different blocks by several at once.
 */
#ifndef UFFDWP_IMAGE_BASE_H
#define UFFDWP_IMAGE_BASE_H

#include <stddef.h>

#include "base/identity.h"
#include "kernel/kernel.h"

#define BASE_BLOCK_BYTES (1ull << 20)

/* The list takes 16 bytes of each block, holes too, and all of it is hashed: a longer file is not worth the wait. */
#define BASE_LENGTH_MOST (1ull << 47)

struct base_list {
	const struct kernel_ops *k;
	struct image_id *blocks; /* all zeros: has not come */
	uint64_t most;
};

/* For an image of up to length_bytes. 0, -EFBIG (above BASE_LENGTH_MOST), -ENOMEM. */
int base_open(struct base_list *list, const struct kernel_ops *k, uint64_t length_bytes);
void base_close(struct base_list *list);

/* The bytes of [offset, offset + length): whole blocks, but for the image's last. */
void base_put(struct base_list *list, uint64_t offset, const void *data, size_t length);

/* Bytes [start, end) of a block. */
struct base_run {
	size_t start;
	size_t end;
};

/* One block whose bytes are `data` in these runs, which are in order, and zeros elsewhere: there nothing is looked at.
 */
void base_put_runs(struct base_list *list, uint64_t offset, const void *data, size_t length,
                   const struct base_run *runs, size_t count);

/* The id of an image of length_bytes. */
struct image_id base_id(const struct base_list *list, uint64_t length_bytes);

/* Why base_open() failed, after "no list of the blocks of ...: ". */
const char *base_refusal(int error);

/* The bytes before `at` were read, or are holes. Not 0: the reading ends with it. */
typedef int (*base_read_fn)(void *user, uint64_t at);

/* Reads the blocks of a file, holes not at all; -errno, -EBADMSG where the file ends too soon, or what `each` returned,
 * which is called after each block. */
int base_put_file(struct base_list *list, int fd, uint64_t length_bytes, unsigned char *buffer, base_read_fn each,
                  void *user);

#endif
