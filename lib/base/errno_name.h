/* SPDX-License-Identifier: MIT */
/* The name of an error number, "EINVAL", where the C library has no strerrorname_np() (glibc before 2.32, musl).
 * Without a state; async-signal-safe. */
#ifndef UFFDWP_BASE_ERRNO_NAME_H
#define UFFDWP_BASE_ERRNO_NAME_H

/* The name of a number or of its negative. NULL: there is no such error. */
const char *errno_name(int error);

#endif
