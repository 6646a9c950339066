/* SPDX-License-Identifier: MIT */
/*
 * A link: one connection to an export of a network block device, through libnbd, for code that writes or reads one.
 *
 * libnbd is loaded when the first link is opened, so that a program that opens none does not carry it. Requests are
 * asynchronous: they are queued by nbdlink_write() and the like, and end in nbdlink_wait(), which is where all the
 * talking is done. Nothing here waits without a bound: the bounds of connecting and of closing are NBDLINK_*_MS, that
 * of nbdlink_wait() is its caller's.
 *
 * libnbd makes its own system calls (they do not go through the table in kernel/kernel.h), and it allocates from the
 * process's heap: a link must not be used where the heap lies in a region, which open refuses as far as it can see.
 *
 * Threads: one at a time.
 */
#ifndef UFFDWP_SNAPSHOT_NBDLINK_H
#define UFFDWP_SNAPSHOT_NBDLINK_H

#include <stddef.h>
#include <stdint.h>

#define NBDLINK_CONNECT_MS 10000
#define NBDLINK_CLOSE_MS 1000

struct nbd_handle;
struct text;

struct nbdlink {
	struct nbd_handle *handle; /* NULL: closed */
	uint64_t size_bytes;       /* of the export */
	uint32_t block_least;      /* offsets and lengths are multiples of it; 0: the server does not say */
	uint32_t block_most;       /* bytes of one request */
	int read_only;
	int can_flush;
	int can_zero;
};

/* Where a request is answered. It stays in its place, and so do the bytes, until it is done or the link closed. */
struct nbdlink_answer {
	int done;
	int error; /* -errno of the server's; -ENOTCONN: the connection was lost */
};

/* 1, or 0: the library was built without libnbd. Whether libnbd is here shows when a link is opened. */
int nbdlink_built(void);

/* Connects. -EOPNOTSUPP (no libnbd, or one that lacks something; the heap lies in a region), -ETIMEDOUT, or what
 * libnbd has to say of the URI, the server or the export; forms the text. */
int nbdlink_open(const char *uri, struct text *text, struct nbdlink *link);

/* Says good-bye where nothing is under way, else drops the connection. Takes NBDLINK_CLOSE_MS at most. */
void nbdlink_close(struct nbdlink *link);

/* Requests of at most block_most bytes. -errno: not begun, and the answer is not used. */
int nbdlink_write(struct nbdlink *link, const void *from, size_t length, uint64_t offset,
                  struct nbdlink_answer *answer);
int nbdlink_read(struct nbdlink *link, void *to, size_t length, uint64_t offset, struct nbdlink_answer *answer);
int nbdlink_zero(struct nbdlink *link, size_t length, uint64_t offset, struct nbdlink_answer *answer);
int nbdlink_flush(struct nbdlink *link, struct nbdlink_answer *answer);

/* Sends and receives until something moved or timeout_ms passed. -ENOTCONN: the connection is lost for good; all
 * requests are done then, with errors. */
int nbdlink_wait(struct nbdlink *link, int timeout_ms);

/* What libnbd said last in this thread. Never NULL. */
const char *nbdlink_said(void);

#endif
