/* SPDX-License-Identifier: MIT */
/*
 * What the kernel has to allow before a fork can be the library's, asked for by name, so that a refusal has a reason
 * that a user can do something about. Also for uffdwp-ctl fork --check.
 *
 * Threads: any.
 */
#ifndef UFFDWP_FORK_ACCESS_H
#define UFFDWP_FORK_ACCESS_H

#include <stddef.h>
#include <stdint.h>

/* delivery: UFFDWP_DELIVERY_*. 0; or -errno, and why. */
int access_check(uint32_t delivery, char *why, size_t size);

#endif
