/* SPDX-License-Identifier: MIT */
/*
 * The raw image file: sparse, the size of the snapshot, byte for byte the region at the cut. Written aside under
 * .uffdwp-PID-N.tmp in the same folder with as many writes in flight as there are chunks, with O_DIRECT where the file
 * system has it (the page cache would only be in the way, and its write-back would hit writers later), then synced,
 * renamed, and the folder synced (INV-COMMIT).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/snapshot.h"

#define IMAGE_WRITES_MAX 256
#define IMAGE_ALIGN 4096
#define IMAGE_MOMENT_NS 2000000ull
#define IMAGE_GAP_PAGES 16

static _Atomic unsigned image_number;

static int open_folder(struct sink *sink, const struct kernel_ops *k, const char *path, struct text *text)
{
	char folder[4096];
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return text_fail(text, -EISDIR, "\"%s\" names a folder, not a file", path);
	if (strlen(name) >= sizeof(sink->name) || length >= sizeof(folder))
		return text_fail(text, -ENAMETOOLONG, "the image's path is too long");
	snprintf(sink->name, sizeof(sink->name), "%s", name);
	snprintf(folder, sizeof(folder), "%.*s", (int)length, path);
	sink->folder = k->open(length ? folder : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (sink->folder < 0)
		return text_fail(text, sink->folder, "the folder of \"%s\" cannot be opened: %s", path,
		                 strerror(-sink->folder));
	return 0;
}

/* What stands under the final name may be replaced only if it is a file. */
static int check_target(struct sink *sink, const struct kernel_ops *k, struct text *text)
{
	struct stat st;
	int fd = k->openat(sink->folder, sink->name, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return 0; /* not there */
	int error = k->fstat(fd, &st);

	k->close(fd);
	if (!error && S_ISDIR(st.st_mode))
		return text_fail(text, -EISDIR, "\"%s\" is a folder: name a file in it", sink->name);
	if (!error && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return text_fail(text, -EINVAL,
		                 "\"%s\" is not a regular file: use the stream sink for devices and pipes", sink->name);
	return 0;
}

/* A file that a killed process of our number left behind is passed by. */
static int open_aside(struct uffdwp_snapshot *snapshot, int flags)
{
	struct sink *sink = &snapshot->sink;
	int fd;

	do {
		unsigned number = atomic_fetch_add(&image_number, 1);

		snprintf(sink->aside, sizeof(sink->aside), ".uffdwp-%ld-%u.tmp", (long)getpid(), number);
		fd = snapshot->k->openat(sink->folder, sink->aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags,
		                         0666);
	} while (fd == -EEXIST);
	return fd;
}

static int create_aside(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct sink *sink = &snapshot->sink;
	const struct kernel_ops *k = snapshot->k;

	sink->fd = -EINVAL;
	if (!(snapshot->options.flags & UFFDWP_SNAPSHOT_BUFFERED)) {
		sink->fd = open_aside(snapshot, O_DIRECT);
		sink->direct = sink->fd >= 0;
		if (sink->fd == -EINVAL) /* some kernels leave the file behind when the file system has no O_DIRECT */
			k->unlinkat(sink->folder, sink->aside);
	}
	if (sink->fd == -EINVAL)
		sink->fd = open_aside(snapshot, 0);
	if (sink->fd < 0)
		return text_fail(text, sink->fd, "no file can be made in the folder of \"%s\": %s", sink->name,
		                 strerror(-sink->fd));
	return 0;
}

static void image_close(struct uffdwp_snapshot *snapshot, int committed);

static int image_open(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct sink *sink = &snapshot->sink;
	int error = open_folder(sink, snapshot->k, snapshot->options.path, text);

	if (!error)
		error = check_target(sink, snapshot->k, text);
	if (!error)
		error = create_aside(snapshot, text);
	if (!error) {
		error = loop_new(snapshot->k, IMAGE_WRITES_MAX, snapshot->no_uring, &sink->loop);
		if (error)
			text_fail(text, error, "the image's I/O could not be set up: %s", strerror(-error));
	}
	if (error) {
		image_close(snapshot, 0);
		return error;
	}
	sink->uring = loop_is_uring(sink->loop);
	return 0;
}

/* The next run of pages with content at or after `page`, short gaps taken along. 0: none. */
static int content_run(const struct uffdwp_snapshot *snapshot, uint64_t page, uint64_t *first, uint64_t *end)
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
 * Blocks for what has content are reserved before the cut: writes with O_DIRECT then need not wait for each other's
 * allocation, and a full disk is refused here instead of in the middle. Not on tmpfs, which would fill them with zeros.
 */
static int image_prepare(struct uffdwp_snapshot *snapshot, struct text *text)
{
	const struct kernel_ops *k = snapshot->k;
	unsigned shift = snapshot->region->page_shift;
	uint64_t first;
	uint64_t end = 0;
	int error = 0;

	if (!snapshot->sink.direct || k->fs_type(snapshot->sink.fd) == TMPFS_MAGIC)
		return 0;
	while (!error && content_run(snapshot, end, &first, &end))
		error = k->fallocate(snapshot->sink.fd, 0, first << shift, (end - first) << shift);
	if (error == -ENOSPC || error == -EDQUOT || error == -EFBIG)
		return text_fail(text, error, "no room for the image: %s", strerror(-error));
	return 0; /* anything else: this file system cannot, and need not */
}

/* A write under way, packed into its token: which chunk, from where to where, in blocks. */
static uint64_t token_of(const struct uffdwp_snapshot *snapshot, const struct chunk *chunk, const struct chunk_run *run)
{
	return (uint64_t)(chunk - snapshot->chunks) << 56 | (uint64_t)(run->offset / IMAGE_ALIGN) << 28 |
	       (uint64_t)(run->length / IMAGE_ALIGN);
}

static struct chunk *token_chunk(struct uffdwp_snapshot *snapshot, uint64_t token, struct chunk_run *run)
{
	run->offset = (size_t)(token >> 28 & 0xfffffff) * IMAGE_ALIGN;
	run->length = (size_t)(token & 0xfffffff) * IMAGE_ALIGN;
	return &snapshot->chunks[token >> 56];
}

static int image_reap(struct uffdwp_snapshot *snapshot);

static int start_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk, const struct chunk_run *run)
{
	struct sink *sink = &snapshot->sink;
	uint64_t token = token_of(snapshot, chunk, run);
	int error;

	do {
		error = loop_write(sink->loop, sink->fd, chunk->buffer + run->offset, run->length,
		                   chunk->offset + run->offset, token);
		if (error == -EAGAIN) {
			int reaped = image_reap(snapshot);

			if (reaped)
				return reaped;
		}
	} while (error == -EAGAIN);
	if (!error)
		chunk->pending++;
	return error;
}

/* O_DIRECT that turns out to want another alignment than ours: go on without. */
static int leave_direct(struct uffdwp_snapshot *snapshot)
{
	snapshot->sink.direct = 0;
	return snapshot->k->clear_direct(snapshot->sink.fd);
}

static int go_on(struct uffdwp_snapshot *snapshot, struct chunk *chunk, struct chunk_run run, int result)
{
	chunk->pending--;
	if (result == -EINVAL && snapshot->sink.direct) {
		int error = leave_direct(snapshot);

		return error ? error : start_write(snapshot, chunk, &run);
	}
	if (result == -EINTR || result == -EAGAIN)
		return start_write(snapshot, chunk, &run);
	if (result <= 0)
		return result < 0 ? result : -ENOSPC;
	size_t whole = (size_t)result / IMAGE_ALIGN * IMAGE_ALIGN;

	atomic_fetch_add_explicit(&snapshot->bytes_written, (size_t)result, memory_order_relaxed);
	if (whole < run.length && whole == 0)
		return -ENOSPC; /* less than a block, again and again */
	run.offset += whole;
	run.length -= whole;
	if (run.length > 0)
		return start_write(snapshot, chunk, &run);
	if (chunk->pending == 0)
		chunk_done(chunk);
	return 0;
}

static int take_written(struct uffdwp_snapshot *snapshot, const struct loop_event *event)
{
	struct chunk_run run;
	struct chunk *chunk = token_chunk(snapshot, event->token, &run);
	int error = go_on(snapshot, chunk, run, event->result);

	if (error) /* the first that fails is what is told: with its own range */
		fault_fail(snapshot->region, &snapshot->preserve, error,
		           (chunk->offset + run.offset) >> snapshot->region->page_shift);
	return error;
}

static int image_reap(struct uffdwp_snapshot *snapshot)
{
	struct loop_event events[32];
	int count = loop_wait(snapshot->sink.loop, events, 32, IMAGE_MOMENT_NS);
	int error = count < 0 ? count : 0;

	for (int i = 0; i < count; i++) {
		int taken = take_written(snapshot, &events[i]);

		error = error ? error : taken;
	}
	return error;
}

static int image_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	struct chunk_run run = {0, 0};
	int error = 0;

	chunk->pending = 1; /* ours, until all writes are started */
	while (!error && chunk_next_run(chunk, run.offset + run.length, &run))
		error = start_write(snapshot, chunk, &run);
	if (--chunk->pending == 0)
		chunk_done(chunk);
	return error;
}

static int image_commit(struct uffdwp_snapshot *snapshot)
{
	struct sink *sink = &snapshot->sink;
	const struct kernel_ops *k = snapshot->k;
	int error =
	        k->ftruncate(sink->fd, snapshot->length_bytes); /* a last page may be cut, or all behind it a hole */

	if (!error)
		error = k->fsync(sink->fd);
	if (!error)
		error = k->renameat(sink->folder, sink->aside, sink->folder, sink->name);
	if (error)
		return text_fail(&snapshot->text, error, "the image could not be committed: %s", strerror(-error));
	error = k->fsync(sink->folder);
	return error ? text_fail(
	                       &snapshot->text, error,
	                       "the image is there, complete, but its folder could not be synced: a power failure may "
	                       "take it away: %s",
	                       strerror(-error))
	             : 0;
}

/* The buffers must not be freed under I/O: wait for all of it, however it ends. */
static void settle(struct uffdwp_snapshot *snapshot)
{
	struct loop_event events[32];
	unsigned pending = 0;

	for (unsigned i = 0; i < snapshot->chunk_count; i++)
		pending += snapshot->chunks[i].busy ? snapshot->chunks[i].pending : 0;
	while (pending > 0) {
		int count = loop_wait(snapshot->sink.loop, events, 32, UINT64_MAX);

		if (count < 0)
			return;
		pending -= (unsigned)count;
	}
}

static void image_close(struct uffdwp_snapshot *snapshot, int committed)
{
	struct sink *sink = &snapshot->sink;

	if (sink->loop) {
		settle(snapshot);
		loop_free(sink->loop);
	}
	if (sink->fd >= 0 && !committed)
		snapshot->k->unlinkat(sink->folder, sink->aside);
	if (sink->fd >= 0)
		snapshot->k->close(sink->fd);
	if (sink->folder >= 0)
		snapshot->k->close(sink->folder);
}

const struct sink_ops sink_image = {
        .open = image_open,
        .prepare = image_prepare,
        .write = image_write,
        .reap = image_reap,
        .commit = image_commit,
        .close = image_close,
};
