/* SPDX-License-Identifier: MIT */
/* See image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

#define SMALL_PAGE 4096

static void *drain_pipe(void *argument)
{
	struct image *image = argument;
	ssize_t got = 0;
	while ((got = read(image->pipe[0], image->bytes + image->got_bytes, image->length_bytes - image->got_bytes)) >
	       0) {
		image->got_bytes += (size_t)got;
	}
	uint8_t rest[64];
	must(read(image->pipe[0], rest, sizeof(rest)) == 0);
	return NULL;
}

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct image *image = user;
	must(length > 0 && offset < image->length_bytes && length <= image->length_bytes - offset);
	memcpy(image->bytes + offset, data, length);
	image->got_bytes += length;
	for (size_t page = offset / SMALL_PAGE; page <= (offset + length - 1) / SMALL_PAGE; page++) {
		must(image->seen[page]++ == 0);
	}
	return 0;
}

void image_prepare(struct image *image, enum uffdwp_sink sink, size_t length)
{
	memset(image, 0, sizeof(*image));
	image->sink = sink;
	image->length_bytes = length;
	image->bytes = calloc(1, length + 1);
	image->seen = calloc(1, length / SMALL_PAGE + 1);
	must(image->bytes != NULL && image->seen != NULL);
	if (sink == UFFDWP_SINK_STREAM) {
		must(pipe2(image->pipe, O_CLOEXEC) == 0);
		(void)fcntl(image->pipe[1], F_SETPIPE_SZ, 1 << 20); /* fewer calls; it works without */
		image->drain = thread_start(drain_pipe, image);
	}
	if (sink == UFFDWP_SINK_IMAGE) {
		scratch_folder(image->folder);
		scratch_join(image->path, image->folder, "image");
	}
}

int image_begin(struct image *image, struct uffdwp_region *region, const struct uffdwp_snapshot_options *options)
{
	struct uffdwp_snapshot_options own = *options;
	own.sink = image->sink;
	own.length = image->length_bytes;
	own.path = image->path;
	own.fd = image->pipe[1];
	own.callback = take;
	own.user = image;
	return uffdwp_snapshot_begin(region, &own, &image->snapshot);
}

static void end_stream(struct image *image)
{
	if (image->sink == UFFDWP_SINK_STREAM && image->pipe[1] >= 0) {
		close(image->pipe[1]);
		image->pipe[1] = -1;
		thread_join(image->drain);
		close(image->pipe[0]);
	}
}

int image_finish(struct image *image, struct uffdwp_snapshot_progress *progress)
{
	int result = uffdwp_snapshot_wait(image->snapshot, -1, progress);
	end_stream(image);
	if (result != 0) {
		return result;
	}
	if (image->sink == UFFDWP_SINK_IMAGE) {
		must(scratch_read(image->path, image->bytes, image->length_bytes));
	}
	if (image->sink == UFFDWP_SINK_STREAM) {
		must(image->got_bytes == image->length_bytes);
	}
	return 0;
}

void image_free(struct image *image)
{
	if (image->snapshot != NULL) {
		must(uffdwp_snapshot_free(image->snapshot) == 0);
	}
	end_stream(image);
	if (image->sink == UFFDWP_SINK_IMAGE) {
		(void)unlink(image->path);
		(void)rmdir(image->folder);
	}
	free(image->bytes);
	free(image->seen);
}

size_t image_difference(const struct image *image, const void *expected)
{
	const uint8_t *bytes = expected;
	if (memcmp(image->bytes, bytes, image->length_bytes) == 0) {
		return image->length_bytes;
	}
	for (size_t offset = 0; offset < image->length_bytes; offset++) {
		if (image->bytes[offset] != bytes[offset]) {
			return offset;
		}
	}
	return image->length_bytes;
}
