/* SPDX-License-Identifier: MIT */
/*
 * The place of a file that is written aside and renamed: beside the file that it replaces.
 *
 * Links: a symbolic link as target is followed by hand, so that the rename puts the new file where the old one really
 * is, and the link stays what it is. What is no regular file (a device, a pipe, a socket) is refused, also where only a
 * link of /proc leads there (/dev/stdout): a rename would put a file into its place.
 *
 * Leftovers: a program may end while files are being written. What is noted in the slots is removed by a destructor
 * then. A slot is taken by compare-and-swap, by the thread that opens a file; it is given back by the thread that
 * closes it, or taken over by the one that ends the process. Nothing is locked, so that a child of fork() finds nothing
 * locked; its parent's slots are not its own.
 *
 * Never: follow a link whose end is another file than the kernel's own look at the path found.
 */
#include "image/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/errno_name.h"

#define LINKS_MOST 40 /* as the kernel's MAXSYMLINKS */

/* ---- links ---- */

struct walk {
	const struct kernel_ops *k;
	struct text *text;
	const char *path; /* as the caller gave it */
	int at;           /* the caller's folder, which stays open, or AT_FDCWD */
	int is_read;      /* the file is read, not replaced */
	int folder;
	char name[TARGET_NAME_BYTES];
};

static int target_refuse_folder(const struct walk *walk)
{
	return text_fail(walk->text, -EISDIR, "\"%s\" names a folder, not a file", walk->path);
}

/* Opens the folder of `path`, which is relative to the walk's folder where that is open, and takes it instead. */
static int target_enter(struct walk *walk, const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return target_refuse_folder(walk);
	if (strlen(name) >= sizeof(walk->name) || length >= sizeof(folder))
		return text_fail(walk->text, -ENAMETOOLONG, "the image's path is too long");
	snprintf(walk->name, sizeof(walk->name), "%s", name);
	snprintf(folder, sizeof(folder), "%.*s", (int)length, path);
	int fd = walk->k->openat(walk->folder,
	                         length  ? folder
	                         : slash ? "/"
	                                 : ".",
	                         (walk->is_read ? O_PATH : O_RDONLY) | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd < 0)
		return text_fail(walk->text, fd, "the folder of \"%s\" cannot be opened: %s", walk->path,
		                 errno_text(fd));
	if (walk->folder != walk->at)
		walk->k->close(walk->folder);
	walk->folder = fd;
	return 0;
}

/* What is under the name: its status; 0: nothing, or -errno. */
static int target_look(const struct walk *walk, int flags, struct stat *st)
{
	int fd = walk->k->openat(walk->folder, walk->name, O_PATH | O_CLOEXEC | flags, 0);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return text_fail(walk->text, fd, "\"%s\" cannot be looked at: %s", walk->path, errno_text(fd));
	int error = walk->k->fstat(fd, st);

	walk->k->close(fd);
	return error ? text_fail(walk->text, error, "\"%s\" cannot be looked at: %s", walk->path, errno_text(error))
	             : 1;
}

/* One link on. */
static int target_follow(struct walk *walk)
{
	char to[PATH_MAX];
	ssize_t length = walk->k->readlinkat(walk->folder, walk->name, to, sizeof(to) - 1);

	if (length < 0)
		return text_fail(walk->text, (int)length, "the link \"%s\" cannot be read: %s", walk->path,
		                 errno_text((int)-length));
	if (length == (ssize_t)sizeof(to) - 1)
		return text_fail(walk->text, -ENAMETOOLONG, "the link \"%s\" leads to a path that is too long",
		                 walk->path);
	to[length] = '\0';
	return target_enter(walk, to);
}

static int target_check_kind(const struct walk *walk, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return text_fail(walk->text, -EISDIR, "\"%s\" is a folder: name a file in it", walk->path);
	if (!S_ISREG(st->st_mode))
		return text_fail(walk->text, -EINVAL,
		                 "\"%s\" is not a regular file: use the stream sink for devices and pipes", walk->path);
	return 0;
}

/* Follows links until there is a file or nothing. `end`: what the kernel finds at the end of them, if `exists`. */
static int target_walk(struct walk *walk, int exists, const struct stat *end)
{
	for (int links = 0; links < LINKS_MOST; links++) {
		struct stat st = {.st_mode = 0};
		int found = target_look(walk, O_NOFOLLOW, &st);

		if (found < 0)
			return found;
		if (found && S_ISLNK(st.st_mode)) {
			int error = target_follow(walk);

			if (error)
				return error;
			continue;
		}
		if (found != exists || (found && (st.st_dev != end->st_dev || st.st_ino != end->st_ino)))
			return text_fail(walk->text, -EINVAL, "\"%s\" is a link to a file that has no name%s",
			                 walk->path, walk->is_read ? "" : ": use the stream sink");
		return 0;
	}
	return text_fail(walk->text, -ELOOP, "\"%s\" is a link that leads through too many others", walk->path);
}

static int target_resolve(struct walk *walk, int *folder, char name[TARGET_NAME_BYTES])
{
	struct stat end = {.st_mode = 0};

	walk->folder = walk->at;
	int error = target_enter(walk, walk->path);
	int exists = error ? error : target_look(walk, 0, &end);

	if (exists < 0)
		error = exists;
	else if (exists && !walk->is_read)
		error = target_check_kind(walk, &end);
	if (!error)
		error = target_walk(walk, exists, &end);
	if (error) {
		if (walk->folder != walk->at)
			walk->k->close(walk->folder);
		return error;
	}
	*folder = walk->folder;
	memcpy(name, walk->name, sizeof(walk->name));
	return 0;
}

int target_open(const struct kernel_ops *k, const char *path, struct text *text, int *folder,
                char name[TARGET_NAME_BYTES])
{
	struct walk walk = {.k = k, .text = text, .path = path, .at = AT_FDCWD};

	return target_resolve(&walk, folder, name);
}

int target_find(const struct kernel_ops *k, int at, const char *path, struct text *text, int *folder,
                char name[TARGET_NAME_BYTES])
{
	struct walk walk = {.k = k, .text = text, .path = path, .at = at, .is_read = 1};

	return target_resolve(&walk, folder, name);
}

/* ---- leftovers ---- */

#define LEFTOVERS 256

enum leftover_state { LEFTOVER_FREE, LEFTOVER_CHANGING, LEFTOVER_NOTED };

static struct leftover {
	_Atomic int state;
	pid_t process;
	int folder;
	char name[64];
} leftovers[LEFTOVERS];

int target_remove_at_exit(int folder, const char *name)
{
	if (strlen(name) >= sizeof(leftovers[0].name))
		return -1;
	for (int i = 0; i < LEFTOVERS; i++) {
		struct leftover *leftover = &leftovers[i];
		int state = atomic_load(&leftover->state);
		int usable = state == LEFTOVER_FREE || (state == LEFTOVER_NOTED && leftover->process != getpid());

		if (!usable || !atomic_compare_exchange_strong(&leftover->state, &state, LEFTOVER_CHANGING))
			continue;
		leftover->process = getpid();
		leftover->folder = folder;
		snprintf(leftover->name, sizeof(leftover->name), "%s", name);
		atomic_store(&leftover->state, LEFTOVER_NOTED);
		return i;
	}
	return -1;
}

void target_forget(int number)
{
	int noted = LEFTOVER_NOTED;

	if (number >= 0 && leftovers[number].process == getpid())
		atomic_compare_exchange_strong(&leftovers[number].state, &noted, LEFTOVER_FREE);
}

__attribute__((destructor)) static void target_remove_leftovers(void)
{
	for (int i = 0; i < LEFTOVERS; i++) {
		int noted = LEFTOVER_NOTED;

		if (leftovers[i].process != getpid() ||
		    !atomic_compare_exchange_strong(&leftovers[i].state, &noted, LEFTOVER_CHANGING))
			continue;
		kernel_real.unlinkat(leftovers[i].folder, leftovers[i].name);
		atomic_store(&leftovers[i].state, LEFTOVER_FREE);
	}
}
