/* SPDX-License-Identifier: MIT */
/* See uring.h. */
#include "kernel/uring.h"

#include "base/thread.h"

struct uring_making {
	const struct kernel_ops *k;
	struct io_uring *ring;
	unsigned entries;
	unsigned flags;
	int result;
};

static void *uring_make(void *argument)
{
	struct uring_making *making = argument;

	making->result = making->k->uring_init(making->entries, making->ring, making->flags);
	return NULL;
}

int uring_make_apart(const struct kernel_ops *k, unsigned entries, struct io_uring *ring, unsigned flags)
{
	struct uring_making making = {.k = k, .ring = ring, .entries = entries, .flags = flags};
	int error = thread_apart(uring_make, &making);

	return error ? error : making.result;
}
