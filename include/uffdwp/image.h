/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * images in files, and chains of them. */
#ifndef UFFDWP_IMAGE_H
#define UFFDWP_IMAGE_H

#include "runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Images in files: raw ones, which any tool can open, and deltas, which hold the pages that were written since their
 * parent (uffdwp_snapshot_options.parent). A delta, its parent, and so on down to the raw one are a chain; it reads as
 * the raw image would that a snapshot without a parent had made. The file format of deltas is described in
 * lib/image/FORMAT.md of the source.
 *
 * Each file has an id that follows from its content: of a delta a hash of its header and index, which holds a checksum
 * of each page, and its parent's id; of a raw one a hash of all of it. Damage is found, forgery is not prevented.
 */
struct uffdwp_image;

struct uffdwp_image_id {
	uint64_t low; /* both 0: not known */
	uint64_t high;
};

/* The file is raw, also if it begins as a delta does (memory may hold anything) */
#define UFFDWP_IMAGE_OPEN_RAW (1u << 0)

struct uffdwp_image_options {
	size_t sz;         /* sizeof(struct uffdwp_image_options) */
	uint32_t flags;    /* UFFDWP_IMAGE_OPEN_* */
	uint32_t contexts; /* reads of compressed pages at the same time, 1 to 64; 0: 16. A further reader waits for a
	                      free one; a read in a signal handler needs a free one */
	const char *const *paths; /* files (no folders) that may be ancestors, under any name; NULL: none */
	size_t path_count;        /* of paths */
};
#define UFFDWP_IMAGE_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_image_options)

/*
 * Opens an image for reading. With a delta all its ancestors are opened (a chain has at most 512 files): each is looked
 * for beside its child (where a symbolic link leads, too), under the name that the child has for it, then among
 * `paths`, first those of that name. Headers and indexes of all deltas are checked; pages when they are read. Whether
 * the raw image is the one that is meant is checked by its length only, so that an open of a chain whose raw image was
 * replaced by another one of that length answers 0: uffdwp_image_verify(), uffdwp_image_merge() and uffdwp_image_diff()
 * read it all and know. But where several files have its length, the open reads them whole until one is found to be it,
 * which takes that long. The files must not be changed meanwhile.
 *
 * Errors: -EINVAL, -E2BIG, -ENOENT (the image or an ancestor is not there), -EISDIR, -EACCES, -ENAMETOOLONG, -EMFILE,
 * -EBADMSG (a file is damaged: the text names file, byte and field), -EXDEV (what is found in an ancestor's place is
 * another image), -EPROTONOSUPPORT (a later version of the format), -ELOOP (the chain has more than 512 files), -EFBIG
 * (several files may be the raw image, and are longer than 128 TiB), -EOPNOTSUPP (compressed pages, and the library was
 * built without zstd), -EIO, -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_image_open(const char *path, const struct uffdwp_image_options *options,
                                                      struct uffdwp_image **out);

/* Closes an image and its ancestors; no thread may read it any more. Since 0.1. */
UFFDWP_EXPORT int uffdwp_image_close(struct uffdwp_image *image);

/* Says what was last found wrong with an image: in whatever thread, also by uffdwp_image_read(), which leaves nothing
 * in uffdwp_error_text(); but not -ERANGE and -EOVERFLOW. Returns the length of the text, which is copied as by
 * uffdwp_error_text(). Since 0.1. */
UFFDWP_EXPORT size_t uffdwp_image_text(struct uffdwp_image *image, char *buffer, size_t size);

enum uffdwp_image_kind { UFFDWP_IMAGE_KIND_RAW = 0, UFFDWP_IMAGE_KIND_DELTA = 1 };

struct uffdwp_image_info {
	size_t sz;                     /* set by the caller */
	uint32_t kind;                 /* enum uffdwp_image_kind */
	uint32_t links;                /* files of the chain, from this one on */
	uint32_t compress;             /* delta: the level that was asked for */
	uint32_t reserved;             /* 0 */
	uint64_t length_bytes;         /* of the memory that it shows */
	uint64_t file_bytes;           /* of the file */
	uint64_t page_bytes;           /* what a delta counts in */
	uint64_t region_page_bytes;    /* delta: of the region; 0: raw */
	uint64_t pages_raw;            /* delta: pages stored as they are */
	uint64_t pages_zeros;          /* delta: of zeros, not stored */
	uint64_t pages_packed;         /* delta: compressed */
	struct uffdwp_image_id id;     /* raw: as its child says; raw alone: not known before uffdwp_image_verify() */
	struct uffdwp_image_id parent; /* delta */
	const char *path;              /* valid until the image is closed */
	const char *parent_name;       /* delta; else NULL */
	uint64_t allocated_bytes;      /* what the file system holds of the file: less, where it has holes */
};

/*
 * Describes a file of a chain: link 0 is the image itself, the last one the raw image. -EINVAL (sz too small),
 * -ERANGE (the chain has not so many files). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_info(const struct uffdwp_image *image, uint32_t link, struct uffdwp_image_info *info);

/*
 * Reads memory that an image shows: [offset, offset + length). Pages of deltas are checked; on an error the
 * buffer's content is undefined. Takes no lock and allocates nothing. Async-signal-safe where no page of the range is
 * compressed, or a context is idle. -ERANGE (outside), -EOVERFLOW, -EBADMSG (a page is damaged), -EIO.
 * Forms no text but that of uffdwp_image_text(). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_read(struct uffdwp_image *image, uint64_t offset, void *buffer, uint64_t length);

enum uffdwp_extent_kind {
	UFFDWP_EXTENT_ZEROS = 0, /* zeros, stored nowhere */
	UFFDWP_EXTENT_DATA = 1,  /* as they are, in a file */
	UFFDWP_EXTENT_PACKED = 2 /* compressed: uffdwp_image_read() */
};

struct uffdwp_image_extent {
	size_t sz;            /* set by the caller */
	uint64_t offset;      /* as it was asked for */
	uint64_t length;      /* how far it is alike; more of the same kind may follow */
	uint32_t kind;        /* enum uffdwp_extent_kind */
	uint32_t link;        /* in which file of the chain, as of uffdwp_image_info() */
	int32_t fd;           /* DATA: of the file; stays the library's, its position is undefined. Else -1 */
	uint32_t reserved;    /* 0 */
	uint64_t file_offset; /* DATA */
};

/*
 * Says where bytes of an image come from: those at `offset`, for copies that need not pass through memory; they are not
 * checked then. Returns 1, or 0 at the image's end (nothing is written), or a negative errno. -EINVAL (sz too small).
 * Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_next(const struct uffdwp_image *image, uint64_t offset,
                                    struct uffdwp_image_extent *extent);

/*
 * Names a callback that reports how far a call is: of each later uffdwp_image_verify(), uffdwp_image_merge() and
 * uffdwp_image_diff() (there `from`) with this image; NULL: none. It is called about once for each MiB, with sums that
 * do not go back, and where a call succeeds a last time with done_bytes equal to total_bytes, before a result is synced
 * and gets its name. What counts are bytes of the files that are read, of a raw result its length; holes count, and
 * take no time. The callback runs in the thread that made the call or in one of the library's, there with signals
 * blocked, in one at a time; a thread that reads waits for it, so it should return soon. It must not use the image. The
 * error that it returns (a negative errno, -ECANCELED for one) is the call's answer. To be called while no other call
 * with the image runs. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_progress(struct uffdwp_image *image, uffdwp_progress_fn callback, void *user);

struct uffdwp_image_verified {
	size_t sz;                     /* set by the caller */
	uint32_t links;                /* files that are whole, from the newest on */
	uint32_t reserved;             /* 0 */
	uint64_t pages;                /* of deltas, checked */
	uint64_t bytes_read;           /* of all files */
	struct uffdwp_image_id raw_id; /* of the raw image, as it was found */
};

/*
 * Reads all files of a chain and checks every byte: of deltas each page and the whole file, and that the raw image is
 * the one that its child names. Returns 0 where all is well. `verified` is filled in any case but -EINVAL (sz). Errors,
 * of which the text names the file and the byte: -EBADMSG (a file is damaged), -EXDEV (the raw image is another one, or
 * was changed), -EFBIG (the raw image is longer than 128 TiB), -EIO, -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified);

#define UFFDWP_IMAGE_MERGE_BUFFERED (1u << 1) /* write through the page cache */

struct uffdwp_image_merge_options {
	size_t sz;         /* sizeof(struct uffdwp_image_merge_options) */
	uint32_t flags;    /* UFFDWP_IMAGE_MERGE_* */
	uint32_t deltas;   /* 0: the result is a raw image; N: a delta, which takes the place of the newest N */
	uint32_t compress; /* of a delta: level of zstd, 0 to 19 */
	uint32_t threads;  /* raw: that read and write, 1 to 64; 0: 4 */
	uint32_t mode;     /* permission bits of the result, from which the umask takes; 0: 0600 */
	uint32_t reserved; /* 0 */
};
#define UFFDWP_IMAGE_MERGE_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_image_merge_options)

/*
 * Writes what a chain shows into one file: at `path`, which appears complete and synced, or not at all: as a raw image,
 * with holes where zeros are; or several deltas as one, whose parent is that of the oldest of them. All that is read is
 * checked, also that the raw image is the right one (-EXDEV): for a raw result, and for a delta where the result
 * depends on it because an image that is merged is shorter than both. An image of the chain cannot be replaced
 * (-EINVAL). A symbolic link as `path` is followed: the file takes the place of the one that it leads to. Errors: those
 * of uffdwp_image_open(), -ENOSPC, -EDQUOT, -EROFS, -EFBIG (the file system has no file of this length), -ERANGE (the
 * chain has not so many deltas), -EAGAIN (no thread), -EOPNOTSUPP (`compress`, and the library was built without zstd).
 * Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_merge(struct uffdwp_image *image, const char *path,
                                     const struct uffdwp_image_merge_options *options);

/* Bytes [offset, offset + length) differ. Not 0: the call ends with it. */
typedef int (*uffdwp_diff_fn)(void *user, uint64_t offset, uint64_t length);

struct uffdwp_image_diff {
	size_t sz;               /* sizeof(struct uffdwp_image_diff) */
	uint32_t flags;          /* 0 */
	uint32_t compress;       /* with a path: level of zstd, 0 to 19 */
	const char *path;        /* a delta that leads from the one to the other; NULL: none is written */
	uffdwp_diff_fn callback; /* called for each range, in order, in the calling thread; NULL: none */
	void *user;              /* for callback */

	/* The answer. */
	uint64_t ranges;     /* that differ, in pages of `page_bytes` */
	uint64_t bytes;      /* the sum of them */
	uint64_t page_bytes; /* the granularity of the comparison */

	uint32_t mode;     /* asked, with a path: permission bits of the delta, from which the umask takes; 0: 0600 */
	uint32_t reserved; /* 0 */
};
#define UFFDWP_IMAGE_DIFF_INIT UFFDWP_INIT(struct uffdwp_image_diff)

/*
 * Compares what two images show: page by page; what one has beyond the other's end is compared with zeros (where only
 * their lengths differ there is no range). The delta's parent is `from`. Errors: those of uffdwp_image_merge(), -EINVAL
 * (sz, flags), and what the callback returned. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_image_diff(struct uffdwp_image *from, struct uffdwp_image *to, struct uffdwp_image_diff *diff);

#ifdef __cplusplus
}
#endif

#endif
