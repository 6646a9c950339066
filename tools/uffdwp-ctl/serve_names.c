/* SPDX-License-Identifier: MIT */
/*
 * Files that clients name; see serve.h. A name is one of a folder: it has no slash, does not begin with a dot, and no
 * control character. It leads out of the folder only where a symbolic link of the folder's owner does.
 *
 * Snapshots of several clients go to one folder. A client may replace an image that it made itself, and no other file.
 * That holds also where two of them begin with one name at a time, by a lock: each name has a byte of a file of locks,
 * whose lock the process of a client has until its snapshot has ended (and loses with its life).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve.h"

#define LOCKS ".uffdwp-serve.locks"

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

int serve_names_path(const char *folder, const char *name, char path[PATH_MAX], char text[SERVE_TEXT])
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++) {
		if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return serve_fail(text, -EINVAL, "\"%s\" is no name of a file in a folder", name);
	}
	if (!length || name[0] == '.')
		return serve_fail(text, -EINVAL, "\"%s\" is no name: one does not begin with a dot", name);
	if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return serve_fail(text, -ENAMETOOLONG, "the path of \"%s\" is too long", name);
	return 0;
}

uint64_t serve_names_hash(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
	return hash;
}

static int serve_names_lock(const char *folder, const char *name, char text[SERVE_TEXT])
{
	char path[PATH_MAX];
	struct flock lock = {.l_type = F_WRLCK,
	                     .l_whence = SEEK_SET,
	                     .l_start = (off_t)(serve_names_hash(name) % (1u << 30)),
	                     .l_len = 1};

	(void)snprintf(path, sizeof(path), "%s/%s", folder, LOCKS);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return serve_fail(text, -errno, "\"%s\": %s", path, strerror(errno));
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return fd;
	int error = errno == EAGAIN || errno == EACCES
	                    ? serve_fail(text, -EBUSY, "a snapshot to \"%s\" runs", name)
	                    : serve_fail(text, -errno, "\"%s\" cannot be locked: %s", path, strerror(errno));

	(void)close(fd);
	return error;
}

int serve_names_reserve(const char *folder, const char *name, int is_own, char path[PATH_MAX], int *lock,
                        char text[SERVE_TEXT])
{
	struct stat status;
	int error = serve_names_path(folder, name, path, text);
	int fd = error ? error : serve_names_lock(folder, name, text);

	if (fd < 0)
		return fd;
	if (lstat(path, &status) == 0 && (!is_own || !S_ISREG(status.st_mode)))
		error = serve_fail(text, -EEXIST, "\"%s\" is there, and this client did not make it", name);
	if (error)
		(void)close(fd);
	else
		*lock = fd;
	return error;
}
