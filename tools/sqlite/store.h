/* SPDX-License-Identifier: MIT */
/*
 * A store is one database: a region that holds its file, the file's size, its locks and its snapshots. Stores are
 * shared by name; a store lives while a connection has it open. The runtime of the library lives while there is a
 * store.
 *
 * The bytes are guarded by SQLite's own locks: a connection that writes, truncates or grows holds EXCLUSIVE, one that
 * reads SHARED. The region never moves and never gets shorter (a truncation punches its tail), so that pointers into it
 * stay good. Bytes beyond the size read as zeros.
 *
 * Threads: any. Lock order: the world (the list of stores), then a store's own, then those of the journals.
 */
#ifndef UFFDWP_SQLITE_STORE_H
#define UFFDWP_SQLITE_STORE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "locks.h"
#include "shots.h"
#include "uffdwp.h"

#define STORE_TEXT_BYTES 512

/* What a database is made with, by the first connection that opens it. */
struct store_config {
	uint64_t size_bytes;     /* of the region at first */
	uint64_t capacity_bytes; /* up to where it may grow */
	uint32_t mechanism;      /* enum uffdwp_mechanism */
	uint32_t delivery;       /* enum uffdwp_delivery */
	int prepare;             /* 1: uffdwp_prepare_write() before each write; 0: let writes fault */
};

struct store {
	struct store *next;
	char *name;
	uint64_t id;   /* never given twice */
	unsigned refs; /* under the world's mutex */
	int prepare;
	struct uffdwp_region *region;
	unsigned char *base;
	uint64_t page_bytes;
	uint64_t capacity_bytes;
	_Atomic uint64_t length_bytes;            /* of the region */
	_Atomic uint64_t size_bytes;              /* of the database file */
	_Atomic(struct uffdwp_restore *) restore; /* of store_load(), until the store is freed; NULL: none */
	_Atomic int whole;                        /* 1: all that it brings is there */
	struct locks locks;
	struct shots shots;
};

/* Opens by name; makes the store with `config` if there is none and `config` is not NULL. 0, -ENOENT (none), -EEXIST (a
 * file of this name is on disk), -ENOMEM, or what the library answers; store_error_text() says why. */
int store_open(const char *name, const struct store_config *config, struct store **out);

/* Closes; the last one waits for a running snapshot and frees the database. 0, or the error of that last snapshot. */
int store_close(struct store *store);

/* 1: a store of this name is open. sidecar: or the name is such a store's with "-journal" or "-wal" after it. */
int store_named(const char *name);
int store_sidecar(const char *name);

/* Why the last store_open() of the process failed. Copies the text, always terminated. */
void store_error_text(char *buffer, size_t size);

/* Sets that text. */
void store_error_set(const char *text);

/* The text of the library's last error. */
void store_library_text(char *buffer, size_t size);

/* 0, -ENOSPC (beyond the capacity), or what the library answers. */
int store_reserve(struct store *store, uint64_t length);
int store_write(struct store *store, const void *data, size_t length, uint64_t offset);
int store_truncate(struct store *store, uint64_t length);

/* Makes an image on disk the content of an empty store, lazily: its pages come when they are touched. With EXCLUSIVE
 * held. 0, -EEXIST (the store is not empty), -EMEDIUMTYPE (not a database), -ENODATA (cut), or what the library
 * answers; the text goes to `text`, nothing has changed then. A header that says WAL is made to say that there is none.
 */
int store_load(struct store *store, const char *path, char *text, size_t text_bytes);

/* Waits for the pages of a range that a lazy load has not brought yet. 0, or why one of them cannot be loaded: touching
 * it would raise SIGBUS. */
int store_check(struct store *store, uint64_t offset, uint64_t length);

/* 1: nothing has to be waited for any more, and nothing failed. */
int store_is_whole(struct store *store);

/* Bytes that were there to read; the rest of the buffer is zeroed. */
size_t store_read(const struct store *store, void *buffer, size_t length, uint64_t offset);

/* Raises a holder, as locks_take(), and notes what this thread was refused. After a sleep that was shorter than SQLite
 * counted it the rest is waited here. 0 or -EBUSY. */
int store_lock(struct store *store, struct lock_holder *holder, enum lock_level level);
void store_unlock(struct store *store, struct lock_holder *holder, enum lock_level level);

/* Sleeps up to timeout_ns or until the level that this thread was refused last is its to take. 0: there was none. */
int store_sleep(uint64_t timeout_ns);

#endif
