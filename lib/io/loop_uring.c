/* SPDX-License-Identifier: MIT */
/*
 * The loop over io_uring.
 *
 * Words: a slot stands for one watched descriptor, one read or one write; its number is what the kernel gives back with
 * each completion. A slot is flying while the kernel has its request; a multishot poll flies on until a completion
 * without IORING_CQE_F_MORE lands it, and is then sent again. A slot that has something to report is ready: it stands
 * in one list, once, whatever number of completions came, so that nothing is lost however long the caller looks away (a
 * removal waits for completions and finds those of others too).
 *
 * System calls: loop_wait() makes none where slots are ready and nothing is queued, else one io_uring_enter(2) that
 * submits, waits and runs the kernel's deferred work. Reads, writes and polls are queued in memory until then.
 *
 * Threads: the owner's only, and the ring knows: it is made disabled, for a single issuer, and enabled by the first
 * thread that uses it. Only loop_free() may come from another thread, after the owner removed its descriptors. The
 * kernel interrupts, some time after the ring was closed, each thread that lives on and made the ring or submitted to
 * it. So a short-lived thread makes it, and the owner is a thread of the library, never one of the program's.
 *
 * What must never happen: a slot is given back while its request flies (the completion would be taken for that of
 * another slot, and a uffd would stay alive after its close()).
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>

#include "io/loop_private.h"
#include "kernel/own.h"
#include "kernel/uring.h"

#define KEPT_MAX 16                /* buffers */
#define SUBMISSIONS_MAX 256        /* of the queue; more slots than that take turns */
#define IO_MAX (1u << 30)          /* bytes; a longer read or write is cut short, which callers expect */
#define RETRY_NS 10000000          /* a cancellation that found its target busy is sent again after this */
#define CANCEL (UINT64_C(1) << 63) /* user data of cancellations */

enum slot_use { SLOT_FREE, SLOT_DESCRIPTOR, SLOT_WRITE, SLOT_READ };

struct slot {
	uint64_t token;
	int fd;
	int result; /* of a ready slot */
	enum slot_use use;
	int flying;
	int multishot; /* the poll was sent so */
	int leaving;   /* being removed: not sent again */
	int ready;
	struct slot *next; /* in the free list or in the ready list */
};

struct loop_uring {
	struct loop loop;
	int tag; /* of the ring, see kernel/own.h */
	struct io_uring ring;
	int disabled;     /* 1: the owner has not come yet */
	int closed;       /* 1: an heir serves */
	int writes_fixed; /* this kernel has WRITE_FIXED */
	int multishot;    /* 0: this kernel's polls fire once (before 5.13) */
	unsigned flying_count;
	unsigned entries;
	int kept_fd; /* file 0 of the ring's own table; -1: none */
	unsigned kept_count;
	struct iovec kept[KEPT_MAX]; /* the ring's own buffers, by their number */
	struct slot *free;
	struct slot *ready_first;
	struct slot *ready_last;
	struct slot slots[]; /* `entries` of them */
};

static struct loop_uring *loop_uring_from_loop(struct loop *loop)
{
	return (struct loop_uring *)loop;
}

/* ---------------------------------------------------------------------------------------------------- the slots -- */

static struct slot *loop_uring_slot_get(struct loop_uring *self, enum slot_use use, int fd, uint64_t token)
{
	struct slot *slot = self->free;

	if (!slot)
		return NULL;
	self->free = slot->next;
	*slot = (struct slot){.token = token, .fd = fd, .use = use};
	return slot;
}

static void loop_uring_slot_put(struct loop_uring *self, struct slot *slot)
{
	slot->use = SLOT_FREE;
	slot->next = self->free;
	self->free = slot;
}

static struct slot *loop_uring_slot_find(struct loop_uring *self, int fd, uint64_t token)
{
	for (unsigned i = 0; i < self->entries; i++) {
		struct slot *slot = &self->slots[i];

		if (slot->use == SLOT_DESCRIPTOR && slot->fd == fd && slot->token == token)
			return slot;
	}
	return NULL;
}

/* Notes something to report. Poll results of one descriptor add up; an error outweighs them. */
static void loop_uring_ready_push(struct loop_uring *self, struct slot *slot, int result)
{
	if (slot->ready) {
		slot->result = result < 0 || slot->result < 0 ? result : slot->result | result;
		return;
	}
	slot->ready = 1;
	slot->result = result;
	slot->next = NULL;
	if (self->ready_last)
		self->ready_last->next = slot;
	else
		self->ready_first = slot;
	self->ready_last = slot;
}

static void loop_uring_ready_drop(struct loop_uring *self, struct slot *slot)
{
	struct slot *before = NULL;

	if (!slot->ready)
		return;
	for (struct slot *at = self->ready_first; at != slot; at = at->next)
		before = at;
	if (before)
		before->next = slot->next;
	else
		self->ready_first = slot->next;
	if (self->ready_last == slot)
		self->ready_last = before;
	slot->ready = 0;
}

/* --------------------------------------------------------------------------------------------------- submission -- */

static int loop_uring_enable(struct loop_uring *self)
{
	int result;

	if (!self->disabled)
		return 0;
	/* io_uring_enable_rings() is declared but not exported by liburing 2.3 */
	result = io_uring_register((unsigned)self->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	self->disabled = result < 0;
	return result < 0 ? result : 0;
}

/* Errors after which the next attempt may succeed. */
static int loop_uring_is_passing(int error)
{
	return error == -EINTR || error == -EAGAIN || error == -EBUSY || error == -ETIME;
}

static struct io_uring_sqe *loop_uring_next_sqe(struct loop_uring *self)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

	if (sqe)
		return sqe;
	io_uring_submit(&self->ring); /* the queue is full; what could not be submitted shows by the next line */
	return io_uring_get_sqe(&self->ring);
}

static void loop_uring_launch(struct loop_uring *self, struct slot *slot, struct io_uring_sqe *sqe)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)(slot - self->slots));
	slot->flying = 1;
	self->flying_count++;
}

static int loop_uring_send_poll(struct loop_uring *self, struct slot *slot)
{
	struct io_uring_sqe *sqe = loop_uring_next_sqe(self);

	if (!sqe)
		return -EAGAIN;
	slot->multishot = self->multishot;
	if (slot->multishot)
		io_uring_prep_poll_multishot(sqe, slot->fd, POLLIN);
	else
		io_uring_prep_poll_add(sqe, slot->fd, POLLIN);
	loop_uring_launch(self, slot, sqe);
	return 0;
}

static int loop_uring_send_cancel(struct loop_uring *self, const struct slot *slot)
{
	struct io_uring_sqe *sqe = loop_uring_next_sqe(self);

	if (!sqe)
		return -EAGAIN;
	io_uring_prep_cancel64(sqe, (uint64_t)(slot - self->slots), 0);
	io_uring_sqe_set_data64(sqe, CANCEL);
	return 0;
}

/* Submits what is queued and waits for a completion. Does the kernel's deferred work for this ring. */
static int loop_uring_enter(struct loop_uring *self, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {(int64_t)(timeout_ns / 1000000000), (long long)(timeout_ns % 1000000000)};
	struct io_uring_cqe *unused;

	if (timeout_ns == 0)
		return io_uring_submit_and_get_events(&self->ring);
	if (timeout_ns == UINT64_MAX)
		return io_uring_submit_and_wait(&self->ring, 1);
	return io_uring_submit_and_wait_timeout(&self->ring, &unused, 1, &ts, NULL);
}

/* --------------------------------------------------------------------------------------------------- completion -- */

static void loop_uring_poll_landed(struct loop_uring *self, struct slot *slot, int result)
{
	int refused_multishot = result == -EINVAL && slot->multishot; /* a kernel before 5.13 */

	if (refused_multishot)
		self->multishot = 0;
	if (slot->leaving || (result < 0 && !refused_multishot))
		return;
	result = loop_uring_send_poll(self, slot);
	if (result < 0)
		loop_uring_ready_push(self, slot, result);
}

static void loop_uring_poll_completed(struct loop_uring *self, struct slot *slot, int result)
{
	if (result != -EINVAL || !slot->multishot)
		loop_uring_ready_push(self, slot, result);
	if (!slot->flying)
		loop_uring_poll_landed(self, slot, result);
}

static void loop_uring_completed(struct loop_uring *self, uint64_t user_data, int result, uint32_t flags)
{
	struct slot *slot;

	if (user_data >= self->entries) /* a cancellation: the completion of what it cancels reports the rest */
		return;
	slot = &self->slots[user_data];
	if (!(flags & IORING_CQE_F_MORE)) {
		slot->flying = 0;
		self->flying_count--;
	}
	if (slot->use != SLOT_DESCRIPTOR)
		loop_uring_ready_push(self, slot, self->loop.k->uring_result(result));
	else
		loop_uring_poll_completed(self, slot, self->loop.k->uring_polled(result));
}

static void loop_uring_reap(struct loop_uring *self)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&self->ring, &cqe) == 0) {
		uint64_t user_data = cqe->user_data;
		uint32_t flags = cqe->flags;
		int result = cqe->res;

		io_uring_cqe_seen(&self->ring, cqe);
		loop_uring_completed(self, user_data, result, flags);
	}
}

static unsigned loop_uring_hand_out(struct loop_uring *self, struct loop_event *events, unsigned max)
{
	unsigned n;

	for (n = 0; n < max && self->ready_first; n++) {
		struct slot *slot = self->ready_first;

		loop_uring_ready_drop(self, slot);
		events[n] = (struct loop_event){LOOP_READABLE, slot->result, slot->token};
		if (slot->use != SLOT_DESCRIPTOR) {
			events[n].kind = slot->use == SLOT_WRITE ? LOOP_WRITTEN : LOOP_READ;
			loop_uring_slot_put(self, slot);
		}
	}
	return n;
}

/* ------------------------------------------------------------------------------------------------------ the loop -- */

static int uring_add(struct loop *loop, int fd, uint64_t token)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	int error = loop_uring_enable(self);
	struct slot *slot;

	if (error < 0)
		return error;
	slot = loop_uring_slot_get(self, SLOT_DESCRIPTOR, fd, token);
	if (!slot)
		return -EAGAIN;
	error = loop_uring_send_poll(self, slot);
	if (error < 0)
		loop_uring_slot_put(self, slot);
	return error;
}

/* Until the kernel has given the slot's request back; -ETIME where that takes suspiciously long. */
static int loop_uring_await_landing(struct loop_uring *self, const struct slot *slot)
{
	int error = 0;

	while (slot->flying && error >= 0) {
		error = loop_uring_enter(self, RETRY_NS);
		loop_uring_reap(self);
	}
	return slot->flying ? error : 0;
}

static int loop_uring_land(struct loop_uring *self, struct slot *slot)
{
	slot->leaving = 1;
	while (slot->flying) {
		int error = loop_uring_send_cancel(self, slot);

		if (error == 0 || loop_uring_is_passing(error))
			error = loop_uring_await_landing(self, slot);
		if (error < 0 && !loop_uring_is_passing(error))
			return error;
	}
	return 0;
}

static int uring_remove(struct loop *loop, int fd, uint64_t token)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	struct slot *slot = loop_uring_slot_find(self, fd, token);
	int error;

	if (!slot)
		return -ENOENT;
	error = loop_uring_land(self, slot);
	if (error < 0)
		return error;
	loop_uring_ready_drop(self, slot);
	loop_uring_slot_put(self, slot);
	return 0;
}

/* The number of the kept buffer that has all of these bytes; kept_count: none has. */
static unsigned loop_uring_kept_buffer(const struct loop_uring *self, const void *buffer, unsigned length)
{
	unsigned i;

	for (i = 0; i < self->kept_count; i++) {
		uintptr_t start = (uintptr_t)self->kept[i].iov_base;
		uintptr_t at = (uintptr_t)buffer;

		if (at >= start && at - start <= self->kept[i].iov_len &&
		    self->kept[i].iov_len - (at - start) >= length)
			break;
	}
	return i;
}

static void loop_uring_prepare_write(const struct loop_uring *self, struct io_uring_sqe *sqe, int fd,
                                     const void *buffer, unsigned length, uint64_t offset)
{
	unsigned index = loop_uring_kept_buffer(self, buffer, length);
	int is_kept = fd == self->kept_fd;

	if (index < self->kept_count)
		io_uring_prep_write_fixed(sqe, is_kept ? 0 : fd, buffer, length, offset, (int)index);
	else
		io_uring_prep_write(sqe, is_kept ? 0 : fd, buffer, length, offset);
	if (is_kept)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

/* Each of the two is of use without the other. */
static int uring_keep(struct loop *loop, int fd, const struct iovec *buffers, unsigned count)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	int error = loop_uring_enable(self);

	if (error < 0 || count > KEPT_MAX || self->kept_fd >= 0 || self->kept_count > 0)
		return error < 0 ? error : -EINVAL;
	int no_file = io_uring_register_files(&self->ring, &fd, 1);
	int no_buffers = self->writes_fixed ? io_uring_register_buffers(&self->ring, buffers, count) : -EOPNOTSUPP;

	if (no_file >= 0)
		self->kept_fd = fd;
	if (no_buffers >= 0) {
		memcpy(self->kept, buffers, count * sizeof(*buffers));
		self->kept_count = count;
	}
	return no_file < 0 ? no_file : no_buffers < 0 ? no_buffers : 0;
}

/* A ring that is closed unregisters them a little later: too late for a program that unmounts the disk, or counts
 * locked memory. */
static void loop_uring_release_kept(struct loop_uring *self)
{
	if (self->kept_fd >= 0)
		io_uring_unregister_files(&self->ring);
	if (self->kept_count > 0)
		io_uring_unregister_buffers(&self->ring);
}

/* A slot and a place in the queue for a read or a write; -EAGAIN: none is free. */
static int loop_uring_begin_io(struct loop_uring *self, enum slot_use use, int fd, uint64_t token, struct slot **slot,
                               struct io_uring_sqe **sqe)
{
	int error = loop_uring_enable(self);

	if (error < 0)
		return error;
	*slot = loop_uring_slot_get(self, use, fd, token);
	if (!*slot)
		return -EAGAIN;
	*sqe = loop_uring_next_sqe(self);
	if (*sqe)
		return 0;
	loop_uring_slot_put(self, *slot);
	return -EAGAIN;
}

static unsigned loop_uring_at_most(size_t length)
{
	return length < IO_MAX ? (unsigned)length : IO_MAX;
}

static int uring_write(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	struct io_uring_sqe *sqe;
	struct slot *slot;
	int error = loop_uring_begin_io(self, SLOT_WRITE, fd, token, &slot, &sqe);

	if (error)
		return error;
	loop_uring_prepare_write(self, sqe, fd, buffer, loop_uring_at_most(length), offset);
	loop_uring_launch(self, slot, sqe);
	return 0;
}

static int uring_read(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	struct io_uring_sqe *sqe;
	struct slot *slot;
	int error = loop_uring_begin_io(self, SLOT_READ, fd, token, &slot, &sqe);

	if (error)
		return error;
	io_uring_prep_read(sqe, fd, buffer, loop_uring_at_most(length), offset);
	loop_uring_launch(self, slot, sqe);
	return 0;
}

/* 1: the number of the ring belongs to another file by now. Mappings keep a ring alive, not its descriptor. */
static int loop_uring_ring_is_lost(struct loop_uring *self)
{
	return own_check(self->loop.k, self->ring.ring_fd, self->tag) != 0;
}

static void loop_uring_ring_forget(struct loop_uring *self)
{
	if (loop_uring_ring_is_lost(self))
		self->ring.ring_fd = -1;
	io_uring_queue_exit(&self->ring);
	self->closed = 1;
}

static int uring_wait(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	int error = own_check(self->loop.k, self->ring.ring_fd, self->tag);

	if (!error)
		error = loop_uring_enable(self);
	if (error < 0)
		return error;
	loop_uring_reap(self);
	if (!self->ready_first)
		error = loop_uring_enter(self, timeout_ns);
	else if (io_uring_sq_ready(&self->ring) > 0)
		error = io_uring_submit(&self->ring);
	loop_uring_reap(self);
	if (error < 0 && !loop_uring_is_passing(error) && !self->ready_first)
		return error;
	return (int)loop_uring_hand_out(self, events, max);
}

/* Closing the ring cancels what the kernel has of it, a little later. */
int loop_uring_bequeath(struct loop *loop, int error, struct loop **heir)
{
	struct loop_uring *self = loop_uring_from_loop(loop);
	struct loop *epoll;
	int refused = loop_epoll_new(loop->k, self->entries, &epoll);

	for (unsigned i = 0; i < self->entries && !refused; i++) {
		const struct slot *slot = &self->slots[i];

		if (slot->use == SLOT_DESCRIPTOR)
			refused = epoll->ops->add(epoll, slot->fd, slot->token);
		if (refused)
			epoll->ops->free(epoll);
	}
	if (refused)
		return refused;
	for (unsigned i = 0; i < self->entries; i++) {
		struct slot *slot = &self->slots[i];

		if (slot->use == SLOT_DESCRIPTOR)
			loop_uring_ready_drop(self, slot);
		else if (slot->use != SLOT_FREE && !slot->ready)
			loop_uring_ready_push(self, slot, error);
	}
	loop_uring_ring_forget(self);
	*heir = epoll;
	return 0;
}

unsigned loop_uring_left(struct loop *loop, struct loop_event *events, unsigned max)
{
	return loop_uring_hand_out(loop_uring_from_loop(loop), events, max);
}

/* Buffers of writes and descriptors of polls belong to others, which may free them next. */
static void loop_uring_land_all(struct loop_uring *self)
{
	for (unsigned i = 0; i < self->entries && self->flying_count > 0; i++) {
		if (loop_uring_land(self, &self->slots[i]) < 0)
			return; /* not the owner's thread, or a broken ring: closing it cancels, a little later */
	}
}

static void uring_free(struct loop *loop)
{
	struct loop_uring *self = loop_uring_from_loop(loop);

	if (!self->closed) {
		if (!loop_uring_ring_is_lost(self)) {
			loop_uring_land_all(self);
			loop_uring_release_kept(self);
		}
		loop_uring_ring_forget(self);
	}
	pages_free(loop->k, self, loop->size_bytes);
}

const struct loop_ops loop_uring_ops = {
        .free = uring_free,
        .add = uring_add,
        .remove = uring_remove,
        .write = uring_write,
        .read = uring_read,
        .keep = uring_keep,
        .wait = uring_wait,
};

/* ---------------------------------------------------------------------------------------------------- the making -- */

static int loop_uring_ring_init_best(struct loop_uring *self, unsigned submissions)
{
	unsigned best = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
	                IORING_SETUP_SUBMIT_ALL;
	const struct kernel_ops *k = self->loop.k;
	int result = uring_make_apart(k, submissions, &self->ring, IORING_SETUP_CLAMP | best);

	if (result == 0)
		self->disabled = 1;
	if (result == -EINVAL) /* a kernel before 6.1 */
		result = uring_make_apart(k, submissions, &self->ring, IORING_SETUP_CLAMP);
	return result;
}

/* 0, or what the ring lacks. */
static int loop_uring_ring_check(struct loop_uring *self)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&self->ring);
	int complete;

	if (!probe)
		return -EOPNOTSUPP;
	complete = io_uring_opcode_supported(probe, IORING_OP_POLL_ADD) &&
	           io_uring_opcode_supported(probe, IORING_OP_ASYNC_CANCEL) &&
	           io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
	           io_uring_opcode_supported(probe, IORING_OP_READ) && (self->ring.features & IORING_FEAT_NODROP);
	self->writes_fixed = io_uring_opcode_supported(probe, IORING_OP_WRITE_FIXED);
	io_uring_free_probe(probe);
	return complete ? 0 : -EOPNOTSUPP;
}

/* A seccomp filter may forbid to use what it allowed to make. A ring that is disabled refuses on its own: EBADFD. */
static int loop_uring_ring_try(struct loop_uring *self)
{
	int result = io_uring_enter((unsigned)self->ring.ring_fd, 0, 0, 0, NULL);

	return result == -EPERM || result == -EACCES || result == -ENOSYS ? result : 0;
}

static int loop_uring_ring_make(struct loop_uring *self)
{
	unsigned submissions = self->entries < SUBMISSIONS_MAX ? self->entries : SUBMISSIONS_MAX;
	int error = loop_uring_ring_init_best(self, submissions);

	if (error < 0)
		return error;
	error = loop_uring_ring_check(self);
	if (error == 0)
		error = loop_uring_ring_try(self);
	self->tag = own_new();
	if (error == 0)
		error = own_take(self->loop.k, self->ring.ring_fd, self->tag);
	if (error == -ENOMEM)
		self->ring.ring_fd = -1; /* closed */
	if (error < 0)
		io_uring_queue_exit(&self->ring);
	else
		io_uring_ring_dontfork(
		        &self->ring); /* a child must not submit here; where that fails it still has to try */
	return error;
}

int loop_uring_new(const struct kernel_ops *k, unsigned entries, struct loop **out)
{
	size_t size = sizeof(struct loop_uring) + (size_t)entries * sizeof(((struct loop_uring *)0)->slots[0]);
	struct loop_uring *self = pages_new(k, size);
	int error;

	if (!self)
		return -ENOMEM;
	self->loop = (struct loop){.ops = &loop_uring_ops, .k = k, .size_bytes = size};
	self->multishot = 1;
	self->kept_fd = -1;
	self->entries = entries;
	for (unsigned i = entries; i-- > 0;)
		loop_uring_slot_put(self, &self->slots[i]);
	error = loop_uring_ring_make(self);
	if (error < 0) {
		pages_free(k, self, size);
		return error;
	}
	*out = &self->loop;
	return 0;
}
