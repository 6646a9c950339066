/* SPDX-License-Identifier: MIT */
/*
 * A chain of increments: a whole image, then deltas that hold only what was written since, and the restore of a link in
 * the middle.
 *
 * The memory has LINKS versions, of which each changes a few pages. A snapshot with UFFDWP_SNAPSHOT_KEEP leaves the
 * region protected, so that the next one knows what was written since and names the former image as its parent. A delta
 * reads as if it were whole: the library finds its parents beside it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uffdwp.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)16 << 20)
#define PAGE_BYTES ((size_t)4096)
#define PAGES (LENGTH_BYTES / PAGE_BYTES)
#define LINKS 4
#define RESTORED 2 /* the link that is restored */

static const char *const increments_paths[LINKS] = {"increments-0.raw", "increments-1.delta", "increments-2.delta",
                                                    "increments-3.delta"};

static int increments_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

/* What page `page` holds in a version: version 0 writes all pages, version n each page that a prime of its own divides.
 */
static unsigned char increments_byte(size_t page, int version)
{
	static const size_t primes[LINKS] = {1, 101, 211, 307};
	int last = 0;

	for (int at = 1; at <= version; at++) {
		if (page % primes[at] == 0)
			last = at;
	}
	return (unsigned char)(page + 1 + (size_t)last * 17);
}

static void increments_write(unsigned char *memory, int version)
{
	for (size_t page = 0; page < PAGES; page++) {
		unsigned char byte = increments_byte(page, version);

		if (version == 0 || byte != increments_byte(page, version - 1))
			memset(memory + page * PAGE_BYTES, byte, PAGE_BYTES);
	}
}

static int increments_are(const unsigned char *memory, int version)
{
	for (size_t at = 0; at < LENGTH_BYTES; at++) {
		if (memory[at] != increments_byte(at / PAGE_BYTES, version))
			return 0;
	}
	return 1;
}

static int increments_save(struct uffdwp_region *region, int link)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = UFFDWP_INIT(struct uffdwp_snapshot_progress);
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	options.path = increments_paths[link];
	options.parent = link > 0 ? increments_paths[link - 1] : NULL;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	error = uffdwp_snapshot_begin(region, &options, &snapshot);
	if (error != 0)
		return increments_failed("uffdwp_snapshot_begin", error);
	error = uffdwp_snapshot_wait(snapshot, -1, &progress);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0) {
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
		return 1;
	}
	printf("%s: %llu KiB written\n", options.path, (unsigned long long)progress.bytes_written >> 10);
	return 0;
}

static int increments_restore(struct uffdwp_region *region)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress progress = UFFDWP_INIT(struct uffdwp_restore_progress);
	int error;

	options.path = increments_paths[RESTORED];
	error = uffdwp_restore(region, &options, &progress);
	if (error != 0)
		return increments_failed("uffdwp_restore", error);
	if (!increments_are(uffdwp_region_base(region), RESTORED)) {
		fprintf(stderr, "%s: not what the memory was\n", options.path);
		return 1;
	}
	printf("%s: restored, %llu KiB, what the memory was\n", options.path,
	       (unsigned long long)progress.length_bytes >> 10);
	return 0;
}

int main(void)
{
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int result = 0;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return increments_failed("uffdwp_open", error);
	error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region);
	if (error != 0) {
		result = increments_failed("uffdwp_region_create", error);
	} else {
		for (int link = 0; link < LINKS && result == 0; link++) {
			increments_write(uffdwp_region_base(region), link);
			result = increments_save(region, link);
		}
		if (result == 0)
			result = increments_restore(region);
		uffdwp_region_close(region);
	}
	for (int link = 0; link < LINKS; link++)
		unlink(increments_paths[link]);
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
