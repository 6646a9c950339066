/* SPDX-License-Identifier: MIT */
/*
 * The raw image file: sparse, the size of the snapshot, byte for byte the region at the cut, written by image/file.h.
 * Its identity is made from the chunks as they pass (image/base.h); where those are smaller than a block of that, it is
 * read back once before the commit.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "snapshot/snapshot.h"

#define IMAGE_GAP_PAGES 16

static void image_close(struct uffdwp_snapshot *snapshot, int committed);

unsigned sink_file_flags(const struct uffdwp_snapshot *snapshot)
{
	return (snapshot->options.flags & UFFDWP_SNAPSHOT_BUFFERED ? IMAGE_FILE_BUFFERED : 0) |
	       (snapshot->no_uring ? IMAGE_FILE_NO_URING : 0);
}

void sink_remember(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	lock_take(&region->lock);
	region->last_image = snapshot->sink.identity;
	lock_give(&region->lock);
}

static int image_open(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct sink *sink = &snapshot->sink;
	struct image_file *file = &sink->file;
	int error = image_file_open(file, snapshot->k, snapshot->options.path, sink_file_flags(snapshot),
	                            snapshot->options.mode, text);

	if (error)
		return error;
	sink->direct = file->direct;
	error = base_open(&sink->base, snapshot->k, snapshot->cut.pages_most << snapshot->region->page_shift);
	if (!error)
		return 0;
	image_close(snapshot, 0);
	return text_fail(text, error, "no memory for the image's checksums");
}

/* The next run of pages with content at or after `page`, short gaps taken along. 0: none. */
static int image_content_run(const struct uffdwp_snapshot *snapshot, uint64_t page, uint64_t *first, uint64_t *end)
{
	uint64_t pages = snapshot->preserve.end_page;

	while (page < pages && !snapshot_had_content(snapshot, page))
		page++;
	*first = page;
	*end = page;
	for (; page < pages && page - *end < IMAGE_GAP_PAGES; page++) {
		if (snapshot_had_content(snapshot, page))
			*end = page + 1;
	}
	return *first < pages;
}

/*
 * Blocks for what has content are reserved as soon as that is known, mostly before the cut: writes with O_DIRECT then
 * need not wait for each other's allocation, and a full disk is refused here instead of in the middle. Not on tmpfs,
 * which would fill them with zeros.
 */
static int image_prepare(struct uffdwp_snapshot *snapshot, struct text *text)
{
	const struct kernel_ops *k = snapshot->k;
	int fd = snapshot->sink.file.fd;
	unsigned shift = snapshot->region->page_shift;
	uint64_t first;
	uint64_t end = 0;
	int error = 0;

	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		snapshot->sink.file.slots[i].buffer = snapshot->chunks[i].buffer;
	snapshot->sink.file.slot_count = snapshot->chunk_count;
	snapshot->sink.file.slot_bytes = snapshot->chunk_pages << shift;
	if (!snapshot->sink.direct || k->fs_type(fd) == TMPFS_MAGIC)
		return 0;
	while (!error && image_content_run(snapshot, end, &first, &end))
		error = k->fallocate(fd, 0, first << shift, (end - first) << shift);
	if (error == -ENOSPC || error == -EDQUOT || error == -EFBIG)
		return text_fail(text, error, "no room for the image: %s%s", errno_text(error),
		                 error == -EFBIG ? "; see the limit of file sizes (ulimit -f)" : "");
	return 0; /* anything else: this file system cannot, and need not */
}

/* Whether each chunk is made of whole blocks of the identity's list. */
static int image_chunks_are_blocks(const struct uffdwp_snapshot *snapshot)
{
	return math_is_aligned(snapshot->chunk_pages << snapshot->region->page_shift, BASE_BLOCK_BYTES);
}

/* What the first write that failed was to save is where the snapshot failed. */
static int image_report(struct uffdwp_snapshot *snapshot, int error)
{
	const struct image_file *file = &snapshot->sink.file;

	if (error && file->failed)
		snapshot_sink_fail(snapshot, error, file->failed_at >> snapshot->region->page_shift);
	return error;
}

static int image_reap(struct uffdwp_snapshot *snapshot)
{
	struct image_file *file = &snapshot->sink.file;
	int error = image_file_reap(file);

	for (unsigned i = 0; i < snapshot->chunk_count; i++) {
		if (snapshot->chunks[i].busy && !file->slots[i].pending)
			chunk_done(&snapshot->chunks[i]);
	}
	snapshot->sink.direct = file->direct;
	snapshot->sink.uring = atomic_load(&file->uring);
	snapshot->bytes_written = file->bytes_written;
	return image_report(snapshot, error);
}

static int image_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	struct image_file *file = &snapshot->sink.file;
	unsigned slot = (unsigned)(chunk - snapshot->chunks);
	struct chunk_run run = {0, 0};
	int error = 0;

	if (image_chunks_are_blocks(snapshot))
		base_put(&snapshot->sink.base, chunk->offset, chunk->buffer,
		         (size_t)math_min_u64(chunk->length, snapshot->cut.length_bytes - chunk->offset));
	file->slots[slot].offset = chunk->offset;
	while (!error && chunk_next_run(chunk, run.offset + run.length, &run))
		error = image_file_submit(file, slot, run.offset, run.length);
	if (!error && !file->slots[slot].pending)
		chunk_done(chunk);
	return image_report(snapshot, error);
}

/* The id is made of blocks of BASE_BLOCK_BYTES; chunks of another size were not put into it as they passed. */
static int image_read_back(struct uffdwp_snapshot *snapshot)
{
	const struct kernel_ops *k = snapshot->k;
	struct sink *sink = &snapshot->sink;
	unsigned char *buffer = pages_new(k, BASE_BLOCK_BYTES);

	if (!buffer)
		return -ENOMEM;
	/* Before it has its length: what is beyond the last write reads as zeros then, too. */
	int error = k->ftruncate(sink->file.fd, snapshot->cut.length_bytes);

	if (!error)
		error = k->change_flags(sink->file.fd, 0, O_DIRECT);
	if (!error)
		error = base_put_file(&sink->base, sink->file.fd, snapshot->cut.length_bytes, buffer, NULL, NULL);
	pages_free(k, buffer, BASE_BLOCK_BYTES);
	return error;
}

static int image_commit(struct uffdwp_snapshot *snapshot)
{
	struct sink *sink = &snapshot->sink;
	int error = image_chunks_are_blocks(snapshot) ? 0 : image_read_back(snapshot);

	if (error)
		return text_fail(&snapshot->text, error, "the image could not be read back: %s", errno_text(error));
	sink->identity.id = base_id(&sink->base, snapshot->cut.length_bytes);
	sink->identity.is_raw = 1;
	sink->identity.length_bytes = snapshot->cut.length_bytes;
	error = image_file_commit(&sink->file, snapshot->cut.length_bytes, &sink->identity, &snapshot->text);
	if (!error)
		sink_remember(snapshot);
	return error;
}

static void image_close(struct uffdwp_snapshot *snapshot, int committed)
{
	image_file_close(&snapshot->sink.file, committed);
	base_close(&snapshot->sink.base);
}

const struct sink_ops sink_image = {
        .open = image_open,
        .prepare = image_prepare,
        .write = image_write,
        .reap = image_reap,
        .commit = image_commit,
        .close = image_close,
};
