/* SPDX-License-Identifier: MIT */
/*
 * An image that is open: a raw file, or a delta with all its ancestors down to the raw one (a chain). Links are counted
 * from the image itself, 0, to the oldest.
 *
 * At the opening every delta's header, trailer and index are checked, and a table of pieces is made: for each page that
 * any delta holds, which link has it newest. What no piece covers is the base's. The content of a page is checked when
 * it is read; that the base is the one that is meant when it is read whole (chain_verify(), chain_merge()).
 *
 * Lengths: a link may be shorter than its parent. What a link cut off does not come back beyond it: `clip` of a link is
 * how far its content reaches into the image, the least length of it and all newer ones; beyond that are zeros.
 *
 * INV-LINK: nothing of a link is used before its id was found to be the one that its child names (of a raw base:
 * before a result that rests on it is committed; at the opening where several files may be it).
 *
 * Threads: chain_read(), chain_next() and chain_info() by any, also in a signal handler: they allocate nothing, take no
 * lock, and what they find damaged is noted in `bad_*` and becomes text when that is asked for. Compressed pages need
 * one of `unpacker_count` workplaces; a thread waits while all are taken.
 */
#ifndef UFFDWP_IMAGE_CHAIN_H
#define UFFDWP_IMAGE_CHAIN_H

#include <stdatomic.h>

#include "base/text.h"
#include "image/format.h"
#include "image/writer.h"
#include "kernel/kernel.h"
#include "uffdwp.h"

#define CHAIN_LINKS_MAX 512
#define CHAIN_PATH_BYTES 4096
#define UNPACKERS_MAX 64

struct image_link {
	int fd;
	int is_raw;
	uint64_t file_bytes;
	uint64_t length_bytes;
	uint64_t clip;
	struct delta_header header; /* of a delta; also the rest */
	struct delta_trailer trailer;
	unsigned char *index;        /* NULL: it has no entry */
	size_t index_room;           /* bytes of memory that it has */
	uint64_t kinds[DELTA_KINDS]; /* pages of each kind */
	char path[CHAIN_PATH_BYTES];
};

/* A page, and the entry of the link's index that has it. */
struct piece {
	uint64_t page;
	uint64_t place; /* link << 48 | entry */
};

/* Where compressed pages are unpacked. */
struct unpacker {
	void *state; /* pack.h */
	unsigned char *packed;
	unsigned char *page;
};

struct uffdwp_image {
	const struct kernel_ops *k;
	struct text text;
	struct image_link *links;
	uint32_t link_count;
	uint64_t length_bytes;
	uint64_t page_bytes; /* of all deltas; raw alone: 4096 */

	struct piece *pieces; /* by page */
	uint64_t piece_count;
	uint64_t piece_room;

	uffdwp_progress_fn progress; /* of calls that read all of it; NULL: none */
	void *progress_user;

	struct unpacker unpackers[UNPACKERS_MAX];
	unsigned unpacker_count;
	unsigned char *unpacker_memory;
	size_t unpacker_bytes;
	_Atomic uint64_t unpackers_taken; /* a bit each */

	_Atomic uint32_t bad; /* 1: the rest of it is valid, and not yet text */
	uint32_t bad_link;
	int bad_error;
	uint64_t bad_page;
	uint64_t bad_at; /* in the link's file */
};

struct gauge; /* gauge.h */

struct chain_options {
	uint32_t flags; /* UFFDWP_IMAGE_* */
	unsigned contexts;
	const char *const *paths;
	size_t path_count;
};

int chain_open(const struct kernel_ops *k, const char *path, const struct chain_options *options, struct text *text,
               struct uffdwp_image **out);
void chain_close(struct uffdwp_image *image);

/* unpack.c */
/* -ENOMEM; -EOPNOTSUPP: there are compressed pages, and the library was built without zstd. */
int unpackers_open(struct uffdwp_image *image, unsigned count);
void unpackers_close(struct uffdwp_image *image);
struct unpacker *unpacker_take(struct uffdwp_image *image);
void unpacker_give(struct uffdwp_image *image, struct unpacker *unpacker);
/* A page as it was stored into its content: 0 or -EBADMSG. */
int unpacker_run(struct unpacker *unpacker, size_t packed_bytes, void *to, size_t page_bytes);

/* Reads [offset, offset + length), which lies inside. */
int chain_read(struct uffdwp_image *image, uint64_t offset, void *to, size_t length);

/* The whole page of a piece, whatever newer links have. */
int chain_read_page(struct uffdwp_image *image, const struct piece *piece, void *to);

/* The first piece whose page is not below `page`, by number. */
uint64_t chain_find(const struct uffdwp_image *image, uint64_t page);

static inline uint32_t chain_piece_link(const struct piece *piece)
{
	return (uint32_t)(piece->place >> 48);
}

static inline struct delta_entry chain_piece_entry(const struct uffdwp_image *image, const struct piece *piece)
{
	uint64_t number = piece->place & ((1ull << 48) - 1);

	return delta_decode_entry(image->links[chain_piece_link(piece)].index + number * DELTA_ENTRY_BYTES);
}

/* The raw file at the end of the chain; its clip is how much of it shows. */
static inline const struct image_link *chain_base(const struct uffdwp_image *image)
{
	return &image->links[image->link_count - 1];
}

/* Pages and entry of a delta read and checked: 0 or the error, noted as damage of that link. */
int chain_note_bad(struct uffdwp_image *image, int error, uint32_t link, uint64_t page, uint64_t at);

/* What was noted becomes text. */
void chain_form_text(struct uffdwp_image *image);

/* The first byte in [offset, end) that is not known to be zero; `end`, or the image's end if that comes first: there is
 * none. It takes as long as what it skips has pages. */
uint64_t chain_skip_zeros(const struct uffdwp_image *image, uint64_t offset, uint64_t end);

int chain_next(const struct uffdwp_image *image, uint64_t offset, struct uffdwp_image_extent *extent);
void chain_info(const struct uffdwp_image *image, uint32_t link, struct uffdwp_image_info *info);

/* Reads the raw file whole: its id, and -EXDEV where that is not what its child names; judge: when it was read. `gauge`
 * gets all its bytes, holes too. */
int chain_check_base(struct uffdwp_image *image, struct image_id *id, struct gauge *gauge);
int chain_judge_base(struct uffdwp_image *image, struct image_id id);

/* -EINVAL where `path` is a file of the chain. */
int chain_check_target(struct uffdwp_image *image, const char *path, struct text *text);

int chain_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified);
int chain_merge(struct uffdwp_image *image, const char *path, const struct uffdwp_image_merge_options *options);
int chain_diff(struct uffdwp_image *from, struct uffdwp_image *to, struct uffdwp_image_diff *diff);

/* The identity of this image, for a delta that follows it. A raw image is not known by itself: `id` is what was
 * found. */
void chain_as_parent(const struct uffdwp_image *image, struct image_id raw_id, struct image_parent *parent);

#endif
