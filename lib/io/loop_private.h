/* SPDX-License-Identifier: MIT */
/*
 * What the two kinds of loop share with loop.c alone: each embeds struct loop as its first member and fills a table of
 * what it does. Contracts are those of loop.h.
 */
#ifndef UFFDWP_IO_LOOP_PRIVATE_H
#define UFFDWP_IO_LOOP_PRIVATE_H

#include "io/loop.h"
#include "kernel/pages.h"

struct loop_ops {
	void (*free)(struct loop *loop);
	int (*add)(struct loop *loop, int fd, uint64_t token);
	int (*remove)(struct loop *loop, int fd, uint64_t token);
	int (*write)(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token);
	int (*read)(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token);
	int (*keep)(struct loop *loop, int fd, const struct iovec *buffers, unsigned count); /* NULL: cannot */
	int (*wait)(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns);
	int (*check)(const struct loop *loop); /* NULL: waits find it out */
};

struct loop {
	const struct loop_ops *ops;
	const struct kernel_ops *k;
	struct loop *heir; /* serves in its place since the kernel refused it; NULL: it serves itself */
	size_t size_bytes; /* of the whole, which pages_new() gave: not the caller's heap, see region.h */
};

extern const struct loop_ops loop_uring_ops;
extern const struct loop_ops loop_epoll_ops;

/* 0 or -errno; *out on success. */
int loop_uring_new(const struct kernel_ops *k, unsigned entries, struct loop **out);
/* The kernel refuses this ring from now on with `error`: its descriptors move to a new heir, reads and writes under way
 * end with the error. 0 or -errno, nothing changed. The owner's thread. */
int loop_uring_bequeath(struct loop *loop, int error, struct loop **heir);
/* What a ring without rights still has to report, as loop_wait(). */
unsigned loop_uring_left(struct loop *loop, struct loop_event *events, unsigned max);

int loop_epoll_new(const struct kernel_ops *k, unsigned entries, struct loop **out);

#endif
