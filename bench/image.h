/* SPDX-License-Identifier: MIT */
/*
 * The image file of a rival, as durable as the library's: written aside, from its first byte to its last, synced,
 * renamed, and the folder synced. Plain system calls only, so that the child of a program with threads may call it.
 */
#ifndef UFFDWP_BENCH_IMAGE_H
#define UFFDWP_BENCH_IMAGE_H

#include <stddef.h>

#define IMAGE_PIECE_BYTES (1u << 20)
#define IMAGE_ALIGNMENT 4096 /* of memory and lengths, for O_DIRECT */

struct image {
	int folder;
	int fd;
	int direct;
	char aside[512];
};

/* 1 where the folder's file system has O_DIRECT. */
int image_direct_works(const char *folder);

/* Names the file and opens its folder, which ends the program where it fails; nothing is created yet. */
void image_prepare(struct image *image, const char *folder, int direct);

/* These: 0, or a negative errno. Nothing stays when one has failed, and after image_commit(). */
int image_create(struct image *image);
int image_append(struct image *image, const char *bytes, size_t length);
int image_commit(struct image *image, const char *path);

/* Closes the folder. */
void image_fini(struct image *image);

#endif
