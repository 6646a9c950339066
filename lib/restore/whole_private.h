/* SPDX-License-Identifier: MIT */
/* What the files of a whole restore share; see whole.h. whole.c begins and ends it, whole_read.c reads blocks and hands
 * them over, whole_block.c does one block. */
#ifndef UFFDWP_RESTORE_WHOLE_PRIVATE_H
#define UFFDWP_RESTORE_WHOLE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "image/base.h"
#include "image/gauge.h"
#include "restore/restore.h"
#include "restore/whole.h"

#define BLOCK_BYTES BASE_BLOCK_BYTES
#define BLOCK_ALIGN 4096
#define BLOCK_GAP_BYTES 16384 /* holes of so much and more are not read; see image/zeros.c */
#define BLOCK_RUNS 64         /* 1 MiB has not more, with such gaps */

/* What there is to do for [offset, offset + BLOCK_BYTES) of the image. */
struct block {
	uint64_t offset;
	size_t length; /* of the image */
	size_t part;   /* of the raw file */
	size_t shown;  /* of that, what no newer image cut off */
	unsigned count;
	struct base_run runs[BLOCK_RUNS]; /* where the raw file has data */
};

struct block_order {
	uint64_t number; /* of a block */
	int landed;      /* the raw file's data is in its place */
};

struct whole {
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	struct uffdwp_image *image;
	const struct image_link *base;
	uint64_t block_count;

	unsigned char *place; /* where the region's first byte is written; NULL: by whole_put() only */
	size_t alias_bytes;   /* of a mapping of our own; 0: it is the region's */

	int direct_fd; /* of the raw file; -1: none */
	_Atomic int direct;
	int uring;
	struct base_list list; /* of a chain: blocks of the raw file */

	pthread_t threads[RESTORE_THREADS_MAX];
	unsigned thread_count;
	unsigned char *buffer; /* of the caller's thread */
	struct lock lock;
	pthread_cond_t more;
	struct block_order *orders; /* handed over; room for all blocks. The rest up to `closed` is under `lock` */
	uint64_t order_count;
	uint64_t order_taken;
	int closed;

	_Atomic int error; /* the first */
	_Atomic uint64_t error_offset;
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_done;
	struct gauge gauge; /* counts bytes of the image */
};

/* The first error is what is reported. Returns it as it came. */
int whole_fail(struct whole *whole, int error, uint64_t offset);

/* whole_block.c */
void block_look(const struct whole *whole, uint64_t number, struct block *block);

/* The first block at or after `number` that there is something to do for. What lies beyond the image is read for the
 * raw file's id alone: its holes, however long they are, are none. */
uint64_t block_next(const struct whole *whole, uint64_t number);

/* 1: its data may be read straight to its place. */
int block_is_straight(const struct whole *whole, const struct block *block);

/* 1: some delta holds a page of it. */
int block_has_pieces(const struct whole *whole, const struct block *block);

/* The descriptor to read the raw file by. */
int block_fd(const struct whole *whole);

/* What came of a read of the raw file, by direct_fd or not: how much of it is there now, the rest is to be read again;
 * or -errno, reported. */
int64_t block_read_result(struct whole *whole, int direct, uint64_t offset, size_t length, int64_t result);

/* The raw file's data of it is in its place. */
void block_landed(struct whole *whole, const struct block *block);

/* All of it, in this thread; `buffer` has BLOCK_BYTES. */
int block_run(struct whole *whole, const struct block *block, unsigned char *buffer);

/* What is left to do after its data landed. */
int block_finish(struct whole *whole, const struct block *block);

/* whole_read.c: all blocks. */
void whole_read(struct whole *whole, const struct whole_request *request);

#endif
