/* SPDX-License-Identifier: MIT */
/*
 * What the two kinds of loop share with loop.c and with nobody else: each embeds struct loop as its first member and
 * fills a table of what it does. Contracts are those of loop.h.
 */
#ifndef UFFDWP_FAULT_LOOP_PRIVATE_H
#define UFFDWP_FAULT_LOOP_PRIVATE_H

#include "fault/loop.h"
#include "region/region.h"

struct loop_ops {
	void (*free)(struct loop *loop);
	int (*add)(struct loop *loop, int fd, uint64_t token);
	int (*remove)(struct loop *loop, int fd, uint64_t token);
	int (*write)(struct loop *loop, int fd, const void *buffer, size_t length, uint64_t offset, uint64_t token);
	int (*read)(struct loop *loop, int fd, void *buffer, size_t length, uint64_t offset, uint64_t token);
	int (*keep)(struct loop *loop, int fd, const struct iovec *buffers, unsigned count); /* NULL: cannot */
	int (*wait)(struct loop *loop, struct loop_event *events, unsigned max, uint64_t timeout_ns);
};

struct loop {
	const struct loop_ops *ops;
	const struct kernel_ops *k;
	size_t size_bytes; /* of the whole, which pages_new() gave: not the caller's heap, see region.h */
};

extern const struct loop_ops loop_uring_ops;
extern const struct loop_ops loop_epoll_ops;

/* 0 or -errno; *out on success. */
int loop_uring_new(const struct kernel_ops *k, unsigned entries, struct loop **out);
int loop_epoll_new(const struct kernel_ops *k, unsigned entries, struct loop **out);

#endif
