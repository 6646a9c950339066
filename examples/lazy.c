/* SPDX-License-Identifier: MIT */
/*
 * A program goes on where another one ended, at once: a lazy restore. The memory may be used as soon as the restore has
 * begun; a page is read from the image when it is first touched.
 *
 * A child process makes the image and ends. Its parent restores it with UFFDWP_RESTORE_BEGIN_ON_DEMAND: only what is
 * touched is read. Without that flag threads of the library read the rest meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <uffdwp.h>
#include <unistd.h>

#define RECORDS ((uint64_t)1 << 16)
#define LENGTH_BYTES (RECORDS * sizeof(struct record))
#define LOOKED_UP 8
#define PATH "lazy.raw"

struct record {
	uint64_t key;
	uint64_t square;
	char rest[1008];
};

static int lazy_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static int lazy_save(struct uffdwp_region *region)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct record *records = uffdwp_region_base(region);
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	for (uint64_t key = 0; key < RECORDS; key++)
		records[key] = (struct record){.key = key, .square = key * key, .rest = "restored lazily"};
	options.path = PATH;
	error = uffdwp_snapshot_begin(region, &options, &snapshot);
	if (error != 0)
		return lazy_failed("uffdwp_snapshot_begin", error);
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0)
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
	return error != 0;
}

static int lazy_is_right(const struct record *record, uint64_t key)
{
	return record->key == key && record->square == key * key && strcmp(record->rest, "restored lazily") == 0;
}

static int lazy_read(const struct record *records, struct uffdwp_restore *restore)
{
	struct uffdwp_restore_progress progress = UFFDWP_INIT(struct uffdwp_restore_progress);
	char text[512];
	uint64_t wrong = 0;
	int error;

	for (uint64_t key = 0; key < RECORDS; key += RECORDS / LOOKED_UP)
		wrong += lazy_is_right(&records[key], key) ? 0 : 1;
	error = uffdwp_restore_poll(restore, &progress);
	if (error != 0)
		return lazy_failed("uffdwp_restore_poll", error);
	printf("usable after %.2f ms; %d records of 1 KiB brought %llu of %llu pages\n",
	       (double)progress.begin_ns / 1e6, LOOKED_UP, (unsigned long long)progress.pages_done,
	       (unsigned long long)progress.pages_total);
	if (progress.pages_done == progress.pages_total)
		wrong++; /* then it was not on demand */
	for (uint64_t key = 0; key < RECORDS; key++)
		wrong += lazy_is_right(&records[key], key) ? 0 : 1;
	error = uffdwp_restore_wait(restore, -1, &progress); /* 0: all pages are there */
	if (error != 0) {
		uffdwp_restore_text(restore, text, sizeof(text));
		fprintf(stderr, "the restore failed: %s: %s\n", strerror(-error), text);
		return 1;
	}
	printf("all records were read: %llu pages, of which a thread waited for %llu; %llu records are wrong\n",
	       (unsigned long long)progress.pages_done, (unsigned long long)progress.pages_demand,
	       (unsigned long long)wrong);
	return wrong != 0;
}

static int lazy_restore(struct uffdwp_region *region)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore;
	int result;
	int error;

	options.path = PATH;
	options.flags = UFFDWP_RESTORE_BEGIN_ON_DEMAND;
	error = uffdwp_restore_begin(region, &options, &restore);
	if (error != 0)
		return lazy_failed("uffdwp_restore_begin", error);
	result = lazy_read(uffdwp_region_base(region), restore);
	uffdwp_restore_free(restore); /* pages that were not fetched would raise SIGBUS from now on */
	return result;
}

/* One of the two processes. */
static int lazy_process(int (*work)(struct uffdwp_region *region), uint32_t mechanism)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return lazy_failed("uffdwp_open", error);
	options.mechanism = mechanism;
	error = uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region);
	if (error != 0) {
		result = lazy_failed("uffdwp_region_create", error);
	} else {
		result = work(region);
		uffdwp_region_close(region);
	}
	return uffdwp_close(runtime) != 0 ? 1 : result;
}

int main(void)
{
	int status;
	int result;
	pid_t child = fork();

	if (child == 0)
		return lazy_process(lazy_save, UFFDWP_MECHANISM_AUTO);
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 1;
	result = WEXITSTATUS(status);
	if (result == 0) /* rearm is the mechanism that sees accesses to pages that are not there yet */
		result = lazy_process(lazy_restore, UFFDWP_MECHANISM_REARM);
	unlink(PATH);
	return result;
}
