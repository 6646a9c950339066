/* SPDX-License-Identifier: MIT */
/*
 * The loop's front door: chooses a kind once, when the loop is made, and hands every call through. Any refusal of
 * io_uring (no system call, a sysctl, seccomp, locked memory, an old kernel without what is needed) means epoll, which
 * has the same contract; what must never happen is that a caller has to know which one it got.
 */
#include "fault/loop.h"

#include <errno.h>

#include "fault/loop_private.h"

int loop_new(const struct kernel_ops *k, unsigned entries, int no_uring, struct loop **out)
{
	if (entries == 0)
		return -EINVAL;
	if (!no_uring && loop_uring_new(k, entries, out) == 0)
		return 0;
	return loop_epoll_new(k, entries, out);
}

void loop_free(struct loop *loop)
{
	if (loop)
		loop->ops->free(loop);
}

int loop_is_uring(const struct loop *loop)
{
	return loop->ops == &loop_uring_ops;
}

int loop_add(struct loop *loop, int fd, uint64_t token)
{
	return loop->ops->add(loop, fd, token);
}

int loop_remove(struct loop *loop, int fd, uint64_t token)
{
	return loop->ops->remove(loop, fd, token);
}

int loop_write(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	return loop->ops->write(loop, fd, buffer, length, offset, token);
}

int loop_read(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	return loop->ops->read(loop, fd, buffer, length, offset, token);
}

int loop_keep(struct loop *loop, int fd, const struct iovec *buffers, unsigned count)
{
	return loop->ops->keep ? loop->ops->keep(loop, fd, buffers, count) : -EOPNOTSUPP;
}

int loop_wait(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns)
{
	return loop->ops->wait(loop, events, max, timeout_ns);
}
