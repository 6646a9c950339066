/* SPDX-License-Identifier: MIT */
/*
 * Objects that know their identity.
 *
 * Every object carries an identity that no other has, and a checksum of it. The collector clears what it frees, or
 * gives it to an object of another identity: a thread that follows a link knows from memory that the collector does not
 * see which identity must be there. Links are followed out of objects that were found to be right only, and only such
 * are written, so that a program that lost objects counts them and does not crash.
 *
 * Threads: any, after object_measure_stalls().
 */
#ifndef BDWGC_OBJECT_H
#define BDWGC_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GC_THREADS
#include <gc/gc.h>

#define PROGRAM_LOST 1    /* exit code: objects in use were freed */
#define PROGRAM_USAGE 2   /* bad options */
#define PROGRAM_REFUSED 3 /* the mode, or the memory, is not available here */

struct object {
	uint64_t id;
	uint64_t sum;
};

/* A zeroed object of `bytes`, at the head of which lies a struct object. Ends the program without memory. */
void *object_new(size_t bytes, uint64_t id);

/* 1: it is what it should be. */
bool object_is(const void *object, uint64_t id);

/* From now on the time of each allocation is passed to pauses_stall(). */
void object_measure_stalls(void);

/* splitmix64 */
uint64_t chance_next(uint64_t *state);
uint64_t chance_below(uint64_t *state, uint64_t bound);

#endif
