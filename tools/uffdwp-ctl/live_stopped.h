/* SPDX-License-Identifier: MIT */
/* What the kernel says of a process that may be another user's: without a state. */
#ifndef UFFDWP_CTL_LIVE_STOPPED_H
#define UFFDWP_CTL_LIVE_STOPPED_H

#include <stdint.h>
#include <sys/types.h>

/* Stopped by a signal (SIGSTOP, Ctrl-Z) or a debugger; 0 also where it is not known. */
int live_is_stopped(int64_t pid);

/* Whether the process has this user as its real, effective or saved one; 1 also where it is not known. `other` is one
 * that it has instead. */
int live_is_of_user(int64_t pid, uid_t uid, uid_t *other);

#endif
