/* SPDX-License-Identifier: MIT */
/*
 * The checksums of images: XXH3 of the xxhash library, compiled in, so that a read in a signal handler calls nothing
 * outside. They find damage; they do not stop a deliberate forgery.
 */
#ifndef UFFDWP_IMAGE_HASH_H
#define UFFDWP_IMAGE_HASH_H

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "base/identity.h"

static inline struct image_id hash_id(XXH128_hash_t hash)
{
	return (struct image_id){hash.low64, hash.high64};
}

static inline uint64_t hash_64(const void *data, size_t length)
{
	return XXH3_64bits(data, length);
}

static inline struct image_id hash_128(const void *data, size_t length)
{
	return hash_id(XXH3_128bits(data, length));
}

#endif
