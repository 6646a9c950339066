/* SPDX-License-Identifier: MIT */
/*
 * Whether this process is a child of fork() of the one that made the databases: it has none of their memory, which is
 * kept out of children, nor the threads that serve them, and a lock may be held by a thread that is in the parent. So
 * it touches nothing of them, takes no lock, and every call says so.
 *
 * Threads: any; forked_is_child() is a load.
 */
#ifndef UFFDWP_SQLITE_FORKED_H
#define UFFDWP_SQLITE_FORKED_H

#define FORKED_TEXT                                                                                                    \
	"a database in memory stays with the process that opened it: this is a child of fork(), which has to open "    \
	"databases of its own"

/* From here on children are distinguished from this process. 0 or -errno; again and again has no effect. */
int forked_begin(void);

/* 1: a child, however it was made (fork(), clone(), without the handlers of pthread_atfork() too). */
int forked_is_child(void);

#endif
