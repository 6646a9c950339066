/* SPDX-License-Identifier: MIT */
/*
 * What the files of the question `fork` share: its contenders ("sides"), the content of the memory that a child can be
 * judged by, the child's task, and what a side showed with one size.
 *
 * fork_sides.c and fork_bare.c have the sides, fork_child.c the content and both ends of the talk with a child,
 * fork_trial.c measures one side, fork.c chooses, reports and prints, fork_plot.c makes a picture.
 *
 * Content: word 0 of a page is a stamp of the page and of its generation, which goes up with each write; the other
 * words follow from the page alone. So the child knows by the generations that it inherited what each page has to hold,
 * and a page that holds what was written after the cut is found.
 */
#ifndef UFFDWP_BENCH_FORK_H
#define UFFDWP_BENCH_FORK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uffdwp.h>

#include "area.h"
#include "histogram.h"
#include "picture.h"
#include "report.h"
#include "rounds.h"

#define FORK_CALLS_MAX 100 /* in one trial */

/* ------------------------------------------------------------------------------------------------------ sides -- */

enum fork_side_number { FORK_PLAIN, FORK_THREAD, FORK_INLINE, FORK_INLINE_AUTO, FORK_BARE, FORK_SIDES };

struct fork_side {
	const char *name; /* in figures */
	struct picture_look look;
	int is_library;
	uint32_t delivery;
	uint32_t arming;
	void (*open)(const struct fork_side *side, size_t size_bytes, struct area *area);
	pid_t (*fork)(void);                             /* a child, 0 in the child, or a negative errno */
	void (*ready)(pid_t child);                      /* after the call, not timed */
	void (*account)(struct uffdwp_child_info *info); /* of the child that lives; sz is 0: there is none */
	void (*ended)(void);                             /* the child was waited for */
	void (*close)(void);
};

extern const struct fork_side fork_sides[FORK_SIDES];

/* NULL, or why a side is not available here: found out with a little memory, before anything is measured. */
const char *fork_side_refuses(const struct fork_side *side);

/* ---------------------------------------------------------------------------------------------------- content -- */

struct fork_content {
	struct area area;
	size_t pages;
	uint32_t *generations; /* of each page */
	uint32_t *order;       /* pages in the order in which they are written */
	size_t chosen;         /* of `order`: to be written, or written, since the last cut */
	uint64_t clock_ns;
};

/* Fills memory that a side has opened. */
void fork_content_init(struct fork_content *content, const struct area *area);
void fork_content_fini(struct fork_content *content);

uint64_t fork_content_stamp(uint64_t page, uint32_t generation);

/* The sum of all words of a page. */
uint64_t fork_content_sum(const struct fork_content *content, uint64_t page);

/* Before the call: `count` random pages, which the child will look at. */
void fork_content_choose(struct fork_content *content, size_t count, uint64_t seed);

/* After it: writes one word to each of them, and keeps how long each took. The generations stay, since a child that
 * lives compares with them: fork_content_settle() when it has ended. */
void fork_content_write(struct fork_content *content, struct histogram *times);
void fork_content_settle(struct fork_content *content);

/* -------------------------------------------------------------------------------------------------- the child -- */

enum fork_scan {
	FORK_SCAN_WORDS,  /* one word of each page */
	FORK_SCAN_SUMS,   /* all words of each page */
	FORK_SCAN_SAMPLE, /* all words of every 64th page, and of each that was chosen */
	FORK_SCANS
};

struct fork_child {
	pid_t pid;
	int asks[2];    /* pipe to the child: one byte for each scan */
	int answers[2]; /* and back */
};

/* Before the call: the pipes. */
void fork_child_prepare(struct fork_child *child);

/* In the child: answers until the parent closes the pipe, and ends; the status says whether all scans were right. */
_Noreturn void fork_child_serve(const struct fork_child *child, const struct fork_content *content);

/* In the parent, after the call. */
void fork_child_adopt(struct fork_child *child, pid_t pid);

/* How long the scan took, by the child's clock. Ends the program if the child found other content than it should. */
uint64_t fork_child_scan(const struct fork_child *child, enum fork_scan scan, const char *side);

/* Has the child end, and ends the program unless it did so with the right status. */
void fork_child_end(struct fork_child *child, const char *side);

/* -------------------------------------------------------------------------------------------------- the trial -- */

enum fork_figure {
	FORK_FIRST_CALL_NS,
	FORK_CALL_NS,  /* median of the repeated calls of a round */
	FORK_PAUSE_NS, /* of the first call, by the library's account */
	FORK_REST_NS,  /* of that, the fork of all else */
	FORK_SCAN_WORDS_NS,
	FORK_SCAN_SUMS_NS,
	FORK_EXTRA_BYTES,
	FORK_EXTRA_ANON_BYTES,
	FORK_EXTRA_TABLES_BYTES,
	FORK_CHILD_ANON_BYTES,
	FORK_CHILD_PRIVATE_BYTES,
	FORK_FIGURES
};

/* What one side showed with one size. */
struct fork_row {
	const struct fork_side *side;
	struct rounds figures[FORK_FIGURES];
	double calls[ROUNDS_MAX * FORK_CALLS_MAX]; /* ns, repeated ones of all rounds */
	size_t call_count;
	struct histogram writes; /* first writes */
};

struct fork_plan {
	size_t size_bytes;
	unsigned rounds;
	unsigned calls;         /* in a round, the first one included; at least 4 */
	unsigned percent;       /* of the pages are written while the first child lives */
	size_t repeated_writes; /* pages, while each later child lives */
};

/* One round of one side; adds to the row. */
void fork_trial(const struct fork_plan *plan, unsigned round, struct fork_row *row);

/* ---------------------------------------------------------------------------------------------------- picture -- */

void fork_plot_open(const char *folder);
void fork_plot_call(const struct fork_side *side, uint64_t size_bytes, double call_ns);
void fork_plot_close(void);

#endif
