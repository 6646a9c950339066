/* SPDX-License-Identifier: MIT */
/*
 * The input builds a raw image and up to three deltas on it, each with fields that the input overwrites before or after
 * the checksums are made. The chain is opened, read, verified, merged into a raw image and into fewer deltas, and
 * compared: what a merge or a difference brings must show what the chain shows.
 *
 * fuzz-options: -max_len=512 -len_control=0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forge.h"
#include "uffdwp.h"
#include "visit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In memory where the system has such a folder: results are synced. */
static const char *result_path(void)
{
	static char path[96];

	if (!path[0])
		snprintf(path, sizeof(path), "%.64s/uffdwp-fuzz-%ld", forge_scratch(), (long)getpid());
	return path;
}

/* What was written at the result's path shows the same as the chain. */
static void check_result(struct visit *visit, struct uffdwp_image *image, uint32_t flags)
{
	struct uffdwp_image *result = visit_open_path(visit, result_path(), flags);

	forge_must(result != NULL, "a result can be opened");
	visit_compare(image, result);
	(void)uffdwp_image_close(result);
}

static void merge(struct visit *visit, struct uffdwp_image *image, uint32_t deltas, uint32_t compress)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	char text[512];

	options.flags = UFFDWP_IMAGE_MERGE_BUFFERED;
	options.deltas = deltas;
	options.compress = deltas ? compress : 0;
	options.threads = deltas ? 0 : 1;
	int error = uffdwp_image_merge(image, result_path(), &options);

	if (error) {
		forge_must(uffdwp_image_text(image, text, sizeof(text)) > 0, "a merge that fails has a text");
		forge_must(access(result_path(), F_OK) != 0, "a merge that fails leaves nothing");
		return;
	}
	check_result(visit, image, deltas ? 0 : UFFDWP_IMAGE_OPEN_RAW);
	unlink(result_path());
}

static void compare(struct visit *visit, struct uffdwp_image *from, struct uffdwp_image *to, uint32_t compress)
{
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;

	diff.path = result_path();
	diff.compress = compress;
	if (uffdwp_image_diff(from, to, &diff) == 0)
		check_result(visit, to, 0);
	unlink(result_path());
}

static void use(struct visit *visit, struct uffdwp_image *image, uint8_t choice)
{
	visit_look(image);
	int error = visit_verify(image);

	merge(visit, image, 0, 0);
	merge(visit, image, 1 + choice % 3, choice >> 6);
	struct uffdwp_image *other = visit_open(visit, visit->count - 1 - (choice >> 2) % visit->count);

	if (!other)
		return;
	compare(visit, other, image, choice >> 7);
	(void)uffdwp_image_close(other);
	(void)error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct forge_input input = {data, size};
	struct visit visit;
	uint8_t choice = forge_take8(&input);

	visit_begin(&visit);
	visit_build(&visit, &input, 1 + choice % 3);
	struct uffdwp_image *image = visit_open(&visit, 0);

	if (image) {
		use(&visit, image, forge_take8(&input));
		(void)uffdwp_image_close(image);
	}
	visit_end(&visit);
	return 0;
}
