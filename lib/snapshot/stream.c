/* SPDX-License-Identifier: MIT */
/*
 * The two sinks that take a chunk at once: a stream (any descriptor, from the first byte to the last, holes as zeros)
 * and a callback.
 *
 * A descriptor may block for as long as its reader sleeps; an abort must get through all the same. So it is written
 * only when poll(2) says that it takes something, and no more than a pipe promises to take without blocking (PIPE_BUF).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "snapshot/snapshot.h"

#define STREAM_WAIT_MS 50

static int stream_open(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct sink *sink = &snapshot->sink;
	struct stat st;
	int mode = snapshot->k->access_mode(snapshot->options.fd);
	int error = mode == O_RDONLY ? -EBADF : mode < 0 ? mode : snapshot->k->fstat(snapshot->options.fd, &st);

	if (error)
		return text_fail(text, error, "fd %d cannot be written: %s", snapshot->options.fd, errno_text(error));
	sink->fd = snapshot->options.fd;
	sink->is_file = S_ISREG(st.st_mode);
	return 0;
}

/* How much of the chunk belongs to the image: its last page may be cut. */
static size_t stream_useful_length(const struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	return (size_t)math_min_u64(chunk->length, snapshot->cut.length_bytes - chunk->offset);
}

static ssize_t stream_write_some(struct uffdwp_snapshot *snapshot, const unsigned char *from, size_t length)
{
	struct sink *sink = &snapshot->sink;

	if (!sink->is_file) {
		int ready = snapshot->k->poll(sink->fd, POLLOUT, STREAM_WAIT_MS);

		if (ready <= 0)
			return ready == 0 || ready == -EINTR ? 0 : ready;
		length = length < PIPE_BUF ? length : PIPE_BUF;
	}
	ssize_t wrote = snapshot->k->write(sink->fd, from, length);

	return wrote == -EAGAIN || wrote == -EINTR ? 0 : wrote;
}

static int stream_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	size_t length = stream_useful_length(snapshot, chunk);
	size_t at = 0;

	while (at < length) {
		int stopped = atomic_load(&snapshot->preserve.error);
		ssize_t wrote = stopped ? stopped : stream_write_some(snapshot, chunk->buffer + at, length - at);

		if (wrote < 0)
			return (int)wrote;
		at += (size_t)wrote;
		atomic_fetch_add_explicit(&snapshot->bytes_written, (size_t)wrote, memory_order_relaxed);
	}
	chunk_done(chunk);
	return 0;
}

static int stream_callback_open(struct uffdwp_snapshot *snapshot, struct text *text)
{
	if (!snapshot->options.callback)
		return text_fail(text, -EINVAL, "the callback sink needs a callback");
	return 0;
}

/* The next run of what the image has: in an increment pages that changed, else what is not zeros. */
static int stream_next_run(const struct uffdwp_snapshot *snapshot, const struct chunk *chunk, struct chunk_run *run)
{
	unsigned shift = snapshot->region->page_shift;
	uint64_t base = chunk->offset >> shift;
	uint64_t pages = chunk->length >> shift;
	uint64_t first = (run->offset + run->length) >> shift;

	if (!snapshot->cut.increment)
		return chunk_next_run(chunk, run->offset + run->length, run);
	while (first < pages && !cut_wants(&snapshot->cut, base + first))
		first++;
	uint64_t end = first;

	while (end < pages && cut_wants(&snapshot->cut, base + end))
		end++;
	*run = (struct chunk_run){first << shift, (end - first) << shift};
	return end > first;
}

/* 0 or -errno, and why. */
static int stream_callback_answer(struct sink *sink, int result)
{
	if (result > 0)
		snprintf(sink->reason, sizeof(sink->reason),
		         "the sink's callback returned %d: it returns 0, or -errno where it fails", result);
	else if (result)
		snprintf(sink->reason, sizeof(sink->reason), "the sink's callback failed: %s", errno_text(result));
	return result > 0 ? -EIO : result;
}

static int stream_callback_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	struct chunk_run run = {0, 0};
	size_t length = stream_useful_length(snapshot, chunk);
	int error = 0;

	while (!error && stream_next_run(snapshot, chunk, &run) && run.offset < length) {
		size_t part = (size_t)math_min_u64(run.length, length - run.offset);

		error = snapshot->options.callback(snapshot->options.user, chunk->offset + run.offset,
		                                   chunk->buffer + run.offset, part);
		atomic_fetch_add_explicit(&snapshot->bytes_written, part, memory_order_relaxed);
	}
	chunk_done(chunk);
	return stream_callback_answer(&snapshot->sink, error);
}

static void stream_close_nothing(struct uffdwp_snapshot *snapshot, int committed)
{
	(void)snapshot;
	(void)committed;
}

const struct sink_ops sink_stream = {
        .ordered = 1,
        .open = stream_open,
        .write = stream_write,
        .close = stream_close_nothing,
};

const struct sink_ops sink_callback = {
        .open = stream_callback_open,
        .write = stream_callback_write,
        .close = stream_close_nothing,
};
