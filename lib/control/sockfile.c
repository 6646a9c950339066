/* SPDX-License-Identifier: MIT */
/*
 * See sockfile.h. The socket is made under another name and renamed: what lies under its name is never half made. A
 * file that lies there already is of a process that is gone and had this process's id, unless it answers: that one
 * lives in another PID namespace, and is left alone.
 */
#include "control/sockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/trace.h"

/* What is added to the name while the socket is made. */
#define SOCKFILE_ASIDE ".new"

/* The process that made the socket at `sockfile_at`; 0: there is none. */
static _Atomic(pid_t) sockfile_process;
static char sockfile_at[SOCKFILE_BYTES];

/* One folder after the other; 0: no more. "" stands for one that does not apply here. */
static int sockfile_folder(unsigned turn, char *folder, size_t size)
{
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
	unsigned uid = (unsigned)geteuid();
	int length = 0;

	folder[0] = '\0';
	if (turn == 0 && runtime && *runtime == '/')
		length = snprintf(folder, size, "%s/uffdwp", runtime);
	else if (turn == 1)
		length = snprintf(folder, size, "/run/user/%u/uffdwp", uid);
	else if (turn == 2 && uid == 0)
		length = snprintf(folder, size, "/run/uffdwp");
	else if (turn == 3)
		length = snprintf(folder, size, "/tmp/uffdwp-%u", uid);
	if ((size_t)length >= size)
		folder[0] = '\0';
	return turn <= 3;
}

/* A folder of this user that others cannot enter: 0, or why it is none. */
static int sockfile_check_folder(const struct kernel_ops *k, const char *folder)
{
	struct stat st = {.st_mode = 0};
	int fd = k->open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	int error = k->fstat(fd, &st);

	k->close(fd);
	if (error)
		return error;
	return !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) ? -EPERM : 0;
}

/* The parent of our folder in /run/user must be ours as well: it is no one's to make. */
static int sockfile_make_folder(const struct kernel_ops *k, unsigned turn, const char *folder)
{
	char parent[SOCKFILE_BYTES];

	snprintf(parent, sizeof(parent), "%s", folder);
	*strrchr(parent, '/') = '\0';
	int error = turn == 1 ? sockfile_check_folder(k, parent) : 0;

	if (!error)
		error = k->mkdirat(AT_FDCWD, folder, 0700);
	return !error || error == -EEXIST ? sockfile_check_folder(k, folder) : error;
}

/* 0; -ENOENT; -EEXIST: it is no socket, and stays. */
static int sockfile_check_socket(const struct kernel_ops *k, const char *path)
{
	struct stat st = {.st_mode = 0};
	int fd = k->open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	int error = k->fstat(fd, &st);

	k->close(fd);
	return error || S_ISSOCK(st.st_mode) ? error : -EEXIST;
}

/* 0, also where nothing was there; -EADDRINUSE: a process listens at it. */
static int sockfile_remove_leftover(const struct kernel_ops *k, const char *path)
{
	int found = sockfile_check_socket(k, path);

	if (found)
		return found == -ENOENT ? 0 : found;
	int fd = k->connect(path);

	if (fd >= 0) {
		k->close(fd);
		return -EADDRINUSE;
	}
	if (fd == -EAGAIN) /* it does, and more than it takes come to it */
		return -EADDRINUSE;
	if (fd != -ECONNREFUSED)
		return fd == -ENOENT ? 0 : fd;
	int error = k->unlinkat(AT_FDCWD, path);

	return error == -ENOENT ? 0 : error;
}

/* The descriptor, or -errno. */
static int sockfile_make(const struct kernel_ops *k, const char *path)
{
	char aside[SOCKFILE_BYTES];
	int length = snprintf(aside, sizeof(aside), "%s" SOCKFILE_ASIDE, path);

	if ((size_t)length >= sizeof(aside))
		return -ENAMETOOLONG;
	int error = sockfile_remove_leftover(k, path);

	if (!error)
		error = sockfile_remove_leftover(k, aside);
	if (error)
		return error;
	int fd = k->listen(aside, 0600);

	if (fd < 0)
		return fd;
	error = k->renameat(AT_FDCWD, aside, AT_FDCWD, path);
	if (error) {
		k->unlinkat(AT_FDCWD, aside);
		k->close(fd);
		return error;
	}
	memcpy(sockfile_at, path, strlen(path) + 1);
	atomic_store(&sockfile_process, getpid());
	return fd;
}

static int sockfile_open_at(const struct kernel_ops *k, const char *path, struct text *text)
{
	char checked[SOCKFILE_BYTES];
	int fd = -ENAMETOOLONG;

	if (strlen(path) < sizeof(checked)) {
		memcpy(checked, path, strlen(path) + 1);
		fd = sockfile_make(k, checked);
	}
	if (fd >= 0)
		return fd;
	return text_fail(text, fd, "no control socket at \"%s\": %s%s", path, errno_text(fd),
	                 fd == -ENAMETOOLONG ? ": a socket's path has at most 103 bytes"
	                 : fd == -EADDRINUSE ? ": another process listens there"
	                                     : "");
}

int sockfile_open(const struct kernel_ops *k, const char *path, struct text *text)
{
	char folder[SOCKFILE_BYTES - 24];
	char whole[SOCKFILE_BYTES];
	int error = -ENOENT;

	if (path)
		return sockfile_open_at(k, path, text);
	for (unsigned turn = 0; sockfile_folder(turn, folder, sizeof(folder)); turn++) {
		if (!*folder)
			continue;
		snprintf(whole, sizeof(whole), "%s/%d.sock", folder, (int)getpid());
		error = sockfile_make_folder(k, turn, folder);
		int fd = error ? error : sockfile_make(k, whole);

		if (fd >= 0)
			return fd;
		error = fd;
		TRACE("no control socket in %s: %s", folder,
		      error == -EPERM ? "it is no folder of this user's that is closed to others" : errno_text(error));
	}
	return text_fail(text, error,
	                 "no control socket in $XDG_RUNTIME_DIR/uffdwp, /run/user/%u/uffdwp or /tmp/uffdwp-%u (%s): a "
	                 "folder of this user's, mode 0700, is needed, or control_path",
	                 (unsigned)geteuid(), (unsigned)geteuid(), errno_text(error));
}

const char *sockfile_path(void)
{
	return atomic_load(&sockfile_process) ? sockfile_at : "";
}

void sockfile_close(const struct kernel_ops *k)
{
	pid_t process = atomic_exchange(&sockfile_process, 0);

	if (process && process == getpid())
		k->unlinkat(AT_FDCWD, sockfile_at);
}

void sockfile_forget(void)
{
	atomic_store(&sockfile_process, 0);
}

__attribute__((destructor)) static void sockfile_remove_at_exit(void)
{
	sockfile_close(&kernel_real);
}
