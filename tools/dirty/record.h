/* SPDX-License-Identifier: MIT */
/*
 * All that a run left to report: fed by collects, read by the reports and the live view. Memory is bounded but for what
 * grows with the pages written (pages.h).
 *
 * Words. A collect is one look at the whole program; its bytes are pages that were written since the last, each counted
 * once. The start is what the first collect of a program found: everything that loading it wrote, which no increment
 * contains. An area is a mapping over time: it keeps its number while it grows, shrinks and is split.
 */
#ifndef UFFDWP_DIRTY_RECORD_H
#define UFFDWP_DIRTY_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "heat.h"
#include "maps.h"
#include "pages.h"

#define MOMENTS 4096    /* points of the time line; joined in pairs when they are used up */
#define AREAS_MAX 32768 /* further ones are counted into the last */
#define AREA_NAME 96

struct area {
	char name[AREA_NAME];
	enum area_kind kind;
	uint64_t start; /* the lowest and the highest that it ever had */
	uint64_t end;
	uint64_t written_bytes; /* without the start */
	uint64_t unique_bytes;
	uint64_t populated_bytes; /* when it was last measured */
	uint64_t peak_bytes;      /* when most of all areas together was populated */
	double first_s;
	double last_s; /* when it was last seen */
};

/* A stretch of time. */
struct moment {
	double at_s; /* its end */
	double length_s;
	uint64_t written_bytes;
	uint64_t populated_bytes; /* as last measured */
};

/* If one saved an increment every `seconds`: the union of pages written in each such stretch. */
struct window {
	double seconds;
	double opened_s;
	uint64_t count; /* that are complete */
	uint64_t sum_bytes;
	uint64_t max_bytes;
	double sum_s;
	uint64_t open_bytes; /* of the one that the end cut off */
	double open_s;
};

/* Where a mapping of now belongs. */
struct live_area {
	uint64_t start;
	uint64_t end;
	uint32_t area;
};

struct record {
	uint64_t page_bytes;
	double interval_s;
	struct pages pages;
	struct heat heat;

	struct area *areas;
	size_t area_count;
	size_t area_capacity;
	struct live_area *live; /* by address */
	size_t live_count;
	size_t live_capacity;
	uint32_t current; /* area of the mapping that is collected */

	struct moment *moments;
	size_t moment_count;
	unsigned moment_joins; /* collects in a moment: 1 << this */
	unsigned moment_open;  /* collects that the last one has already */

	struct window windows[PAGES_WINDOWS];

	int starting; /* the first collect of a program: all is its start */
	double now_s;
	double first_s; /* when the last program's first collect was made */
	uint64_t collects;
	uint64_t programs; /* 1, and one for each exec that was followed */
	uint64_t start_bytes;
	uint64_t tick_bytes; /* of the collect that is being made, then of the last */
	uint64_t written_bytes;
	uint64_t huge_bytes; /* of these: by whole transparent huge pages */
	double peak_rate;    /* bytes a second, of one collect */
	double peak_s;
	uint64_t populated_bytes;
	uint64_t populated_max_bytes;
	uint64_t refused_bytes; /* most that could not be watched at a time */
	int refused_error;
	uint64_t collect_ns; /* spent in collects: by us, not by the program */
	uint64_t collect_max_ns;
	double last_tick_s; /* length of the last collect's stretch */
};

int record_init(struct record *record, uint64_t page_bytes, double interval_s);
void record_fini(struct record *record);

/* Another program starts: its first collect is a start. */
void record_program(struct record *record);

/* A collect at `now_s` begins, with these mappings. -ENOMEM. */
int record_begin(struct record *record, const struct maps *maps, double now_s);
void record_mapping(struct record *record, const struct mapping *mapping);
void record_written(void *record, uint64_t start, uint64_t end, int huge);
void record_end(struct record *record, uint64_t spent_ns);

/* A measure of what is populated, at the same mappings. */
void record_measure(struct record *record);
void record_populated(void *record, uint64_t start, uint64_t end, int huge);
void record_measured(struct record *record);

/* The run is over: cut windows are noted. */
void record_close(struct record *record);

/* The area of an address that is live, or the last one that covered it; NULL: none. */
const struct area *record_area_of(const struct record *record, uint64_t address);

double record_seconds(const struct record *record);

#endif
