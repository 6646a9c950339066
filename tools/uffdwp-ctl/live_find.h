/* SPDX-License-Identifier: MIT */
/*
 * The processes that can be asked: those with a socket in one of the folders that the library makes, of this user; for
 * root those of all users. A folder counts if it is one (no link), is its user's own and closed to others. What is in
 * it may be meant to deceive all the same: what is no socket, or of another process or user than its name says, is left
 * out, which costs the others nothing, and is kept as a text. Another user has so many processes at most. The socket
 * of a process that is gone is removed.
 */
#ifndef UFFDWP_CTL_LIVE_FIND_H
#define UFFDWP_CTL_LIVE_FIND_H

#include "live_talk.h"

#define LIVE_STRAYS_MOST 4
#define LIVE_STRAY_TEXT 512

struct live_peers {
	struct live_peer *peers; /* by pid, each connected or with a text */
	size_t count;
	size_t room;
	size_t strays; /* what was left out; the first of them have texts */
	char stray_texts[LIVE_STRAYS_MOST][LIVE_STRAY_TEXT];
};

/* Finds all of them, or only `pid` if it is not 0; `socket`, unless NULL, is the path of the only one that counts.
 * `peers` is empty the first time; later on what is connected stays so, and what is gone is dropped. 0, or -1: no
 * memory. */
int live_find(struct live_peers *peers, int64_t pid, const char *socket);
void live_peers_free(struct live_peers *peers);

/* A line to stderr for each of what was left out; what is beyond some is counted. */
void live_find_say_strays(const char *command, const struct live_peers *peers);

/* Why there is no socket of a process, and what to do. */
void live_find_explain(int64_t pid, char *text, size_t size);

#endif
