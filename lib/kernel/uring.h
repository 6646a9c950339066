/* SPDX-License-Identifier: MIT */
/* Making an io_uring without leaving a trace in the task of the caller. */
#ifndef UFFDWP_KERNEL_URING_H
#define UFFDWP_KERNEL_URING_H

#include "kernel/kernel.h"

/* k->uring_init() in a thread that ends before this returns: closing the ring interrupts the caller's thread only if
 * that thread submits to it. 0 or -errno, also where there is no thread. */
int uring_make_apart(const struct kernel_ops *k, unsigned entries, struct io_uring *ring, unsigned flags);

#endif
