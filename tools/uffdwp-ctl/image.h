/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl image: looks at images, checks them, and makes files of chains. */
#ifndef UFFDWP_CTL_IMAGE_H
#define UFFDWP_CTL_IMAGE_H

#include <stdint.h>
#include <stdio.h>

#include "progress.h"
#include "uffdwp.h"

#define IMAGE_PATHS_MAX 512

/* What a command line of any of the subcommands says. */
/* One more than any subcommand takes, to name it. */
#define IMAGE_IMAGES_MAX 3

struct image_command {
	const char *name; /* of the subcommand */
	const char *images[IMAGE_IMAGES_MAX];
	unsigned image_count;
	const char *output;
	const char *paths[IMAGE_PATHS_MAX]; /* where ancestors may be */
	size_t path_count;
	uint32_t deltas;
	uint32_t compress;
	int json;
	int raw;
	int buffered;
	int is_progress_given;
	enum progress_mode progress;
};

/* Ranges that differ, kept while they are found. What one image has beyond the other's end is compared with zeros, so
 * that images may differ by their lengths alone. */
struct image_ranges {
	uint64_t (*ranges)[2]; /* offset, length */
	size_t count;
	size_t room;
	uint64_t from_bytes; /* length of what each image shows */
	uint64_t to_bytes;
};

static inline int image_ranges_differ(const struct image_ranges *ranges)
{
	return ranges->count || ranges->from_bytes != ranges->to_bytes;
}

/* Ends with an exit code of doctor.h. */
int run_image(int argc, char **argv);

/* image_print.c: 0, or -1 where the output could not be formed. */
int image_print_info(const struct uffdwp_image *image, int json, FILE *out);
int image_print_verified(const struct uffdwp_image *image, const struct uffdwp_image_verified *verified,
                         const char *wrong, int json, FILE *out);
int image_print_diff(const struct uffdwp_image_diff *diff, const struct image_ranges *ranges, int json, FILE *out);

#endif
