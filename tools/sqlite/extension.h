/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the extension that talk with SQLite share: the VFS and the SQL functions.
 */
#ifndef UFFDWP_SQLITE_EXTENSION_H
#define UFFDWP_SQLITE_EXTENSION_H

#include <sqlite3.h>

#include "locks.h"
#include "store.h"

#define VFS_NAME "uffdwp"

/* A URI parameter of the extension's own connection for uffdwp_load(). */
#define VFS_LOADING "uffdwp_loading"

/* One connection's main database file in a region; with a shared cache that of several connections, whose transactions
 * all go by its one holder. */
struct vfs_file {
	sqlite3_file head;
	struct store *store;
	struct lock_holder holder;
	pthread_mutex_t joining; /* a connection joins, or a cut needs that none does */
	unsigned joined;         /* connections that have joined, those that left again too */
	int loading;             /* 1: page 1 is written with WAL taken out of its header */
	int exclusive;           /* 1: PRAGMA locking_mode=exclusive was given */
	sqlite3_int64 map_limit;
};

/* Registers the VFS, once a process. */
int vfs_register(void);

/* The VFS that was the default one before: where files on disk are. */
sqlite3_vfs *vfs_disk(void);

/* The file of a schema ("main") of a connection, or NULL if it is not one of ours. */
struct vfs_file *vfs_file_of(sqlite3 *db, const char *schema);

/* 1: the file holds EXCLUSIVE and belongs to one connection alone, by `PRAGMA locking_mode=exclusive` if that one is
 * not in a write transaction. No other connection joins before vfs_alone_leave(), by the same thread. */
int vfs_alone_enter(struct vfs_file *file);
void vfs_alone_leave(struct vfs_file *file);

/* 1: a connection just opened has its main database on disk by this VFS, without a URI that says so; a file that was
 * made for it is gone again. */
int vfs_refuse_connection(sqlite3 *db);

/* Reads the database's parameters from its URI name. 0, or -EINVAL and what is wrong with them in `text`. */
int vfs_config(const char *name, struct store_config *config, char *text, size_t size);

const char *vfs_delivery_name(unsigned delivery);
const char *vfs_mechanism_name(unsigned mechanism);

/* Whether an image may appear at this path. NULL, or why not: a text to be freed with sqlite3_free(). */
char *target_refuse(sqlite3 *db, const char *path);

/* Adds the SQL functions to a connection. */
int functions_register(sqlite3 *db);

#endif
