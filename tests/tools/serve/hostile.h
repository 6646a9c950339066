/* SPDX-License-Identifier: MIT */
/*
 * Parts of the hostile clients: what all of them do (hostile.c), and those that handed their memory over and spoil it
 * afterwards (hostile_lost.c). Each act is a process.
 */
#ifndef TESTS_SERVE_HOSTILE_H
#define TESTS_SERVE_HOSTILE_H

#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "chance.h"

#define HOSTILE_LENGTH ((size_t)4 << 20)
#define HOSTILE_PAGE ((size_t)sysconf(_SC_PAGESIZE))
#define HOSTILE_EXECUTED "executed"

struct hostile {
	const char *program; /* of this process */
	const char *path;
	const char *victim; /* an image of another client */
	struct chance chance;
	int socket;
	uint8_t *memory;
	int memfd;
	int uffd;
};

/* hostile.c */
void hostile_connect(struct hostile *hostile);
void hostile_map(struct hostile *hostile);
/* A line of the answer; empty: the connection was closed. */
const char *hostile_answer(const struct hostile *hostile);
void hostile_send(const struct hostile *hostile, const char *text, const int *descriptors, unsigned count);
void hostile_hello(const struct hostile *hostile, uint64_t offset, uint64_t length, const char *more,
                   const int *descriptors, unsigned count);
/* A handshake that is right. The process ends where there are too many clients. Returns the pid of the server's process
 * for it. */
long hostile_begin(struct hostile *hostile, const char *more);

/* hostile_lost.c */
void hostile_unmap(struct hostile *hostile);
void hostile_unmap_all(struct hostile *hostile);
void hostile_move(struct hostile *hostile);
void hostile_cover(struct hostile *hostile);
void hostile_protect(struct hostile *hostile);
void hostile_truncate(struct hostile *hostile);
void hostile_truncate_in_snapshot(struct hostile *hostile);
void hostile_bus(struct hostile *hostile);
void hostile_refused(struct hostile *hostile);
void hostile_unregister(struct hostile *hostile);
void hostile_execute(struct hostile *hostile);
void hostile_other_ends(struct hostile *hostile);
void hostile_fork(struct hostile *hostile);
/* This program as executed by one of them: the connection is `socket`. */
int hostile_executed(int socket);

#endif
