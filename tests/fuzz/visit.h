/* SPDX-License-Identifier: MIT */
/* What fuzzers do with images: the whole interface, and what must hold whatever the files say. */
#ifndef FUZZ_VISIT_H
#define FUZZ_VISIT_H

#include "forge.h"
#include "uffdwp.h"

#define VISIT_FILES_MOST 8

struct visit {
	int fds[VISIT_FILES_MOST];
	char paths[VISIT_FILES_MOST][FORGE_PATH_BYTES];
	unsigned count;
};

void visit_begin(struct visit *visit);
void visit_end(struct visit *visit);

/* Newest first. */
void visit_add(struct visit *visit, const struct forged *forged);

/* A raw image, and so many deltas on it. */
void visit_build(struct visit *visit, struct forge_input *input, unsigned deltas);

/* Opens an image of any path, whose ancestors are among the files. */
struct uffdwp_image *visit_open_path(struct visit *visit, const char *path, uint32_t flags);

/* Opens the image of file `number`, whose ancestors are among the others. NULL: it was refused, with a text. */
struct uffdwp_image *visit_open(struct visit *visit, unsigned number);

/* Descriptions, extents, and reads: both say the same. */
void visit_look(struct uffdwp_image *image);

/* What verify finds whole can be read. */
int visit_verify(struct uffdwp_image *image);

/* Both show the same, as far as both are read. */
void visit_compare(struct uffdwp_image *one, struct uffdwp_image *two);

#endif
