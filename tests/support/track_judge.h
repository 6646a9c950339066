/* SPDX-License-Identifier: MIT */
/*
 * The judge of INV-TRACK: was every write in an answer? It decides by two methods.
 *
 *   by counts   Each writer counts, for each page, the writes that it has begun and those that it has done. A collect
 *               must report a page of which some write was done before the collect began, unless an earlier one
 * reported it that ended after the write was begun. Both are known for each writer and page, so what it calls missed
 * was missed, whatever ran beside it. by content  A copy of the memory that is brought up to date from reported pages
 * only, as an incremental backup would: when all is quiet, and was collected, it equals the memory.
 *
 * While several threads collect at once, what one has not found another may be about to report: then only the collect
 * at the end of a round, when all is quiet, is judged.
 *
 * What goes on with a page besides writes is in its watch: whether it is tracked, and whether its entry is about to be
 * moved or emptied. Collects beside which that was so, or changed, need not report the page: it is due in the next.
 *
 * Threads: a writer's counts are its own; views belong to one collect; the rest is under the judge's lock.
 */
#ifndef SUPPORT_TRACK_JUDGE_H
#define SUPPORT_TRACK_JUDGE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "track_field.h"
#include "uffdwp.h"

#define JUDGE_STRIPES 64
#define JUDGE_HISTORY 4

struct judge {
	struct field *field;
	size_t writers;
	_Atomic uint32_t *begun;   /* [writer * pages + page] */
	_Atomic uint32_t *done;    /* the same */
	uint32_t *covered;         /* the same: writes that were begun when the last collect that reported it ended */
	uint8_t *overdue;          /* [page]: a collect should have reported it */
	_Atomic uint8_t *delays;   /* [page]: it need not be in an answer before the round ends, until it was in one */
	_Atomic uint8_t *history;  /* [page * JUDGE_HISTORY]: what was done to it last, for people */
	_Atomic uint32_t *watch;   /* [page] */
	_Atomic uint8_t *may_zero; /* [page]: its content may have gone without a report: then it reads as zeros */
	uint8_t *copy;
	pthread_mutex_t lock;
	pthread_mutex_t stripes[JUDGE_STRIPES]; /* of pages of the copy */

	/* Figures; under the lock. */
	uint64_t collects;
	uint64_t reported; /* pages, of all answers */
	uint64_t over;     /* of these: no write had begun since the last report */
	uint64_t late;     /* pages that a collect should have reported and a later one did */
	uint64_t missed;   /* pages that none reported, or whose copy differs */
};

/* What one collect is judged by. */
struct view {
	uint32_t *done;
	uint32_t *begun;
	uint32_t *watch;
	uint8_t *reported; /* [page] */
	uint8_t *base[FIELD_BLOCKS_MAX];
	size_t foreign; /* ranges of the answer that are none of the field's */
};

/* The memory as it is now is the copy; all pages untracked. */
void judge_open(struct judge *judge, struct field *field, size_t writers);
void judge_close(struct judge *judge);

/* A writer is about to write to a page, and has written. */
void judge_begin(struct judge *judge, size_t writer, size_t page);
void judge_end(struct judge *judge, size_t writer, size_t page);

/* Pages [page, page + pages) become tracked or untracked: called after an addition and before a removal. Their entries
 * are moved or emptied: called before and after it. */
void judge_watch(struct judge *judge, size_t page, size_t pages);
void judge_unwatch(struct judge *judge, size_t page, size_t pages);
void judge_stir(struct judge *judge, size_t page, size_t pages);
int judge_watches(const struct judge *judge, size_t page);

/* Where the library hears of it from a thread of its own: what was done to these pages may be reported late. */
void judge_allow_delay(struct judge *judge, size_t page, size_t pages);

/* What was written to these pages until now will be in no answer, and need not be: they were added as clean (their
 * content is copied now), or their content was thrown away, which such a track does not report. */
void judge_excuse(struct judge *judge, size_t page, size_t pages);
void judge_may_zero(struct judge *judge, size_t page, size_t pages);

/* Keeps a letter for what is done to these pages: printed of pages that were missed. */
void judge_note(struct judge *judge, size_t page, size_t pages, char deed);

void judge_view_open(struct view *view, const struct judge *judge);
void judge_view_close(struct view *view);

/* Before a collect; each range of its answer; right after it. `is_peek`: nothing was armed. `alone`: no other thread
 * collected meanwhile, so that what is not there is missed. [start, end): the addresses that were collected. */
void judge_look(struct judge *judge, struct view *view);
void view_report(struct view *view, const struct field *field, uint64_t start, uint64_t end);
void judge_collected(struct judge *judge, struct view *view, uint64_t start, uint64_t end, int is_peek, int alone);

/* Brings the copy of all pages that the view has reported up to date. No lock of a block may be held. */
void judge_copy(struct judge *judge, const struct view *view);

/* Tracked pages that are overdue, or whose copy differs from the memory now. */
size_t judge_differs(struct judge *judge);

/* When all is quiet and was collected and copied: counts tracked pages that are still overdue or whose copy differs
 * from the memory. */
void judge_compare(struct judge *judge);

#endif
