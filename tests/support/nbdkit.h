/* SPDX-License-Identifier: MIT */
/*
 * A server of network block devices for a test: nbdkit on a socket in a folder of the test's, with the plugin and the
 * filters that the test wants. It ends with the test, however that ends. The second witness of what an export holds is
 * nbdcopy, which is no code of ours, or the file that the server writes to.
 */
#ifndef SUPPORT_NBDKIT_H
#define SUPPORT_NBDKIT_H

#include <stddef.h>
#include <sys/types.h>

#include "scratch.h"

struct nbdkit {
	pid_t pid; /* 0: ended */
	char socket[SCRATCH_PATH];
	char pid_file[SCRATCH_PATH];
	char uri[SCRATCH_PATH * 2];
};

/* 1 where nbdkit and nbdcopy are installed. */
int nbdkit_here(void);

/* Starts it with `arguments` (NULL at the end) and returns when it takes connections. Every failure is an assertion. */
void nbdkit_start(struct nbdkit *server, const char *folder, const char *const *arguments);

/* Ends it by SIGKILL. */
void nbdkit_kill(struct nbdkit *server);

/* Reads the first `length` bytes of the export by nbdcopy. */
void nbdkit_read(const struct nbdkit *server, const char *folder, void *buffer, size_t length);

#endif
