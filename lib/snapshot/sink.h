/* SPDX-License-Identifier: MIT */
/*
 * A sink: where the bytes of a snapshot go, with a small interface. The sweep fills a chunk (a few hundred KiB of the
 * region, assembled in memory of ours) and gives it to the sink; the sink gives it back by chunk_done(), at once or
 * when its I/O has ended. All calls come from the snapshot's thread, but open(), and some of prepare(), which run in
 * the caller of begin.
 */
#ifndef UFFDWP_SNAPSHOT_SINK_H
#define UFFDWP_SNAPSHOT_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "image/base.h"
#include "image/file.h"
#include "image/writer.h"

struct nbd_sink;
struct text;
struct uffdwp_snapshot;

struct chunk {
	unsigned char *buffer;
	uint64_t offset; /* in the image */
	size_t length;   /* bytes; a multiple of the page size */
	int busy;        /* filled and not given back */
};

struct sink_ops {
	int ordered; /* chunks must come from first to last, without a gap */
	/* Refuses what can be refused; on failure nothing is left. Forms the text. */
	int (*open)(struct uffdwp_snapshot *snapshot, struct text *text);
	/* What needs to know the content: before the cut, in the caller of begin; where that is looked at later, when
	 * it was. NULL: nothing. */
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
extern const struct sink_ops sink_delta;
extern const struct sink_ops sink_stream;
extern const struct sink_ops sink_callback;
extern const struct sink_ops sink_nbd;

/* The state of all kinds; each uses its own part. */
struct sink {
	const struct sink_ops *ops;
	_Atomic int direct;
	_Atomic int uring;              /* known from the first write on */
	struct image_identity identity; /* the same with its file */

	struct image_file file; /* image */
	struct base_list base;

	struct image_writer *writer; /* delta */
	struct image_parent parent;

	int fd;      /* stream */
	int is_file; /* regular files need no poll */

	struct nbd_sink *nbd;
	uint64_t room_bytes; /* the longest image that fits; 0: unknown */
	char reason[256];    /* why the sink failed, where an error number says too little; the snapshot's thread */
	int error;           /* of the sink itself, not of what else ended the snapshot; the snapshot's thread */
};

/* A run of a chunk that is not all zeros. */
struct chunk_run {
	size_t offset; /* in the chunk */
	size_t length;
};

/* The next run at or after `from`, zeros of 16 KiB and more left out. 0: none. */
int chunk_next_run(const struct chunk *chunk, size_t from, struct chunk_run *run);

void chunk_done(struct chunk *chunk);

/* IMAGE_FILE_* as the options say. */
unsigned sink_file_flags(const struct uffdwp_snapshot *snapshot);

/* After the commit: the region's next delta may have this image as its parent. */
void sink_remember(struct uffdwp_snapshot *snapshot);

/* targets.c: the delta that this snapshot becomes against its ancestors, those that lie beside its parent: -EINVAL
 * where it would replace one of them, -ELOOP where there are too many. */
int targets_check_delta(const struct uffdwp_snapshot *snapshot, struct text *text);

/* targets.c: snapshot `last` of a group against those before it: if two images had one name, the later one would
 * replace the other, and no image may replace what a delta of the group rests on. 0 or -EINVAL. */
int targets_check_group(struct uffdwp_snapshot *const *snapshots, size_t last, struct text *text);

/* -EXDEV, with a text, unless the image at options.parent is `last`, the one that was committed last of this region;
 * else *parent is its identity. Reads its header at most. */
int delta_check_parent(const struct uffdwp_snapshot *snapshot, const struct image_identity *last,
                       struct image_parent *parent, struct text *text);

#endif
