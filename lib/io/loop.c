/* SPDX-License-Identifier: MIT */
/*
 * The loop's front door: chooses a kind when the loop is made, and hands every call through. Any refusal of io_uring
 * (no system call, a sysctl, seccomp, locked memory, an old kernel without what is needed) means epoll, which has the
 * same contract; a caller must never have to know which one it got.
 *
 * A program may forbid io_uring to itself later, by a seccomp filter. Then epoll becomes the ring's heir: descriptors
 * are watched on, reads and writes that were under way end with the kernel's error.
 */
#include "io/loop.h"

#include <errno.h>

#include "io/loop_private.h"

int loop_new(const struct kernel_ops *k, unsigned entries, int no_uring, struct loop **out)
{
	if (entries == 0)
		return -EINVAL;
	if (!no_uring && loop_uring_new(k, entries, out) == 0)
		return 0;
	return loop_epoll_new(k, entries, out);
}

static struct loop *loop_serving(struct loop *loop)
{
	return loop->heir ? loop->heir : loop;
}

/* What a seccomp filter that came after the loop answers (EPERM, EACCES, ENOSYS), and no ring that works. */
static int loop_is_refused(const struct loop *loop, int result)
{
	return (result == -EPERM || result == -EACCES || result == -ENOSYS) && !loop->heir && loop_is_uring(loop);
}

/* 1: epoll serves from now on, and the call is to be made once more. */
static int loop_replaced(struct loop *loop, int result)
{
	return loop_is_refused(loop, result) && loop_uring_bequeath(loop, result, &loop->heir) == 0;
}

void loop_free(struct loop *loop)
{
	if (loop && loop->heir)
		loop->heir->ops->free(loop->heir);
	if (loop)
		loop->ops->free(loop);
}

int loop_is_uring(const struct loop *loop)
{
	return loop->ops == &loop_uring_ops && !loop->heir;
}

int loop_add(struct loop *loop, int fd, uint64_t token)
{
	struct loop *serving = loop_serving(loop);
	int result = serving->ops->add(serving, fd, token);

	return loop_replaced(loop, result) ? loop->heir->ops->add(loop->heir, fd, token) : result;
}

int loop_remove(struct loop *loop, int fd, uint64_t token)
{
	struct loop *serving = loop_serving(loop);
	int result = serving->ops->remove(serving, fd, token);

	return loop_replaced(loop, result) ? loop->heir->ops->remove(loop->heir, fd, token) : result;
}

int loop_write(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop *serving = loop_serving(loop);
	int result = serving->ops->write(serving, fd, buffer, length, offset, token);

	if (!loop_replaced(loop, result))
		return result;
	return loop->heir->ops->write(loop->heir, fd, buffer, length, offset, token);
}

int loop_read(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop *serving = loop_serving(loop);
	int result = serving->ops->read(serving, fd, buffer, length, offset, token);

	if (!loop_replaced(loop, result))
		return result;
	return loop->heir->ops->read(loop->heir, fd, buffer, length, offset, token);
}

int loop_keep(struct loop *loop, int fd, const struct iovec *buffers, unsigned count)
{
	struct loop *serving = loop_serving(loop);

	return serving->ops->keep ? serving->ops->keep(serving, fd, buffers, count) : -EOPNOTSUPP;
}

int loop_wait(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns)
{
	struct loop *serving = loop_serving(loop);
	unsigned left = loop->heir ? loop_uring_left(loop, events, max) : 0;

	if (left)
		return (int)left;
	int result = serving->ops->wait(serving, events, max, timeout_ns);

	return loop_replaced(loop, result) ? loop_wait(loop, events, max, timeout_ns) : result;
}

int loop_check(const struct loop *loop)
{
	const struct loop *serving = loop->heir ? loop->heir : loop;

	return serving->ops->check ? serving->ops->check(serving) : 0;
}
