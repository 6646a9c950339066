/* SPDX-License-Identifier: MIT */
/*
 * The socket that clients find; see serve.h. Its file is 0600, in a folder where no other user can put one of theirs in
 * its place. It is made under another name and renamed, so that a client never finds one that does not listen. A file
 * that is there is replaced only if it is a socket at which no process listens.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "serve.h"

#define BACKLOG 128

static int serve_socket_address(const char *path, struct sockaddr_un *address, char text[SERVE_TEXT])
{
	address->sun_family = AF_UNIX;
	if (!*path || strlen(path) + sizeof(".2147483647") > sizeof(address->sun_path))
		return serve_fail(text, -ENAMETOOLONG,
		                  "the path of the socket has %zu bytes, and may have 1 to %zu: give a shorter one",
		                  strlen(path), sizeof(address->sun_path) - sizeof(".2147483647"));
	(void)snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
	return 0;
}

/* No other user but root may put files into the folder; in one with the sticky bit they cannot replace ours. */
static int serve_socket_check_folder(const char *path, char text[SERVE_TEXT])
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	struct stat status;

	(void)snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	if (slash == path)
		(void)snprintf(folder, sizeof(folder), "/");
	if (stat(folder, &status) != 0)
		return serve_fail(text, -errno, "the folder of the socket, \"%s\": %s", folder, strerror(errno));
	if (status.st_uid != geteuid() && status.st_uid != 0)
		return serve_fail(text, -EPERM,
		                  "the folder of the socket, \"%s\", belongs to another user: take one of your own",
		                  folder);
	if ((status.st_mode & (S_IWGRP | S_IWOTH)) && !(status.st_mode & S_ISVTX))
		return serve_fail(text, -EPERM,
		                  "other users can write to the folder of the socket, \"%s\": chmod go-w, or take "
		                  "another one",
		                  folder);
	return 0;
}

/* 0: the path is free, or has a leftover. */
static int serve_socket_check_path(const struct sockaddr_un *address, char text[SERVE_TEXT])
{
	struct stat status;

	if (lstat(address->sun_path, &status) != 0)
		return 0;
	if (!S_ISSOCK(status.st_mode))
		return serve_fail(text, -EEXIST, "\"%s\" is there and is no socket: it stays", address->sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error = fd < 0 ? -errno : connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ? -errno : 0;

	if (fd >= 0)
		(void)close(fd);
	if (error == -ECONNREFUSED || error == -ENOENT)
		return 0;
	return serve_fail(text, -EADDRINUSE, "another process listens at \"%s\"%s%s", address->sun_path,
	                  error ? ": " : "", error ? strerror(-error) : "");
}

static int serve_socket_bind(int fd, const struct sockaddr_un *address)
{
	struct sockaddr_un aside = *address;
	size_t length = strlen(address->sun_path);

	(void)snprintf(aside.sun_path + length, sizeof(aside.sun_path) - length, ".%d", (int)getpid());
	(void)unlink(aside.sun_path);
	mode_t mask = umask(0177);
	int error = bind(fd, (const struct sockaddr *)&aside, sizeof(aside)) != 0 ? -errno : 0;

	(void)umask(mask);
	if (!error && (listen(fd, BACKLOG) != 0 || rename(aside.sun_path, address->sun_path) != 0)) {
		error = -errno;
		(void)unlink(aside.sun_path);
	}
	return error;
}

int serve_socket_listen(const char *path, char text[SERVE_TEXT])
{
	struct sockaddr_un address = {0};
	int error = serve_socket_address(path, &address, text);

	if (!error)
		error = serve_socket_check_folder(path, text);
	if (!error)
		error = serve_socket_check_path(&address, text);
	if (error)
		return error;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return serve_fail(text, -errno, "no socket can be made: %s", strerror(errno));
	error = serve_socket_bind(fd, &address);
	if (!error)
		return fd;
	(void)close(fd);
	return serve_fail(text, error, "no socket can be made at \"%s\": %s", path, strerror(-error));
}

void serve_socket_remove(const char *path, int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* Ours does not listen any more: what answers there is another server's. */
	(void)close(fd);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (probe >= 0 && connect(probe, (const struct sockaddr *)&address, sizeof(address)) != 0 &&
	    errno == ECONNREFUSED)
		(void)unlink(path);
	if (probe >= 0)
		(void)close(probe);
}
