/* SPDX-License-Identifier: MIT */
/*
 * Small files in memory, by name: the rollback journals of databases that live in regions. They need no disk, because
 * the database that they repair does not outlive the process either.
 *
 * A file exists under its name until it is unlinked, and its bytes until the last connection that has it open closes
 * it; every access takes the file's own mutex (a connection that looks for a hot journal may look while its owner
 * writes).
 */
#ifndef UFFDWP_SQLITE_MEMFILE_H
#define UFFDWP_SQLITE_MEMFILE_H

#include <stddef.h>
#include <stdint.h>

struct memfile;

/* Opens, and makes it where `create` is set. 0, -ENOENT or -ENOMEM. */
int memfile_open(const char *name, int create, struct memfile **out);
void memfile_close(struct memfile *file);

/* 1: a file of this name exists. */
int memfile_exists(const char *name);

/* 1: a journal of this name exists and begins with a byte that is not zero, as a hot one does. */
int memfile_hot(const char *name);

/* 0 or -ENOENT. */
int memfile_unlink(const char *name);

/* Bytes that were there to read; the rest of the buffer is zeroed. */
size_t memfile_read(struct memfile *file, void *buffer, size_t length, uint64_t offset);

/* 0, -ENOMEM or -EFBIG. */
int memfile_write(struct memfile *file, const void *data, size_t length, uint64_t offset);
int memfile_truncate(struct memfile *file, uint64_t length);
uint64_t memfile_length(struct memfile *file);

#endif
