/* SPDX-License-Identifier: MIT */
/*
 * The input builds a chain as for fuzz_chain, which is restored into a region, whole and lazily, with what lseek(2)
 * says of data and holes now and then replaced by what the input says. Where nothing was made up, a restore that
 * succeeds leaves in memory what the image shows, and zeros after it.
 *
 * fuzz-options: -max_len=512 -len_control=0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "forge.h"
#include "kernel/kernel.h"
#include "uffdwp.h"
#include "visit.h"

#define REGION_BYTES ((size_t)1 << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kernel_ops ops;
static struct uffdwp *runtime;
static struct uffdwp_region *region;
static uint64_t lies; /* a bit for each of the next answers of seek; the caller's thread and those that fetch */
static unsigned seek_count;

static int64_t lying_seek(int fd, uint64_t offset, int whence)
{
	unsigned number = __atomic_fetch_add(&seek_count, 1, __ATOMIC_RELAXED);

	forge_must(number < 1000000, "what lseek says is asked for no more than a million times");
	if (!(lies >> (number % 64) & 1))
		return kernel_real.seek(fd, offset, whence);
	switch ((lies + number) % 6) {
	case 0:
		return 0;
	case 1:
		return (int64_t)offset + 512;
	case 2:
		return INT64_MAX;
	case 3:
		return -ENXIO;
	case 4:
		return -EINVAL;
	default:
		return (int64_t)offset;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp_region_options of = UFFDWP_REGION_OPTIONS_INIT;

	(void)argc;
	(void)argv;
	ops = kernel_real;
	ops.seek = lying_seek;
	int error = api_open(&ops, &options, &runtime);

	of.delivery = UFFDWP_DELIVERY_THREAD;
	of.mechanism = UFFDWP_MECHANISM_REARM;
	if (!error)
		error = uffdwp_region_create(runtime, REGION_BYTES, &of, &region);
	of.mechanism = UFFDWP_MECHANISM_AUTO;
	if (error == -EOPNOTSUPP)
		error = uffdwp_region_create(runtime, REGION_BYTES, &of, &region);
	if (error) {
		fprintf(stderr, "skipped: no region can be made here: %s\n", strerror(-error));
		exit(77);
	}
	return 0;
}

/* The image, by a reader of its own, against memory. */
static void check_memory(struct visit *visit)
{
	static uint8_t expected[REGION_BYTES];
	struct uffdwp_image *image = visit_open(visit, 0);
	struct uffdwp_image_info info = {.sz = sizeof(info)};

	forge_must(image && uffdwp_image_info(image, 0, &info) == 0 && info.length_bytes <= REGION_BYTES,
	           "what was restored can be opened and is no longer than the region");
	memset(expected, 0, sizeof(expected));
	forge_must(uffdwp_image_read(image, 0, expected, (size_t)info.length_bytes) == 0,
	           "what was restored can be read");
	forge_must(memcmp(expected, uffdwp_region_base(region), REGION_BYTES) == 0, "memory is what the image shows");
	(void)uffdwp_image_close(image);
}

static void restore_whole(struct visit *visit, const struct uffdwp_restore_options *options)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	char text[512];
	int error = uffdwp_restore(region, options, &progress);

	forge_must(!error || uffdwp_error_text(text, sizeof(text)) > 0, "a restore that fails has a text");
	if (!error && !lies)
		check_memory(visit);
}

static void restore_lazily(struct visit *visit, const struct uffdwp_restore_options *options)
{
	struct uffdwp_restore *restore = NULL;

	if (uffdwp_restore_begin(region, options, &restore))
		return;
	int error = uffdwp_restore_wait(restore, -1, NULL);

	if (!error && !lies)
		check_memory(visit);
	(void)uffdwp_restore_free(restore);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct forge_input input = {data, size};
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	const char *paths[VISIT_FILES_MOST] = {NULL};
	struct visit visit;
	uint8_t choice = forge_take8(&input);

	lies = choice & 4 ? forge_take(&input, 8) : 0;
	seek_count = 0;
	visit_begin(&visit);
	visit_build(&visit, &input, choice % 4);
	for (unsigned i = 0; i < visit.count; i++)
		paths[i] = visit.paths[i];
	options.path = paths[0];
	options.paths = paths;
	options.path_count = visit.count;
	options.threads = 1 + (choice >> 3 & 1);
	options.flags = choice % 4 == 0 ? UFFDWP_RESTORE_RAW : 0;
	if (choice & 16)
		restore_lazily(&visit, &options);
	restore_whole(&visit, &options);
	visit_end(&visit);
	return 0;
}
