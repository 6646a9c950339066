/* SPDX-License-Identifier: MIT */
/*
 * A loop: one thread waits in one place for descriptors that became readable, for file reads and writes that it
 * started, and for a time-out. Two implementations of one interface: io_uring (multishot poll, asynchronous I/O) and
 * epoll with pread(2) and pwrite(2), for where io_uring is refused. Handler threads and the threads of snapshots run on
 * one each.
 *
 * Threads: a loop belongs to the thread that waits in it; add, remove, read and write are called by that thread only.
 * (To reach a sleeping loop, give it an eventfd.) That thread is the library's own, or no_uring is asked for: io_uring
 * interrupts system calls of the thread that used it, after the loop was freed. loop_new() and loop_free() may be
 * called by any thread.
 *
 * A descriptor is reported when it BECOMES readable: its owner reads until it is empty (a short read of a uffd is
 * "empty": every later message wakes again). After loop_remove() has returned no request refers to the descriptor, so
 * that close() really closes it (an io_uring poll would keep a uffd alive).
 */
#ifndef UFFDWP_IO_LOOP_H
#define UFFDWP_IO_LOOP_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum loop_kind {
	LOOP_READABLE, /* the descriptor added with this token; result: poll revents, or -errno: it must be removed */
	LOOP_WRITTEN, /* the write with this token; result: bytes or -errno. Short writes are the caller's to go on with
	               */
	LOOP_READ,    /* the same of a read; 0 bytes: the file ends there */
};

struct loop_event {
	enum loop_kind kind;
	int result;
	uint64_t token;
};

struct loop;

/* Entries: the most descriptors plus reads and writes under way. no_uring: take epoll. 0 or -errno; *out on success. */
int loop_new(const struct kernel_ops *k, unsigned entries, int no_uring, struct loop **out);
void loop_free(struct loop *loop);

/* 1 where io_uring serves this loop. */
int loop_is_uring(const struct loop *loop);

int loop_add(struct loop *loop, int fd, uint64_t token);
int loop_remove(struct loop *loop, int fd, uint64_t token);

/* Starts a write of a regular file; buffer stays untouched until its event. -EAGAIN: `entries` are under way, wait
 * first. */
int loop_write(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token);

/* The same for a read into the buffer. */
int loop_read(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token);

/*
 * Says that most writes will be of this descriptor and from these buffers, so that the kernel looks them up and pins
 * them once instead of for each write. Once in the life of a loop, by its owner, before its first write; the loop
 * unregisters them when it is freed by its owner. Only a hint: where it is refused (locked memory, epoll: -errno)
 * writes do the same as before, and any other descriptor or buffer may be written, too.
 */
int loop_keep(struct loop *loop, int fd, const struct iovec *buffers, unsigned count);

/* Waits until something happened or timeout_ns passed (UINT64_MAX: for ever; 0: only look). The count of events written
 * (0 at the time-out or a signal), or -errno of a loop that is broken for good. Starts what was queued. */
int loop_wait(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns);

/* Any thread: 0, or -EBADF or -ESTALE where the program has closed what the loop waits by (kernel/own.h): its owner may
 * sleep for ever. */
int loop_check(const struct loop *loop);

#endif
