/* SPDX-License-Identifier: MIT */
/*
 * The thread that serves the socket's clients. It waits for none of them: what a client does not read stays in memory
 * up to a bound and for a time, and what it sends is read up to the end of a line. Nor does one that sends without end
 * keep the others waiting, or the thread from ending: in a turn each gets a few answers.
 *
 * Threads: serve_start() and serve_stop() one at a time; uffdwp-control for all else. When the program has closed the
 * library's descriptors the thread ends, and with it control.
 */
#ifndef UFFDWP_CONTROL_SERVE_H
#define UFFDWP_CONTROL_SERVE_H

#include "kernel/kernel.h"

#define SERVE_CLIENTS_MOST 16

/* How long a client may be silent, keep half a line, or not read its answer. */
#define SERVE_IDLE_NS 300000000000ull
#define SERVE_STUCK_NS 10000000000ull

/* Starts it with a socket that listens, which it owns from now on, also where it fails. 0 or -errno. */
int serve_start(const struct kernel_ops *k, int listening);

/* Ends the thread, and closes all. */
void serve_stop(void);

/* In a child of fork(): closes its copies. */
void serve_forget(void);

#endif
