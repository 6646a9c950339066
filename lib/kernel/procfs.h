/* SPDX-License-Identifier: MIT */
/* Numbers in the small text files of /proc. */
#ifndef UFFDWP_KERNEL_PROCFS_H
#define UFFDWP_KERNEL_PROCFS_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

/* Reads the first size - 1 bytes of a file, terminated. The length, or -errno. */
ssize_t procfs_text(const struct kernel_ops *k, const char *path, char *text, size_t size);

/* The number after a key at the start of a line ("Seccomp:"), or the first of the file where key is "". 0, -ENODATA
 * without such a line, or -errno. */
int procfs_number(const struct kernel_ops *k, const char *path, const char *key, uint64_t *number);

/* The CPU that a thread ran on last: of its open /proc/PID/task/TID/stat. -errno; -ENODATA: it does not say; -EPERM: it
 * runs by a real-time policy, and may keep all others off its CPU. */
int procfs_stat_cpu(const struct kernel_ops *k, int fd);

/* What a thread of this process does, as proc(5) has it: 'R', 'S', 'D', ..., or -errno. */
int procfs_thread_state(const struct kernel_ops *k, int thread);

/* 1 where any swap is on; -errno where that cannot be asked at this moment. */
int procfs_swap_on(const struct kernel_ops *k);

#endif
