/* SPDX-License-Identifier: MIT */
/* What is zero is left out of files: it stays a hole. */
#ifndef UFFDWP_IMAGE_ZEROS_H
#define UFFDWP_IMAGE_ZEROS_H

#include <stddef.h>
#include <string.h>

/* First byte zero, and every byte equal to its neighbour; libc's memcmp is as fast as memory. */
static inline int zeros_only(const unsigned char *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* The next run of bytes at or after `from` (a multiple of 4096, as `length` is) that are not all zeros; zeros of 16 KiB
 * and more are left out. 0: none. */
int zeros_next_run(const unsigned char *buffer, size_t length, size_t from, size_t *offset, size_t *run);

#endif
