/* SPDX-License-Identifier: MIT */
/*
 * Which process is this? A child of fork() has a copy of all that we know, and nothing of what it is about; one of
 * vfork(), or of clone(2) with CLONE_VM, shares it with its parent, and must leave it alone. Process ids do not
 * distinguish the two, and may even be equal in two PID namespaces. A page that the kernel wipes in children
 * (MADV_WIPEONFORK, Linux 4.14) does: it is empty in a copy only.
 */
#ifndef UFFDWP_KERNEL_PROCESS_H
#define UFFDWP_KERNEL_PROCESS_H

#include <stdint.h>

/* Before the first process_number(); more calls do nothing. -ENOMEM. */
int process_begin(void);

/* The number of the process that has this memory: another one in each child that has a copy; 0: process_begin() was
 * never called. (signal) */
uint32_t process_number(void);

/* 1: this process shares the memory of another, which the number is of. */
int process_is_guest(void);

#endif
