/* SPDX-License-Identifier: MIT */
/*
 * Writes a delta (FORMAT.md): pages come in any order, each once; their bytes go to the file as they come, in writes of
 * 1 MiB with several in flight, and the index is kept by page number in a table that is address space until it is used,
 * so that it is in order at the end without being sorted. Nothing is allocated after the opening, and nothing at all in
 * the caller's heap.
 *
 * Threads: one at a time.
 */
#ifndef UFFDWP_IMAGE_WRITER_H
#define UFFDWP_IMAGE_WRITER_H

#include "image/file.h"
#include "image/format.h"

/* The image that the delta follows. */
struct image_parent {
	struct image_id id;
	uint64_t length_bytes;
	int is_raw;
	char name[DELTA_NAME_BYTES]; /* of its file, without a folder */
};

struct image_writer_options {
	const char *path;
	unsigned flags; /* IMAGE_FILE_BUFFERED, _NO_URING */
	unsigned mode;  /* as of image_file_open() */
	uint32_t compress;
	uint64_t page_bytes;
	uint64_t region_page_bytes;
	uint64_t pages_most; /* page numbers are below */
};

struct image_writer;

int image_writer_open(const struct kernel_ops *k, const struct image_writer_options *options, struct text *text,
                      struct image_writer **out);

/* The content of a page, all of it: beyond the image's end it must be zeros. -EEXIST: it came before. */
int image_writer_put(struct image_writer *writer, uint64_t page, const void *data);

/* Pages that are not below length_bytes are left out. */
int image_writer_commit(struct image_writer *writer, const struct image_parent *parent, uint64_t length_bytes,
                        struct image_identity *identity, struct text *text);
void image_writer_close(struct image_writer *writer, int committed);

/* Its file, to look at. */
const struct image_file *image_writer_file(const struct image_writer *writer);

/* What a delta of a region with such pages counts in. */
static inline uint64_t image_page_bytes(uint64_t region_page_bytes)
{
	return region_page_bytes < DELTA_PAGE_BYTES_MOST ? region_page_bytes : DELTA_PAGE_BYTES_MOST;
}

#endif
