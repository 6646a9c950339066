/* SPDX-License-Identifier: MIT */
/*
 * What the shim in the program and uffdwp-dirty say to each other: one message in each direction, over a socket that
 * both have closed before main() runs.
 *
 * The shim hands over what only the program itself can make (a userfaultfd of its memory, its pagemap, its maps) and
 * then is nothing but code that is not called, apart from exec. All collecting is done from outside. What must never
 * happen: a thread, a descriptor, an environment variable or a signal handler of ours that the program meets in main().
 */
#ifndef UFFDWP_DIRTY_HELLO_H
#define UFFDWP_DIRTY_HELLO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The name of the socket, and the switches of enum hello_flags after it, as "NAME,FLAGS". */
#define HELLO_VARIABLE "UFFDWP_DIRTY"
#define HELLO_NAME_BYTES 64
#define HELLO_MAGIC 0x75666477u
#define HELLO_TIME_LIMIT_S 10 /* a shim never waits longer for an answer */

enum hello_flags {
	HELLO_SMALL_PAGES = 1, /* no transparent huge pages in this program: prctl(PR_SET_THP_DISABLE) */
};

/* The descriptors that come along, in this order. */
enum hello_fd {
	HELLO_UFFD,
	HELLO_PAGEMAP, /* /proc/PID/pagemap */
	HELLO_MAPS,    /* /proc/PID/maps: of the holder, where there is one */
	HELLO_HOLD,    /* the holder lives until this is closed; missing where there is none */
	HELLO_FDS
};

struct hello {
	uint32_t magic;
	int32_t error;        /* errno of what failed, 0: all descriptors are there */
	int32_t failed;       /* enum hello_fd of what failed */
	int32_t holder;       /* process that keeps the memory until the last collect; 0: none */
	int32_t holder_error; /* errno, where there is none */
};

struct hello_answer {
	uint32_t magic;
	int32_t end; /* 0: go on; else exit with this before main() */
};

/* An abstract socket: nothing in the file system. */
static inline socklen_t hello_address(const char *name, struct sockaddr_un *address)
{
	size_t length = strnlen(name, HELLO_NAME_BYTES);

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path + 1, name, length);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

#endif
