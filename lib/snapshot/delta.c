/* SPDX-License-Identifier: MIT */
/*
 * The delta: of the chunks that come it keeps the pages that were written since the parent's cut (`pages_changed`), in
 * the format of image/FORMAT.md. The parent must be the image that the region's last snapshot became: only of that does
 * the region know what was written since; what lies beyond the parent's end counts as written (cut.c). Its name is that
 * of the file, where a symbolic link leads to: a link may lead elsewhere when the delta is opened.
 *
 * A chunk is given back at once: its pages are copied into the writer's own buffers, several of which are in flight.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "image/file.h"
#include "image/io.h"
#include "snapshot/snapshot.h"

/* ---- the parent ---- */

static int delta_is_the_file(const struct stat *st, const struct image_identity *last)
{
	return st->st_dev == last->device && st->st_ino == last->inode && (uint64_t)st->st_size == last->file_bytes &&
	       st->st_mtim.tv_sec == last->modified_s && st->st_mtim.tv_nsec == last->modified_ns;
}

static int delta_refuse_parent(struct text *text, const char *path, const char *why)
{
	return text_fail(text, -EXDEV,
	                 "\"%s\" cannot be the parent: it %s; name the image of the region's last snapshot, or take a "
	                 "snapshot without a parent",
	                 path, why);
}

/* No image of this region is known. */
static int delta_refuse_any_parent(struct text *text, const char *path, const char *why)
{
	return text_fail(text, -EXDEV,
	                 "\"%s\" cannot be the parent, nor can any image: %s; take a snapshot without a parent", path,
	                 why);
}

/* The identity of the image, by its header; a raw image is known by its file only. */
static int delta_look_at_parent(const struct kernel_ops *k, int fd, const char *path, const struct image_identity *last,
                                struct image_parent *parent, struct text *text)
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	struct delta_header header;
	struct stat st;
	int error = k->fstat(fd, &st);

	if (error)
		return text_fail(text, error, "\"%s\" cannot be looked at: %s", path, errno_text(error));
	if (!S_ISREG(st.st_mode))
		return text_fail(text, -EINVAL, "the parent \"%s\" is not a regular file", path);
	parent->is_raw = last->is_raw;
	if (last->is_raw) {
		if (!delta_is_the_file(&st, last))
			return delta_refuse_parent(
			        text, path, "is not the file of the region's last snapshot, or was written since");
		parent->id = last->id;
		parent->length_bytes = last->length_bytes;
		return 0;
	}
	if (io_read(k, fd, bytes, sizeof(bytes), 0) || !delta_is_magic(bytes))
		return delta_refuse_parent(text, path,
		                           "is no delta, and the image of the region's last snapshot is one");
	error = delta_decode_header(bytes, (uint64_t)st.st_size, path, &header, text);
	if (error)
		return error;
	if (!identity_equal(header.id, last->id))
		return delta_refuse_parent(text, path, "has not the id of the image of the region's last snapshot");
	parent->id = header.id;
	parent->length_bytes = header.length_bytes;
	return 0;
}

int delta_check_parent(const struct uffdwp_snapshot *snapshot, const struct image_identity *last,
                       struct image_parent *parent, struct text *text)
{
	const struct kernel_ops *k = snapshot->k;
	const char *path = snapshot->options.parent;
	char name[TARGET_NAME_BYTES];
	int folder;

	if (identity_is_none(last->id))
		return delta_refuse_any_parent(
		        text, path,
		        atomic_load(&snapshot->region->counters.snapshots)
		                ? "the region's last snapshot failed or left no image file, or the region was restored "
		                  "after it"
		                : "there was no snapshot of the region yet");
	int error = target_find(k, AT_FDCWD, path, text, &folder, name);

	if (error)
		return error;
	int fd = k->openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0);

	k->close(folder);
	if (fd < 0)
		return text_fail(text, fd, "the parent \"%s\" cannot be opened: %s", path, errno_text(fd));
	memset(parent, 0, sizeof(*parent));
	_Static_assert(sizeof(parent->name) >= TARGET_NAME_BYTES, "a name that was found is one of a header");
	memcpy(parent->name, name, strlen(name));
	error = delta_look_at_parent(k, fd, path, last, parent, text);
	k->close(fd);
	return error;
}

/* ---- the sink ---- */

static int delta_check_own_parent(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct uffdwp_region *region = snapshot->region;

	lock_take(&region->lock);
	struct image_identity last = region->last_image;

	lock_give(&region->lock);
	return delta_check_parent(snapshot, &last, &snapshot->sink.parent, text);
}

static int delta_open(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct sink *sink = &snapshot->sink;
	uint64_t page_bytes = snapshot->region->page_bytes;
	struct image_writer_options options = {
	        .path = snapshot->options.path,
	        .flags = sink_file_flags(snapshot),
	        .mode = snapshot->options.mode,
	        .compress = snapshot->options.compress,
	        .page_bytes = image_page_bytes(page_bytes),
	        .region_page_bytes = page_bytes,
	        .pages_most = snapshot->cut.pages_most * (page_bytes / image_page_bytes(page_bytes)),
	};
	int error = delta_check_own_parent(snapshot, text);

	if (!error)
		error = targets_check_delta(snapshot, text);
	if (!error)
		error = image_writer_open(snapshot->k, &options, text, &sink->writer);
	if (error)
		return error;
	sink->direct = image_writer_file(sink->writer)->direct;
	return 0;
}

/* One page of the region, in pages of the delta, up to the image's end. */
static int delta_put_page(struct uffdwp_snapshot *snapshot, uint64_t page, const unsigned char *data)
{
	uint64_t page_bytes = snapshot->region->page_bytes;
	uint64_t unit = image_page_bytes(page_bytes);
	uint64_t start = page * page_bytes;
	int error = 0;

	for (uint64_t at = 0; at < page_bytes && start + at < snapshot->cut.length_bytes && !error; at += unit)
		error = image_writer_put(snapshot->sink.writer, (start + at) / unit, data + at);
	return error;
}

static int delta_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	uint64_t page_bytes = snapshot->region->page_bytes;
	uint64_t useful = math_min_u64(chunk->length, snapshot->cut.length_bytes - chunk->offset);
	int error = 0;

	memset(chunk->buffer + useful, 0, chunk->length - useful); /* the last page may be cut */
	for (uint64_t at = 0; at < useful && !error; at += page_bytes) {
		uint64_t page = (chunk->offset + at) / page_bytes;

		if (cut_wants(&snapshot->cut, page))
			error = delta_put_page(snapshot, page, chunk->buffer + at);
	}
	snapshot->bytes_written = image_writer_file(snapshot->sink.writer)->bytes_written;
	snapshot->sink.uring = atomic_load(&image_writer_file(snapshot->sink.writer)->uring);
	chunk_done(chunk);
	return error;
}

static int delta_commit(struct uffdwp_snapshot *snapshot)
{
	struct sink *sink = &snapshot->sink;
	int error = image_writer_commit(sink->writer, &sink->parent, snapshot->cut.length_bytes, &sink->identity,
	                                &snapshot->text);

	if (error)
		return error;
	snapshot->bytes_written = image_writer_file(sink->writer)->bytes_written;
	sink_remember(snapshot);
	return 0;
}

static void delta_close(struct uffdwp_snapshot *snapshot, int committed)
{
	image_writer_close(snapshot->sink.writer, committed);
}

const struct sink_ops sink_delta = {
        .open = delta_open,
        .write = delta_write,
        .commit = delta_commit,
        .close = delta_close,
};
