/* SPDX-License-Identifier: MIT */
/*
 * What the programs of tests/habits share. Each of them stands for a program of a user: it is linked with the shared
 * library, knows the public header only, and does what such programs do, however unusual.
 *
 * A habit is a runtime with one region and a second witness: habit_cut() begins a snapshot whose cut_enter takes the
 * writers' lock and copies the region's memory, so that habit_end() can compare the image with the copy, byte by byte.
 * Between the two the sweep is kept waiting by a gate in the sink's callback: "while a snapshot runs" does not depend
 * on time.
 *
 * All assertions are must() (support.h): they hold in threads, in children of fork(), and after the program has shut
 * itself off from files. must_be() prints the library's own text, too.
 */
#ifndef SUPPORT_HABIT_H
#define SUPPORT_HABIT_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/counts.h"
#include "gate.h"
#include "support.h"
#include "uffdwp.h"

struct habit_case {
	enum uffdwp_memory memory;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
};

/* memory x mechanism x delivery */
#define HABIT_CASES ((int)UFFDWP_MEMORY_COUNT * ((int)UFFDWP_MECHANISM_REGION_COUNT - 1) * 2)

struct habit {
	struct habit_case which;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_snapshot *snapshot;
	struct gate gate;
	pthread_mutex_t lock; /* the writers': a cut is between two of their writes */
	uint8_t *base;
	size_t length_bytes;
	size_t page_bytes;
	size_t pages;
	uint8_t *copy;  /* of the region, made at the cut */
	uint8_t *image; /* of the snapshot */
	int fd;         /* ours, of attached shared memory; -1: none */
	char why[512];  /* the text of a refusal */
	int attached;   /* 1: the mapping is the program's to unmap */
};

/* First in main(). `huge_pages`: how many of the default size the program wants. */
void habit_begin(const char *program, unsigned huge_pages);

/* What the probe answered in habit_begin(); 0: not known. */
size_t habit_probed_page_bytes(enum uffdwp_memory memory);

/* Case `index` of HABIT_CASES; the cases of small pages come first: [0, HABIT_SMALL_CASES). */
struct habit_case habit_case(int index);
#define HABIT_SMALL_CASES (HABIT_CASES / 3 * 2)
/* 1: this machine can do it. */
int habit_possible(struct habit_case which);
const char *habit_name(struct habit_case which);

/* rc, of a call on the runtime, must be `expected`; else the text of the thread is printed. */
#define must_be(runtime, rc, expected) ((void)(runtime), must_be_equal(rc, expected, __FILE__, __LINE__, #rc))
void must_be_equal(int rc, int expected, const char *file, int line, const char *text);

/* One of the errors: rc must be among `count` of them. Prints what it was. */
int is_one_of(int rc, const int *errors, size_t count);

/* A runtime with a region of the case: created, or attached where the memory is anonymous. 0, or the library's error
 * with nothing open. */
int habit_try(struct habit *habit, struct habit_case which, size_t pages);
/* The same; a refusal is a failure. */
void habit_open(struct habit *habit, struct habit_case which, size_t pages);
/* The same in memory of the program's own, which stays its own. */
int habit_try_on(struct habit *habit, struct habit_case which, void *base, size_t length, int fd, uint64_t fd_offset);
void habit_open_on(struct habit *habit, struct habit_case which, void *base, size_t length, int fd);
void habit_close(struct habit *habit);

/* Bytes that differ from page to page and by `salt`, everywhere. */
void habit_fill(struct habit *habit, uint64_t salt);
/* One write, under the writers' lock. */
void habit_write(struct habit *habit, size_t page, size_t offset, uint8_t value);

/* Begins a snapshot whose sweep waits; the copy is made at the cut. 0, or the library's error. */
int habit_try_cut(struct habit *habit);
void habit_cut(struct habit *habit);
/* Lets the sweep run on and waits for its end. 0: the image is the copy, checked; else the error that it ended with. */
int habit_try_end(struct habit *habit);
void habit_end(struct habit *habit);
/* Cut, a write to every second page, end: what a program does to see that the library still works. */
void habit_round(struct habit *habit, uint64_t salt);
/* The same, where the library may refuse or fail, with a text. 0, or the error; the region can be written after it. */
int habit_try_round(struct habit *habit, uint64_t salt);
/* After a refusal: there is a text, which is printed. */
void habit_says_why(void);

/* Anonymous memory of the test's own, outside of the heap. */
void *habit_map(size_t length);

/* 1, or more where UFFDWP_TEST_LONG=1 asks for the long form: for loops of random tests. */
int habit_factor(void);

/* A child that runs function(argument) and must return within some seconds of a quiet machine (pace.h); its wait
 * status. Says which case. */
int habit_child(void (*function)(void *), void *argument);

#endif
