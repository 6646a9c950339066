/* SPDX-License-Identifier: MIT */
/*
 * `trace` of the protocol: samples of faults (fault/tap.h) as lines to one client, until the time is over or the client
 * goes. What it does not read in time is left out and counted.
 *
 * Threads: uffdwp-control.
 */
#ifndef UFFDWP_CONTROL_TAPPED_H
#define UFFDWP_CONTROL_TAPPED_H

#include "control/ask.h"
#include "control/say.h"

/* How often is looked for events while there is a trace. */
#define TAPPED_TURN_NS 10000000ull

/* What may wait for the client. */
#define TAPPED_BYTES_MOST ((size_t)256 << 10)

/* The trace of a client. */
struct tapped {
	int tap; /* -1: none */
	uint64_t per_second;
	uint64_t until_ns;   /* UINT64_MAX: until the client goes */
	uint64_t allowed_ns; /* until when events were allowed for */
	uint64_t tick_ns;    /* when the next tick is due */
	uint64_t sent;
	uint64_t dropped; /* that the client had no room for */
};

/* Begins one; answers as the functions of acts.h do. */
int tapped_begin(struct tapped *tapped, const struct kernel_ops *k, struct ask *ask);
void tapped_end(struct tapped *tapped);

/* Appends what has come. `waiting`: bytes of `say` that the client has not read. */
void tapped_pass(struct tapped *tapped, struct say *say, size_t waiting, uint64_t now_ns);

#endif
