/* SPDX-License-Identifier: MIT */
/*
 * What seccomp filters say of system calls, from now on, in all threads of this process, its children and what they
 * become. Each call adds a filter; of several answers the strictest counts. An answer is SECCOMP_RET_ALLOW,
 * SECCOMP_RET_KILL_PROCESS and the like, or filter_errno().
 *
 * Each returns 0, or -1 with errno: there are no filters here.
 */
#ifndef SUPPORT_FILTER_H
#define SUPPORT_FILTER_H

#include <linux/seccomp.h>
#include <stdint.h>

/* 0: the call is let through. */
uint32_t filter_errno(int error);

int filter_call(long call, uint32_t answer);

/* Where the low word of that argument (from 0) is `value`; other calls are not concerned. */
int filter_argument(long call, unsigned argument, uint32_t value, uint32_t answer);

/* All calls but those. */
int filter_all_but(const long *calls, unsigned count, uint32_t answer);

/* Both accesses to a userfaultfd: the call and the device. */
int filter_userfaultfd(int error);

#endif
