/* SPDX-License-Identifier: MIT */
/* Reads of files that are done whole or not at all. Async-signal-safe. */
#ifndef UFFDWP_IMAGE_IO_H
#define UFFDWP_IMAGE_IO_H

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "base/math.h"
#include "kernel/kernel.h"

/* 0, -errno, or -EBADMSG where the file ends too soon. */
static inline int io_read(const struct kernel_ops *k, int fd, void *buffer, size_t length, uint64_t offset)
{
	for (size_t at = 0; at < length;) {
		ssize_t got = k->pread(fd, (unsigned char *)buffer + at, length - at, offset + at);

		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? (int)got : -EBADMSG;
		at += (size_t)got;
	}
	return 0;
}

/* 1: nothing is stored in [offset, offset + length), which lies inside of the file; 0: it is, or it is unknown. */
static inline int io_is_hole(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t length)
{
	int64_t data = k->seek(fd, offset, SEEK_DATA);

	return data == -ENXIO || (data >= 0 && (uint64_t)data >= offset + length);
}

/* Where data begins in [offset, end), which lies inside of the file; `end`: there is none. What a file system answers
 * that is not so far is no answer, and then all is data. */
static inline uint64_t io_next_data(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end)
{
	int64_t data = k->seek(fd, offset, SEEK_DATA);

	if (data == -ENXIO)
		return end;
	return math_min_u64(data < 0 || (uint64_t)data < offset ? offset : (uint64_t)data, end);
}

#endif
