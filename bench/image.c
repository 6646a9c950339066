/* SPDX-License-Identifier: MIT */
/* See image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

int image_direct_works(const char *folder)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/direct", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
	unlink(path);
	if (fd < 0)
		return 0;
	close(fd);
	return 1;
}

void image_prepare(struct image *image, const char *folder, int direct)
{
	snprintf(image->aside, sizeof(image->aside), "%s/aside", folder);
	image->direct = direct;
	image->fd = -1;
	image->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (image->folder < 0)
		bench_die("%s: %s", folder, strerror(errno));
}

/* Takes the file away; the errno of what failed. */
static int give_up(struct image *image)
{
	int error = errno ? -errno : -EIO;

	if (image->fd >= 0)
		close(image->fd);
	image->fd = -1;
	unlink(image->aside);
	return error;
}

int image_create(struct image *image)
{
	image->fd = open(image->aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (image->direct ? O_DIRECT : 0), 0600);
	return image->fd < 0 ? -errno : 0;
}

int image_append(struct image *image, const char *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		size_t piece = length - at < IMAGE_PIECE_BYTES ? length - at : IMAGE_PIECE_BYTES;
		ssize_t wrote = write(image->fd, bytes + at, piece);

		if (wrote < 0 && errno != EINTR)
			return give_up(image);
		at += wrote < 0 ? 0 : (size_t)wrote;
	}
	return 0;
}

int image_commit(struct image *image, const char *path)
{
	int fd = image->fd;

	if (fsync(fd))
		return give_up(image);
	image->fd = -1;
	if (close(fd) || rename(image->aside, path) || fsync(image->folder))
		return give_up(image);
	return 0;
}

void image_fini(struct image *image)
{
	close(image->folder);
	image->folder = -1;
}
