/* SPDX-License-Identifier: MIT */
/*
 * A collector: asks a track what was written, by all the means that there are, checks that the answer is a sound one
 * (ordered, whole pages, inside of what was asked for, its sums right), and puts it before the judge.
 *
 * Threads: a collector is one thread's.
 */
#ifndef SUPPORT_TRACK_COLLECTOR_H
#define SUPPORT_TRACK_COLLECTOR_H

#include <stddef.h>
#include <stdint.h>

#include "chance.h"
#include "track_field.h"
#include "track_judge.h"
#include "uffdwp.h"

/* uffdwp_track_collect() of the field's track, or what plays its part. */
typedef int (*collect_fn)(struct field *field, struct uffdwp_collect *request);

struct collector {
	struct judge *judge;
	collect_fn collect;
	struct view view;
	struct chance chance;
	int alone; /* no other thread collects: each answer is judged */
	uint64_t vanished_bytes;
};

void collector_open(struct collector *collector, struct judge *judge, collect_fn collect, uint64_t salt);
void collector_close(struct collector *collector);

int collect_by_library(struct field *field, struct uffdwp_collect *request);

/* Collects or peeks something, into something. */
void collector_ask(struct collector *collector);

/* Collects all that is tracked. */
void collector_ask_all(struct collector *collector);

#endif
