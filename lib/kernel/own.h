/* SPDX-License-Identifier: MIT */
/*
 * Whether a descriptor is still the library's. A program that closes all that it does not know (closefrom(3), as
 * daemons do) closes the library's descriptors, and what it opens then takes their numbers: nothing may be written to
 * them, read from them or closed any more.
 *
 * Idea: each open file of the library carries a tag, the signal number of fcntl(F_SETSIG). Nothing is ever sent:
 * O_ASYNC is not set. A foreign file carries 0, that of another object of the library most often another tag; a file
 * that is shared with the caller must not be tagged.
 *
 * Threads: any.
 */
#ifndef UFFDWP_KERNEL_OWN_H
#define UFFDWP_KERNEL_OWN_H

#include "kernel/kernel.h"

/* A tag for all open files of an object. */
int own_new(void);

/* Tags an open file of the library. 0; -ENOMEM: it is closed again. A kernel that knows no such tag is no error. */
int own_take(const struct kernel_ops *k, int fd, int tag);

/* An eventfd with that tag, or -errno. */
int own_eventfd(const struct kernel_ops *k, int tag);

/* (signal) 0: the number is still ours, or the kernel does not say. -EBADF: it is closed, -ESTALE: it is another file.
 */
int own_check(const struct kernel_ops *k, int fd, int tag);

/* Adds 1 to an eventfd of the library, whose reader wakes up. 0; -EBADF, -ESTALE: it is ours no more; or why write(2)
 * refuses. (signal) */
int own_kick(const struct kernel_ops *k, int fd, int tag);

/* Closes what is still ours; -1 is ignored. */
void own_close(const struct kernel_ops *k, int fd, int tag);

#endif
