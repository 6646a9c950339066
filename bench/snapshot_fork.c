/* SPDX-License-Identifier: MIT */
/*
 * The rival's way to an image: fork(), and the child writes out the memory as it was, while copy on write keeps it so.
 * Private anonymous memory, no transparent huge pages; pieces of 1 MiB; through the page cache, or with O_DIRECT. As
 * durable as the library's: written aside, fsync, rename, fsync of the folder.
 *
 * The child of a program with threads calls nothing that is not async-signal-safe.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "trial.h"

#define PIECE_BYTES (1u << 20)

static struct {
	struct area area;
	pid_t child;
	uint64_t pause_ns;
	int folder;
	char aside[512];
} forked;

static void open_fork(const struct trial_way *way, const struct trial_setup *setup, struct area *area)
{
	(void)way;
	area_map(&forked.area, UFFDWP_MEMORY_ANON, setup->size_bytes);
	*area = forked.area;
}

static int write_all(int fd)
{
	size_t length = forked.area.length_bytes;

	for (size_t at = 0; at < length;) {
		size_t piece = length - at < PIECE_BYTES ? length - at : PIECE_BYTES;
		ssize_t wrote = write(fd, forked.area.base + at, piece);

		if (wrote < 0 && errno != EINTR)
			return -errno;
		at += wrote < 0 ? 0 : (size_t)wrote;
	}
	return 0;
}

static int write_image(const char *path, int direct)
{
	int fd = open(forked.aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);

	if (fd < 0 || write_all(fd) || fsync(fd) || close(fd))
		return -1;
	return rename(forked.aside, path) || fsync(forked.folder) ? -1 : 0;
}

static void begin(const struct trial_way *way, const struct trial_setup *setup, const char *path)
{
	uint64_t from;

	snprintf(forked.aside, sizeof(forked.aside), "%s/aside", setup->folder);
	forked.folder = open(setup->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (forked.folder < 0)
		bench_die("%s: %s", setup->folder, strerror(errno));
	from = bench_now_ns();
	forked.child = fork();
	if (forked.child == 0)
		_exit(write_image(path, way->variant) ? 1 : 0);
	forked.pause_ns = bench_now_ns() - from;
	if (forked.child < 0)
		bench_die("fork: %s", strerror(errno));
}

static void wait_for_child(void)
{
	int status;

	while (waitpid(forked.child, &status, 0) < 0) {
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	}
	close(forked.folder);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		bench_die("the child of fork() could not write its image");
}

static void result_of(const struct load_result *during, struct trial_result *result)
{
	double copied = (double)during->minor_faults;

	result->values[TRIAL_PAUSE_NS] = (double)forked.pause_ns;
	result->values[TRIAL_FAULTS] = copied;
	result->values[TRIAL_PAGES_FAULT] = copied;
	result->values[TRIAL_PREIMAGE_PEAK_BYTES] = copied * (double)forked.area.page_bytes;
	result->values[TRIAL_WRITTEN_BYTES] = (double)forked.area.length_bytes;
}

static void close_fork(void)
{
	area_unmap(&forked.area);
}

const struct trial_way trial_fork = {"fork", 0, open_fork, begin, wait_for_child, result_of, close_fork};
const struct trial_way trial_fork_direct = {"fork_direct", 1, open_fork, begin, wait_for_child, result_of, close_fork};

int trial_fork_direct_works(const char *folder)
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
