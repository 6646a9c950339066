/* SPDX-License-Identifier: MIT */
/*
 * The loop over epoll, pread(2) and pwrite(2).
 *
 * Descriptors are watched edge-triggered: one wake-up each time one becomes readable, as with a multishot poll. A write
 * is done at once, in loop_write(), and a read in loop_read(); its result waits in a queue and is reported by the next
 * loop_wait(), so that a caller meets the same order of things as with io_uring. A wait that finds results in the queue
 * fills at most half the room from it, so that writes and faults cannot starve each other.
 *
 * Threads: the owner's only. What must never happen: a result is dropped. The queue has room for every entry, and a
 * write that finds no entry is refused before it is done.
 */
#include <errno.h>
#include <linux/time_types.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/loop_private.h"
#include "kernel/abi.h"
#include "kernel/own.h"

#define BATCH 64

struct done {
	enum loop_kind kind;
	uint64_t token;
	int result;
};

struct loop_epoll {
	struct loop loop;
	int epoll;
	int tag;              /* of the epoll, see kernel/own.h */
	int is_sure;          /* the epoll is ours still: it has just brought an event */
	int coarse;           /* 1: no epoll_pwait2(2) here (Linux 5.11), time-outs are rounded up to milliseconds */
	unsigned entries;     /* most descriptors plus results */
	unsigned descriptors; /* watched */
	unsigned first;       /* oldest result in the queue */
	unsigned count;       /* results in the queue */
	struct done done[];   /* `entries` of them, a circle */
};

static struct loop_epoll *loop_epoll_from_loop(struct loop *loop)
{
	return (struct loop_epoll *)loop;
}

int loop_epoll_new(const struct kernel_ops *k, unsigned entries, struct loop **out)
{
	size_t size = sizeof(struct loop_epoll) + (size_t)entries * sizeof(((struct loop_epoll *)0)->done[0]);
	struct loop_epoll *self = pages_new(k, size);

	if (!self)
		return -ENOMEM;
	self->loop.ops = &loop_epoll_ops;
	self->loop.k = k;
	self->loop.size_bytes = size;
	self->entries = entries;
	self->epoll = k->epoll_create();
	self->tag = own_new();
	int error = self->epoll < 0 ? self->epoll : own_take(k, self->epoll, self->tag);

	if (error) {
		pages_free(k, self, size);
		return error;
	}
	*out = &self->loop;
	return 0;
}

static void epoll_free(struct loop *loop)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);

	own_close(loop->k, self->epoll, self->tag);
	pages_free(loop->k, self, loop->size_bytes);
}

static int loop_epoll_check(const struct loop *loop)
{
	const struct loop_epoll *self = (const struct loop_epoll *)loop;

	return own_check(loop->k, self->epoll, self->tag);
}

static int loop_epoll_is_full(const struct loop_epoll *self)
{
	return self->descriptors + self->count >= self->entries;
}

static int epoll_add(struct loop *loop, int fd, uint64_t token)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = token};

	if (loop_epoll_is_full(self))
		return -EAGAIN;
	if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	self->descriptors++;
	return 0;
}

static int epoll_remove(struct loop *loop, int fd, uint64_t token)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);

	(void)token; /* epoll knows a descriptor by its number */
	if (epoll_ctl(self->epoll, EPOLL_CTL_DEL, fd, NULL) < 0)
		return -errno;
	self->descriptors--;
	return 0;
}

static int loop_epoll_note_done(struct loop_epoll *self, enum loop_kind kind, uint64_t token, ssize_t result)
{
	self->done[(self->first + self->count) % self->entries] = (struct done){kind, token, (int)result};
	self->count++;
	return 0;
}

static size_t loop_epoll_at_most(size_t length)
{
	return length < INT32_MAX ? length : INT32_MAX;
}

static int epoll_write(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);

	if (loop_epoll_is_full(self))
		return -EAGAIN;
	return loop_epoll_note_done(self, LOOP_WRITTEN, token,
	                            loop->k->pwrite(fd, buffer, loop_epoll_at_most(length), offset));
}

static int epoll_read(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);

	if (loop_epoll_is_full(self))
		return -EAGAIN;
	return loop_epoll_note_done(self, LOOP_READ, token,
	                            loop->k->pread(fd, buffer, loop_epoll_at_most(length), offset));
}

static unsigned loop_epoll_take_done(struct loop_epoll *self, struct loop_event *events, unsigned max)
{
	unsigned n;

	for (n = 0; n < max && self->count > 0; n++) {
		const struct done *slot = &self->done[self->first];

		events[n] = (struct loop_event){slot->kind, slot->result, slot->token};
		self->first = (self->first + 1) % self->entries;
		self->count--;
	}
	return n;
}

static int loop_epoll_to_ms(uint64_t timeout_ns)
{
	uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);

	if (timeout_ns == UINT64_MAX)
		return -1;
	return ms < INT32_MAX ? (int)ms : INT32_MAX;
}

/* A system call by number is no cancellation point, and threads of the library are ended by pthread_cancel(3): a thread
 * that waits so looks before, and returns at the time-out. */
static int loop_epoll_wait_fine(struct loop_epoll *self, struct epoll_event *events, int max, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {.tv_sec = (int64_t)(timeout_ns / 1000000000),
	                               .tv_nsec = (int64_t)(timeout_ns % 1000000000)};

	pthread_testcancel();
	long n = syscall(SYS_epoll_pwait2, self->epoll, events, max, &ts, NULL, (size_t)0);

	return n < 0 ? -errno : (int)n;
}

/* 0 at the time-out or a signal. A wait without a bound is the C library's, a cancellation point. */
static int loop_epoll_wait_readable(struct loop_epoll *self, struct epoll_event *events, int max, uint64_t timeout_ns)
{
	int is_coarse = self->coarse || timeout_ns == UINT64_MAX;
	int n = is_coarse ? -ENOSYS : loop_epoll_wait_fine(self, events, max, timeout_ns);

	if (n == -ENOSYS || n == -EPERM) { /* EPERM: a seccomp filter that does not know the call */
		self->coarse |= !is_coarse;
		n = epoll_wait(self->epoll, events, max, loop_epoll_to_ms(timeout_ns));
		n = n < 0 ? -errno : n;
	}
	return n == -EINTR ? 0 : n;
}

static int epoll_wait_loop(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns)
{
	struct loop_epoll *self = loop_epoll_from_loop(loop);
	struct epoll_event ready[BATCH];
	unsigned n = loop_epoll_take_done(self, events, max - max / 2);
	unsigned room = max - n < BATCH ? max - n : BATCH;
	int readable = self->is_sure ? 0 : loop_epoll_check(loop);

	if (room > 0 && !readable)
		readable = loop_epoll_wait_readable(self, ready, (int)room, n > 0 ? 0 : timeout_ns);
	/* After an event the next wait needs no look, which would cost a twentieth of a fault. A program that closes
	 * just this number, once, and puts an epoll of its own there is found by the next loop_check(). */
	self->is_sure = readable > 0;
	if (readable < 0)
		return n > 0 ? (int)n : readable;
	for (int i = 0; i < readable; i++)
		events[n++] = (struct loop_event){LOOP_READABLE, (int)ready[i].events, ready[i].data.u64};
	return (int)n;
}

const struct loop_ops loop_epoll_ops = {
        .free = epoll_free,
        .add = epoll_add,
        .remove = epoll_remove,
        .write = epoll_write,
        .read = epoll_read,
        .wait = epoll_wait_loop,
        .check = loop_epoll_check,
};
