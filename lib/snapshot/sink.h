/* SPDX-License-Identifier: MIT */
/*
 * A sink: where the bytes of a snapshot go, behind a small interface. The sweep fills a chunk (a few hundred KiB of the
 * region, assembled in memory of ours) and gives it to the sink; the sink gives it back by chunk_done(), at once or
 * when its I/O has ended. All calls come from the snapshot's thread, but open(), which runs in the caller of begin.
 */
#ifndef UFFDWP_SNAPSHOT_SINK_H
#define UFFDWP_SNAPSHOT_SINK_H

#include <stddef.h>
#include <stdint.h>

struct loop;
struct text;
struct uffdwp_snapshot;

struct chunk {
	unsigned char *buffer;
	uint64_t offset;  /* in the image */
	size_t length;    /* bytes; a multiple of the page size */
	unsigned pending; /* writes under way */
	int busy;         /* filled and not given back */
};

struct sink_ops {
	int ordered; /* chunks must come from first to last, without a gap */
	/* Refuses what can be refused; on failure nothing is left behind. Forms the text. */
	int (*open)(struct uffdwp_snapshot *snapshot, struct text *text);
	/* What needs to know the content; before the cut, in the caller of begin. NULL: nothing. */
	int (*prepare)(struct uffdwp_snapshot *snapshot, struct text *text);
	/* Takes a chunk. -errno ends the snapshot. */
	int (*write)(struct uffdwp_snapshot *snapshot, struct chunk *chunk);
	/* Waits until a chunk may have come back, or a moment passed; NULL: none is ever under way. */
	int (*reap)(struct uffdwp_snapshot *snapshot);
	/* All chunks are back. Makes the result appear, or forms snapshot->text; NULL: nothing to do. */
	int (*commit)(struct uffdwp_snapshot *snapshot);
	/* Ends I/O that is under way, takes back what is there unless committed, frees. */
	void (*close)(struct uffdwp_snapshot *snapshot, int committed);
};

extern const struct sink_ops sink_image;
extern const struct sink_ops sink_stream;
extern const struct sink_ops sink_callback;

/* The state of all kinds; each uses its own part. */
struct sink {
	const struct sink_ops *ops;
	struct loop *loop; /* image; made in the snapshot's thread */
	int fd;
	int folder;
	_Atomic int direct;
	int uring;
	int is_file; /* stream: regular files need no poll */
	char name[256];
	char aside[64];
};

/* A run of a chunk that is not all zeros. */
struct chunk_run {
	size_t offset; /* in the chunk */
	size_t length;
};

/* The next run at or after `from`, zeros of 16 KiB and more left out. 0: none. */
int chunk_next_run(const struct chunk *chunk, size_t from, struct chunk_run *run);

void chunk_done(struct chunk *chunk);

#endif
