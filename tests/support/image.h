/* SPDX-License-Identifier: MIT */
/*
 * An image taken by whichever sink: begins a snapshot, collects its bytes in memory (a callback copies them, a thread
 * drains the pipe of a stream, an image file is read back), and gives them to the test when it has committed.
 */
#ifndef SUPPORT_IMAGE_H
#define SUPPORT_IMAGE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "scratch.h"
#include "uffdwp.h"

struct image {
	struct uffdwp_snapshot *snapshot;
	enum uffdwp_sink sink;
	uint8_t *bytes; /* length_bytes, zeros where nothing came */
	size_t length_bytes;
	size_t got_bytes; /* stream: drained so far; callback: sum of its lengths */
	uint8_t *seen;    /* callback: how often each small page came */
	int pipe[2];
	pthread_t drain;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
};

/* Makes all ready for an image of `length` bytes: image_begin() then only calls the library. */
void image_prepare(struct image *image, enum uffdwp_sink sink, size_t length);

/* Begins: `options` gives everything but the sink. 0, or the error of uffdwp_snapshot_begin(). */
int image_begin(struct image *image, struct uffdwp_region *region, const struct uffdwp_snapshot_options *options);

/* Waits for the end and collects the bytes: the result of uffdwp_snapshot_wait(). Progress may be NULL. */
int image_finish(struct image *image, struct uffdwp_snapshot_progress *progress);

/* Frees everything; also if begin failed. */
void image_free(struct image *image);

/* Offset of the first byte that differs, or the length. */
size_t image_difference(const struct image *image, const void *expected);

#endif
