/* SPDX-License-Identifier: MIT */
/*
 * What tests of tracks ask and expect, page by page: the answer of a collect as a set of pages, compared with the set
 * that the test has written. All failures are assertions of Check.
 */
#ifndef SUPPORT_TRACK_CHECK_H
#define SUPPORT_TRACK_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "track_field.h"
#include "uffdwp.h"

#define PAGES_MOST 2048

/* A set of pages of some memory. */
struct pages {
	uint8_t in[PAGES_MOST];
	size_t count;
};

/* A runtime and an empty track. */
struct tracked {
	struct uffdwp *runtime;
	struct uffdwp_track *track;
};

/* 1: opened; 0: not available here, which is printed. */
int tracked_open(struct tracked *tracked, uint32_t mechanism, uint32_t flags);
void tracked_close(struct tracked *tracked);

/* Anonymous memory without transparent huge pages, populated or not. */
uint8_t *anon_new(size_t pages, int populated);
void anon_free(uint8_t *base, size_t pages);
size_t small_page(void);
void touch(uint8_t *base, size_t page);

/* The memory of a page range, as the track says it: by a bitmap. `flags`: UFFDWP_COLLECT_*. The sum must be right. */
void pages_collect(struct pages *pages, struct uffdwp_track *track, const void *base, size_t count, uint32_t flags);

void pages_clear(struct pages *pages);
void pages_put(struct pages *pages, size_t first, size_t end);

/* How many pages [first, end) are in the set. */
size_t pages_in(const struct pages *pages, size_t first, size_t end);

/* Every page of `wanted` is in, and none else. */
void pages_expect(const struct pages *pages, const struct pages *wanted, size_t count, const char *what);

/* All that the track has is collected into nowhere. Bytes. */
uint64_t collect_all(struct uffdwp_track *track);

void expect_text_says(const char *part);

/* Cells of a field: the memories and the methods to track them, [0, CELLS). */
#define CELLS ((int)FIELD_MEMORIES * FIELD_METHODS)

/* Finds out which cells are available, and prints why others are not; call in main(), before Check forks anything. */
void cells_print(void);

/* Opens a cell, writes to all its pages, adds all of it and collects once, so that nothing is written. 0: it is not
 * available. */
int cell_open(struct field *field, int cell);
const char *cell_name(int cell);

/* One word of a page. */
void cell_write(struct field *field, size_t page);

/* The field's pages as its track says them. */
void cell_collect(struct field *field, struct pages *pages, uint32_t flags);

/* The same set, or for transparent huge pages: nothing of it is missing. */
void cell_expect(const struct field *field, const struct pages *pages, const struct pages *wanted, const char *what);

#endif
