/* SPDX-License-Identifier: MIT */
/*
 * A file that appears whole or not at all: written aside under .uffdwp-PID-N.tmp in the same folder with as many writes
 * in flight as there are slots, with O_DIRECT where the file system has it (the page cache would be of no use, and its
 * write-back would hit writers later), then synced, renamed, and the folder synced (INV-COMMIT).
 *
 * A slot is a buffer that writes are made from; its owner leaves it alone while its `pending` is not 0. Offsets in
 * slots and files, and lengths, are multiples of 4096: what is too much at the end the commit cuts off.
 *
 * Threads: one at a time, the same from the first submit on; image_file_pwrite() by several.
 */
#ifndef UFFDWP_IMAGE_FILE_H
#define UFFDWP_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/identity.h"
#include "base/text.h"
#include "image/target.h"
#include "kernel/kernel.h"

/* The file's name, in a path. */
static inline const char *image_name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

#define IMAGE_ALIGN 4096
#define IMAGE_SLOTS_MAX 8
#define IMAGE_NAME_BYTES TARGET_NAME_BYTES
#define IMAGE_FILE_MODE 0600 /* what memory held is for its owner */

struct loop;

struct image_slot {
	unsigned char *buffer;
	uint64_t offset; /* of the buffer's first byte in the file */
	unsigned pending;
};

struct image_file {
	const struct kernel_ops *k;
	struct loop *loop; /* made by the first image_file_submit(): begin does not wait for a ring */
	unsigned flags;    /* IMAGE_FILE_* */
	int fd;
	int folder;
	int tag; /* of both, see kernel/own.h */
	_Atomic int direct;
	_Atomic int uring; /* known from the first image_file_submit() on */
	struct image_slot slots[IMAGE_SLOTS_MAX];
	unsigned slot_count;
	size_t slot_bytes; /* of each buffer, if all stay where they are and are worth to be pinned once; else 0 */
	int kept;          /* the loop knows of them */
	_Atomic uint64_t bytes_written;
	int failed;         /* a write did */
	uint64_t failed_at; /* where in the file the first of them was */
	unsigned mode;
	int leftover; /* target_remove_at_exit() */
	char name[IMAGE_NAME_BYTES];
	char aside[64];
};

#define IMAGE_FILE_BUFFERED (1u << 0) /* through the page cache */
#define IMAGE_FILE_NO_URING (1u << 1)

/* Refuses what can be refused; on failure nothing is left. mode: permission bits, the umask takes from them; 0:
 * IMAGE_FILE_MODE. */
int image_file_open(struct image_file *file, const struct kernel_ops *k, const char *path, unsigned flags,
                    unsigned mode, struct text *text);

/* Starts a write of a part of a slot. Waits for others where too many are under way. One thread's. */
int image_file_submit(struct image_file *file, unsigned slot, size_t offset, size_t length);

/* Waits until writes have ended, or a moment passed. */
int image_file_reap(struct image_file *file);

/* Writes it all, now. */
int image_file_pwrite(struct image_file *file, const void *buffer, size_t length, uint64_t offset);

/* Nothing is under way any more: the file gets its length, is synced and gets its name. *identity but its id. */
int image_file_commit(struct image_file *file, uint64_t length_bytes, struct image_identity *identity,
                      struct text *text);

/* Waits for what is under way, takes back what is there unless it was committed. Also for one that was never opened, if
 * fd and folder are -1. */
void image_file_close(struct image_file *file, int committed);

#endif
