/* SPDX-License-Identifier: MIT */
/*
 * The identity of an image: 128 bits that follow from its content, and how a file that was written just now is
 * recognized without being read.
 */
#ifndef UFFDWP_BASE_IDENTITY_H
#define UFFDWP_BASE_IDENTITY_H

#include <stdint.h>

/* All zeros: none. */
struct image_id {
	uint64_t low;
	uint64_t high;
};

/* An image that was committed, and the file that it was then. */
struct image_identity {
	struct image_id id;
	int is_raw;
	uint64_t device;
	uint64_t inode;
	int64_t modified_s; /* and ns: when it was written last */
	int64_t modified_ns;
	uint64_t file_bytes;
	uint64_t length_bytes; /* of the region that it shows */
};

static inline int identity_equal(struct image_id a, struct image_id b)
{
	return a.low == b.low && a.high == b.high;
}

static inline int identity_is_none(struct image_id id)
{
	return id.low == 0 && id.high == 0;
}

#endif
