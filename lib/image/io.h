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

#endif
