/* SPDX-License-Identifier: MIT */
/*
 * A conversation with one process by its control socket. What the process sends is hostile until it was checked: a line
 * has a bound in bytes and in time, and whatever is wrong with it ends the conversation with a text that names the
 * process. No call here waits longer than it says, but for a process that is stopped, where the command waits until it
 * goes on.
 *
 * Commands that ask all processes, as root those of all users, give each other user LIVE_OTHERS_MS and
 * LIVE_OTHERS_BYTES for all of its processes: no user can keep them waiting for as many processes as it may have, or
 * take their memory.
 */
#ifndef UFFDWP_CTL_LIVE_TALK_H
#define UFFDWP_CTL_LIVE_TALK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "live_shape.h"

#define LIVE_LIMIT_MS 5000       /* for an answer that needs no work */
#define LIVE_LIMIT_WORK_MS 60000 /* for one that does: a begin, an audit, arming */
#define LIVE_OTHERS_MS 10000     /* of waiting for all processes of another user, by a command that asks all */
#define LIVE_OTHERS_BYTES ((uint64_t)128 << 20) /* that these may send */

/* How a command for live processes ends; documented in each manual. */
enum live_end {
	LIVE_DONE = 0,
	LIVE_REFUSED = 1, /* the process said no; there is no image */
	LIVE_USAGE = 2,   /* the command line was not understood */
	LIVE_ABSENT = 3,  /* no such process, socket or region, or no right to it */
	LIVE_BROKEN = 4   /* the process answers nothing or nonsense, or it ended; no memory; output not writable */
};

struct live_peer {
	int64_t pid;
	uid_t uid;
	char program[128]; /* without control characters */
	int fd;            /* -1: closed, and `text` says why */
	char *in;          /* what was received; the lines before `start` were taken */
	size_t start;
	size_t used;
	size_t room;
	uint64_t id;          /* of the last request */
	int stops;            /* signals that end a wait; 0: one does */
	enum live_end end;    /* why the last call failed */
	char error[24];       /* a refusal's name, "ENODATA" */
	char text[1024];      /* what was wrong */
	int seen;             /* live_find(): it is there still */
	int is_one_of_all;    /* found by a command that asks all */
	int is_planted;       /* what has the name of its socket is not its socket */
	int is_stopped;       /* why it does not answer */
	const char *outwaits; /* the command that waits while it is stopped, and says so; NULL: none does */
	int64_t outwait_until_ms;
	int64_t until_ms;     /* the answer is to be there */
	int limit_ms;         /* and how long that is in all */
	int64_t silent_until; /* not connected to again before; 0: at once */
};

/* All other users begin anew with their time and bytes. */
void live_talk_begin(void);

/* Connects to the socket of that name in an open folder; the process must be `owner`'s, or where that is NULL the
 * socket's owner's. LIVE_DONE; LIVE_ABSENT: it is a leftover, nothing listens there; LIVE_BROKEN; with is_planted: it
 * is no socket, or not that process's. */
enum live_end live_connect(struct live_peer *peer, int folder, const char *name, const uid_t *owner);
void live_disconnect(struct live_peer *peer);

/* A request, empty or with keys of its own; NULL: no memory. */
struct json_object *live_request(const char *what);
void live_request_number(struct json_object *request, const char *key, uint64_t number);
void live_request_text(struct json_object *request, const char *key, const char *text);

/* Sends a request, which is freed, and gives its answer, checked by a shape. */
enum live_end live_ask(struct live_peer *peer, struct json_object *request, int limit_ms, const struct shape *shape,
                       struct json_object **answer);

/* The next line of what a request goes on sending. LIVE_DONE with NULL: a signal asks to stop. */
enum live_end live_next(struct live_peer *peer, int limit_ms, const struct shape *shape, struct json_object **line);

#endif
