/* SPDX-License-Identifier: MIT */
/*
 * Where the socket lies: a folder that no other user may enter, in it a file named by the process id. PROTOCOL.md has
 * the folders.
 *
 * Threads: one at a time. At exit(3) the file is removed by the process that made it; a child of fork() leaves it.
 */
#ifndef UFFDWP_CONTROL_SOCKFILE_H
#define UFFDWP_CONTROL_SOCKFILE_H

#include "base/text.h"
#include "kernel/kernel.h"

#define SOCKFILE_BYTES 108 /* as sun_path */

/* Makes the socket in the first folder that can be used, or at `path`, if it is not NULL. The descriptor that listens,
 * or -errno with text: -EADDRINUSE (another process listens there), -ENAMETOOLONG, -EACCES, ... */
int sockfile_open(const struct kernel_ops *k, const char *path, struct text *text);

/* Where it lies; "": nowhere. */
const char *sockfile_path(void);

/* Removes the file. */
void sockfile_close(const struct kernel_ops *k);

/* In a child of fork(): the file is its parent's. */
void sockfile_forget(void);

#endif
