/* SPDX-License-Identifier: MIT */
/*
 * A user of the installed library in plain C99: fills a region, snapshots it to an image, goes on writing, and compares
 * the image with what was there at the cut. Exit code 0: equal; 77: no userfaultfd here; 1: anything else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uffdwp.h>

#define LENGTH_BYTES ((size_t)1 << 20)

static int complain(const char *what, int error)
{
	char text[512];

	(void)uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %d: %s\n", what, error, text);
	return 1;
}

/* 1: the file holds `length` times `byte` and nothing else. */
static int file_holds(const char *path, int byte, size_t length)
{
	FILE *file = fopen(path, "rb");
	size_t count = 0;
	int at;

	if (file == NULL)
		return 0;
	while ((at = getc(file)) == byte)
		count++;
	fclose(file);
	return at == EOF && count == length;
}

static int snapshot(struct uffdwp_region *region, const char *path)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *shot;
	int error;

	options.path = path;
	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES);
	error = uffdwp_snapshot_begin(region, &options, &shot);
	if (error != 0)
		return error;
	memset(uffdwp_region_base(region), 'b', LENGTH_BYTES);
	error = uffdwp_snapshot_wait(shot, -1, NULL);
	(void)uffdwp_snapshot_free(shot);
	return error;
}

static int run(struct uffdwp *runtime, const char *path)
{
	struct uffdwp_region *region;
	int error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region);

	if (error != 0)
		return complain("create", error);
	error = snapshot(region, path);
	if (error != 0)
		complain("snapshot", error);
	else if (!file_holds(path, 'a', LENGTH_BYTES))
		error = complain("the image is not the cut", 0);
	if (uffdwp_region_close(region) != 0)
		error = complain("close", 0);
	return error == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct uffdwp *runtime;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0) {
		complain("open", error);
		return error == -EPERM || error == -EACCES || error == -ENOSYS ? 77 : 1;
	}
	result = argc == 2 ? run(runtime, argv[1]) : 1;
	if (uffdwp_close(runtime) != 0)
		result = 1;
	if (result == 0)
		printf("C99, libuffdwp %s: the image is the cut\n", uffdwp_version());
	return result;
}
