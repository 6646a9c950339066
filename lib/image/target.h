/* SPDX-License-Identifier: MIT */
/* Where a file that is to appear under a path really goes. See target.c. */
#ifndef UFFDWP_IMAGE_TARGET_H
#define UFFDWP_IMAGE_TARGET_H

#include "base/text.h"
#include "kernel/kernel.h"

#define TARGET_NAME_BYTES 256

/* Opens the folder that the path's file is in, symbolic links of its name followed. 0: *folder is open, and name is
 * the file's name in it, under which there is a regular file or nothing. Else -errno with a text. */
int target_open(const struct kernel_ops *k, const char *path, struct text *text, int *folder,
                char name[TARGET_NAME_BYTES]);

/* Where a path leads to that is relative to the folder `at` (AT_FDCWD: to the working directory), for a file that is
 * read: of any kind, or nothing. *folder is open to look a name up in it, and for nothing else (O_PATH). */
int target_find(const struct kernel_ops *k, int at, const char *path, struct text *text, int *folder,
                char name[TARGET_NAME_BYTES]);

/* The file `name` in `folder` is removed when the process ends by exit() or by returning from main(), unless it is
 * forgotten before; a child of fork() removes nothing. The number to forget it by; -1: there is no room for more, and
 * such a file would stay. */
int target_remove_at_exit(int folder, const char *name);
void target_forget(int number);

#endif
