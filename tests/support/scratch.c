/* SPDX-License-Identifier: MIT */
/* See scratch.h. */
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

static char root[SCRATCH_PATH];
static pid_t owner;

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *place)
{
	(void)st;
	(void)kind;
	(void)place;
	return remove(path) != 0 && errno != ENOENT && errno != EBUSY;
}

static void remove_root(void)
{
	if (owner == getpid()) {
		(void)nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	}
}

int scratch_begin(void)
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(root, sizeof(root), "%.200s/uffdwp-test-XXXXXX", base != NULL ? base : "/var/tmp");
	if (mkdtemp(root) == NULL || chmod(root, 0755) != 0) {
		return -1;
	}
	owner = getpid();
	return atexit(remove_root);
}

void scratch_folder(char path[SCRATCH_PATH])
{
	(void)snprintf(path, SCRATCH_PATH, "%.400s/XXXXXX", root);
	must(mkdtemp(path) != NULL);
	must(chmod(path, 0777) == 0);
}

void scratch_join(char path[SCRATCH_PATH], const char *folder, const char *name)
{
	int length = snprintf(path, SCRATCH_PATH, "%s/%s", folder, name);
	must(length > 0 && length < SCRATCH_PATH);
}

static size_t count_entries(const char *folder)
{
	DIR *dir = opendir(folder);
	must(dir != NULL);
	size_t entries = 0;
	while (readdir(dir) != NULL) {
		entries++;
	}
	closedir(dir);
	return entries - 2;
}

size_t scratch_entries(const char *folder)
{
	return count_entries(folder);
}

size_t scratch_open_files(void)
{
	return count_entries("/proc/self/fd") - 1;
}

static size_t read_all(int fd, uint8_t *bytes, size_t length)
{
	size_t done = 0;
	ssize_t got = 0;
	while (done < length && (got = read(fd, bytes + done, length - done)) > 0) {
		done += (size_t)got;
	}
	return done;
}

int scratch_read(const char *path, void *buffer, size_t length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return 0;
	}
	struct stat st;
	int whole = fstat(fd, &st) == 0 && (size_t)st.st_size == length && read_all(fd, buffer, length) == length;
	close(fd);
	return whole;
}

void scratch_write(const char *path, const void *buffer, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	must(fd >= 0);
	must(write(fd, buffer, length) == (ssize_t)length);
	close(fd);
}
