/* SPDX-License-Identifier: MIT */
/*
 * What an error number is called and means: "EINVAL" also where the C library has no strerrorname_np() (glibc before
 * 2.32, musl), and its description without strerror(3), which translates in glibc, and allocates memory for that: texts
 * are made while a thread that forks, or has stopped the others, holds the allocator's lock.
 *
 * Without a state; async-signal-safe.
 */
#ifndef UFFDWP_BASE_ERRNO_NAME_H
#define UFFDWP_BASE_ERRNO_NAME_H

/* The name of a number or of its negative. NULL: there is no such error. */
const char *errno_name(int error);

/* The description of a number or of its negative, in English with glibc: "Invalid argument". Before glibc 2.32 the
 * name. Allocates nothing. */
const char *errno_text(int error);

#endif
