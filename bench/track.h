/* SPDX-License-Identifier: MIT */
/*
 * The parts of the question `track`: each a file, each with its table and its figures.
 */
#ifndef UFFDWP_BENCH_TRACK_H
#define UFFDWP_BENCH_TRACK_H

#include "bench.h"
#include "collector.h"
#include "duel.h"

struct report;

enum track_part { TRACK_COLLECT, TRACK_PIECES, TRACK_WRITE, TRACK_CYCLE, TRACK_PARTS };

struct track_settings {
	struct bench_settings common;
	uint64_t size_bytes;    /* of each side's memory, collect and cycle */
	size_t vector;          /* ranges that one answer has room for */
	uint64_t budget_ns;     /* of one comparison */
	unsigned rounds_min;    /* of one comparison, also beyond the budget */
	size_t pieces;          /* ranges, part pieces */
	uint64_t written_bytes; /* of each side's memory, part write */
	unsigned write_rounds;
	unsigned time_limit_s;
	uint64_t retry_until_ns; /* on bench_now_ns(): later nothing is measured again for noise */
	unsigned parts;          /* bits of enum track_part */
	unsigned memories;       /* bits of enum uffdwp_memory */
};

/* How much is written, and where. */
struct track_density {
	const char *name; /* in figures */
	const char *text;
	unsigned permille;
	enum pages_spread spread;
};

void track_collect(struct report *report, const struct track_settings *settings);
void track_pieces(struct report *report, const struct track_settings *settings);
void track_write(struct report *report, const struct track_settings *settings);
void track_cycle(struct report *report, const struct track_settings *settings);

/* What the trials of a part write. */
struct track_bout {
	struct pages pages;
	const struct track_density *density;
};

/* A duel of this question, its sides to be filled in; each round chooses pages of `bout`. */
void track_duel(struct duel *duel, const struct track_settings *settings, struct track_bout *bout);

/* How the sides of some duels change places between turns. */
struct track_match {
	void (*open)(unsigned turn);
	void (*enter)(size_t duel); /* before a turn of one of them */
	void (*close)(void);
};

/* Fights all duels, those that noise spoilt again. */
void track_fight(const struct track_match *match, struct duel *duels, size_t count);

/* The place of one of three sides in a turn. */
static inline size_t track_place(size_t side, unsigned turn)
{
	return (side + turn) % DUEL_TURNS;
}

#endif
