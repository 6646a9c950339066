/* SPDX-License-Identifier: MIT */
/*
 * Memory that the program mapped itself, from a memfd of its own, is attached, snapshotted, and the program's again.
 *
 * The snapshot goes to a callback, which is called in a thread of the library with runs of pages, each page once and in
 * any order, while the program writes. Ranges of zeros may be left out.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create() */
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <uffdwp.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)8 << 20)
#define LINE_BYTES ((size_t)64)

struct copy {
	char memory[LENGTH_BYTES];
	uint64_t bytes;
};

static int attach_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

/* Writes lines that say where they are, and in which version. */
static void attach_write(char *memory, const char *version)
{
	for (size_t at = 0; at < LENGTH_BYTES; at += LINE_BYTES)
		snprintf(memory + at, LINE_BYTES, "%s, line %zu", version, at / LINE_BYTES);
}

static int attach_are(const char *memory, const char *version)
{
	char line[LINE_BYTES];

	for (size_t at = 0; at < LENGTH_BYTES; at += LINE_BYTES) {
		snprintf(line, sizeof(line), "%s, line %zu", version, at / LINE_BYTES);
		if (strcmp(line, memory + at) != 0)
			return 0;
	}
	return 1;
}

/* Takes some of the snapshot. It must neither write to the region nor call the library. */
static int attach_take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct copy *copy = user;

	memcpy(copy->memory + offset, data, length);
	copy->bytes += length;
	return 0;
}

static int attach_snapshot(struct uffdwp_region *region, char *memory, struct copy *copy)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = attach_take;
	options.user = copy;
	attach_write(memory, "before the cut");
	error = uffdwp_snapshot_begin(region, &options, &snapshot);
	if (error != 0)
		return attach_failed("uffdwp_snapshot_begin", error);
	attach_write(memory, "after the cut");
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0) {
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
		return 1;
	}
	return 0;
}

static int attach_run(struct uffdwp *runtime, int fd, char *memory, struct copy *copy)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region;
	int result;
	int error;

	options.fd = fd; /* so that the library may read the memory without touching the mapping */
	error = uffdwp_region_attach(runtime, memory, LENGTH_BYTES, &options, &region);
	if (error != 0)
		return attach_failed("uffdwp_region_attach", error);
	result = attach_snapshot(region, memory, copy);
	error = uffdwp_region_close(region); /* the mapping stays, and is not watched any more */
	if (error != 0)
		return attach_failed("uffdwp_region_close", error);
	if (result != 0)
		return result;
	if (!attach_are(copy->memory, "before the cut") || !attach_are(memory, "after the cut")) {
		fprintf(stderr, "the copy or the memory has a wrong line\n");
		return 1;
	}
	printf("the callback got %llu KiB, \"%s\" and so on; the memory says \"%s\"\n",
	       (unsigned long long)copy->bytes >> 10, copy->memory, memory);
	return 0;
}

int main(void)
{
	static struct copy copy;
	struct uffdwp *runtime;
	char *memory = MAP_FAILED;
	int fd;
	int result = 1;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return attach_failed("uffdwp_open", error);
	fd = memfd_create("attach", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, LENGTH_BYTES) == 0)
		memory = mmap(NULL, LENGTH_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory != MAP_FAILED) {
		result = attach_run(runtime, fd, memory, &copy);
		munmap(memory, LENGTH_BYTES);
	}
	if (fd >= 0)
		close(fd);
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
