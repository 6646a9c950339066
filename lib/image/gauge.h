/* SPDX-License-Identifier: MIT */
/*
 * How far a call is that reads an image whole, for the callback that the program named (uffdwp_image_progress()): a
 * sum of bytes that the call's threads add to, and a report for each MiB of it. What a call counts is up to the call;
 * the sum never exceeds `total`, never goes back, and is `total` in the last report of a call that succeeds.
 *
 * Threads: gauge_add() by all of a call. One of them is in the callback at a time: a thread that finds another one
 * there goes on without a report, so that no thread waits for the program. An answer of the callback other than 0 ends
 * the call: it is kept, and returned by every gauge_add() from then on.
 */
#ifndef UFFDWP_IMAGE_GAUGE_H
#define UFFDWP_IMAGE_GAUGE_H

#include <stdatomic.h>

#include "base/text.h"
#include "image/chain.h"

struct gauge {
	uffdwp_progress_fn callback; /* NULL: nothing is reported */
	void *user;
	uint64_t total;
	_Atomic uint64_t done;
	_Atomic uint64_t due; /* the next report is for so many bytes */
	_Atomic int is_reporting;
	_Atomic int answer; /* of the callback, the first that is not 0 */
};

/* For a call on `image`, before its other threads begin. */
void gauge_begin(struct gauge *gauge, const struct uffdwp_image *image, uint64_t total);

/* So many bytes more are done. 0, or what the callback answered: the call is to end with it. */
int gauge_add(struct gauge *gauge, uint64_t bytes);

/* The first `bytes` of all are done: for calls of one thread. As gauge_add(). */
int gauge_move(struct gauge *gauge, uint64_t bytes);

/* All is done, and no other thread of the call is left. As gauge_add(). */
int gauge_end(struct gauge *gauge);

/* 1: the callback ended the call, and `text` says so. */
int gauge_was_ended(struct gauge *gauge, struct text *text);

#endif
