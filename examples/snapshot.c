/* SPDX-License-Identifier: MIT */
/*
 * A live snapshot: a thread writes without a stop, and the image in the file is the memory of one instant.
 *
 * The memory is a table of numbers, to which the writer adds under a lock. The cut is made with that lock taken: the
 * library calls cut_enter() right before it and cut_leave() right after it. What the memory was then is copied in
 * cut_enter(), for the check only; a program that does not check copies nothing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <uffdwp.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)32 << 20)
#define NUMBERS (LENGTH_BYTES / sizeof(uint64_t))
#define PATH "snapshot.raw"

struct table {
	pthread_mutex_t lock;
	uint64_t *numbers;        /* the region's memory */
	uint64_t at_cut[NUMBERS]; /* what it was at the cut */
	atomic_int stop;
};

static int snapshot_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static void *snapshot_writer(void *argument)
{
	struct table *table = argument;
	uint64_t chance = 1;

	while (!atomic_load(&table->stop)) {
		chance = chance * 6364136223846793005u + 1442695040888963407u;
		pthread_mutex_lock(&table->lock);
		table->numbers[(chance >> 32) % NUMBERS]++; /* may be a fault, which the library resolves */
		pthread_mutex_unlock(&table->lock);
	}
	return NULL;
}

static int snapshot_enter(void *user, uint64_t *length)
{
	struct table *table = user;

	(void)length; /* the whole region */
	pthread_mutex_lock(&table->lock);
	memcpy(table->at_cut, table->numbers, LENGTH_BYTES);
	return 0;
}

static void snapshot_leave(void *user)
{
	struct table *table = user;

	pthread_mutex_unlock(&table->lock);
}

/* Whether the file holds what the memory was at the cut. */
static int snapshot_compare(const struct table *table)
{
	static uint64_t image[NUMBERS];
	FILE *file = fopen(PATH, "rb");
	int same = file != NULL && fread(image, 1, LENGTH_BYTES, file) == LENGTH_BYTES &&
	           memcmp(image, table->at_cut, LENGTH_BYTES) == 0;

	if (file != NULL)
		fclose(file);
	return same;
}

static int snapshot_take(struct uffdwp_region *region, struct table *table)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = UFFDWP_INIT(struct uffdwp_snapshot_progress);
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	options.path = PATH;
	options.cut_enter = snapshot_enter;
	options.cut_leave = snapshot_leave;
	options.cut_user = table;
	error = uffdwp_snapshot_begin(region, &options, &snapshot);
	if (error != 0)
		return snapshot_failed("uffdwp_snapshot_begin", error);
	error = uffdwp_snapshot_wait(snapshot, -1, &progress); /* the image is there when this is 0 */
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0) {
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
		return 1;
	}
	printf("the cut took %.3f ms, the image %.0f ms; write faults kept %llu pages before they changed\n",
	       (double)progress.pause_ns / 1e6, (double)progress.elapsed_ns / 1e6,
	       (unsigned long long)progress.pages_fault);
	return 0;
}

/* With a writer beside it; then the check. */
static int snapshot_run(struct uffdwp_region *region, struct table *table)
{
	pthread_t writer;
	int result;

	if (pthread_create(&writer, NULL, snapshot_writer, table) != 0)
		return 1;
	result = snapshot_take(region, table);
	atomic_store(&table->stop, 1);
	pthread_join(writer, NULL);
	if (result == 0) {
		result = snapshot_compare(table) ? 0 : 1;
		printf(PATH " is %swhat the memory was at the cut\n", result == 0 ? "" : "not ");
	}
	unlink(PATH);
	return result;
}

int main(void)
{
	static struct table table = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return snapshot_failed("uffdwp_open", error);
	error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region);
	if (error != 0) {
		result = snapshot_failed("uffdwp_region_create", error);
	} else {
		table.numbers = uffdwp_region_base(region);
		result = snapshot_run(region, &table);
		uffdwp_region_close(region);
	}
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
