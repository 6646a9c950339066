/* SPDX-License-Identifier: MIT */
/* What libuffdwp-fork.so exports: functions of the C library under their own names. libuffdwp-fork.map lists them. */
#ifndef UFFDWP_FORK_PRELOAD_H
#define UFFDWP_FORK_PRELOAD_H

#define PRELOAD_EXPORT __attribute__((visibility("default")))

#endif
