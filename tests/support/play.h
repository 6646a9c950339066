/* SPDX-License-Identifier: MIT */
/*
 * A play on the stage (stage.h), of which a program has one: writers that go through pages, a snapshot whose sweep is
 * stopped by a gate in the sink, and another gate for a hook of the fake kernel. When the sweep is stopped it has taken
 * one chunk; the pages [stage.first, stage.end) are armed and left to the test.
 */
#ifndef SUPPORT_PLAY_H
#define SUPPORT_PLAY_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "region/ledger.h"
#include "stage.h"

#define PLAY_TIME_LIMIT_S 30

extern struct stage stage;
extern struct gate play_sink; /* holds the sweep of play_begin_held() */
extern struct gate play_step; /* stops the thread that comes to play_stop() */

struct writer {
	pthread_t thread;
	size_t from;
	size_t to;
	int prepares;
	_Atomic int done;
	uint8_t value;
	int still_armed; /* prepares: pages whose wp bit was set when the library said that they may be written */
};

/* A hook. */
void play_stop(void *user);

void play_open_case(int which, size_t pages);
void play_close_case(void);

/* Writes `value` into pages [from, to), one after the other; prepares: with a barrier before each. */
void play_writer_start(struct writer *writer, size_t from, size_t to, uint8_t value, int prepares);

/* The writer ends by itself, whatever else is held. */
void play_writer_ends(struct writer *writer);
int play_is_done(void *writer);

/* For wait_until(): some writer waits for pool memory. */
int play_writer_starves(void *ignored);

/* Begins, for a thread of its own. */
void *play_begin(void *options);

/* Begins and comes back when the sweep is held. */
void play_begin_held(const struct uffdwp_snapshot_options *options);

/* Lets the sweep run; the image must be what stage.cut has, and no page may be left armed. */
void play_end_well(struct uffdwp_snapshot_progress *progress);

/* The same for a snapshot that failed with `error`, and one more that does not: nothing may be left. */
void play_end_badly(int error);

enum ledger_state play_state_of(size_t page);
uint64_t play_armed_pages(void);
void play_expect_faults(uint64_t faults);

#endif
