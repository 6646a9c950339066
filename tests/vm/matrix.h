/* SPDX-License-Identifier: MIT */
/*
 * The matrix: what each mechanism does on the kernel that runs this, for each type of memory, both deliveries and both
 * jobs, by the public interface alone and with every mechanism asked for by its name.
 *
 * Words: a cell is memory x mechanism x delivery x job. It is proved (done, and checked against a shadow copy), refused
 * (the library said why) or failed. A treatment is what a page goes through between being armed and being written.
 *
 * Threads: a cell runs in a process of its own, so that one that crashes or hangs is a failed cell and no more. Inside
 * it the jobs say which threads write.
 *
 * What must never happen: a cell counts as proved without a check.
 */
#ifndef VM_MATRIX_H
#define VM_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "base/counts.h"
#include "chance.h"
#include "uffdwp.h"

enum job { JOB_ARM, JOB_PRESERVE, JOB_COUNT };
enum verdict { PROVED, REFUSED, FAILED };

enum treatment {
	TREAT_NOTHING,
	TREAT_PUNCH, /* fallocate(2) outside of the library */
	TREAT_ZAP,   /* MADV_DONTNEED */
	TREAT_SWAP,  /* MADV_PAGEOUT */
	TREAT_COUNT
};

struct cell {
	enum uffdwp_memory memory;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
	enum job job;
};

/* What came of a cell; the text is the reason, or counts. */
struct outcome {
	enum verdict verdict;
	char text[400];
};

/* Where a cell is played. */
struct place {
	struct cell cell;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	uint8_t *shadow; /* what the memory holds */
	size_t page_bytes;
	size_t pages;
	size_t length_bytes;
	int fd;       /* the region's; -1: anonymous */
	int attached; /* the mapping is ours */
	struct chance chance;
};

/* Options of the run. */
extern int expect_losses; /* shmem by rearm must have lost pages by hole and by swap, or it failed */

/* Each writes the outcome and returns 0: functions of a job return 1 when it may go on. */
int outcome_fail(struct outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));
int outcome_refuse(struct outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Opens a runtime and a region of the cell's memory, in which some pages have random content and some none. 1, or 0
 * with the outcome. */
int place_open(struct place *place, struct cell cell, struct outcome *outcome);
int place_close(struct place *place, struct outcome *outcome);

struct uffdwp_region_stats place_stats(const struct place *place);

/* Applies a treatment to [first, end): 0; or -errno where this memory or this kernel does not have it. The shadow
 * follows. */
int place_treat(struct place *place, enum treatment treatment, size_t first, size_t end);

/* 1: the library promises that the treatment of this memory is harmless to this cell's job. */
int place_may_treat(const struct place *place, enum treatment treatment);

/* Sixteen random bytes somewhere in a page, in the memory and in the shadow. */
void place_write(const struct place *place, struct chance *chance, size_t page);

/* 1: the page holds what the shadow says. */
int place_agrees(const struct place *place, size_t page);

/* Pages that have content and are not in memory: swapped out. */
size_t place_swapped(const struct place *place);

const char *treatment_name(enum treatment treatment);

void arm_job(struct place *place, struct outcome *outcome);
void preserve_job(struct place *place, struct outcome *outcome);

/* The control: bare write protection on shmem, outside of the library. Prints a line for each treatment; 0, or 1 when
 * one ended otherwise than `expected` says: "caught", "missed", "refused", or NULL for any. */
int bare_control(const char *expected);

#endif
