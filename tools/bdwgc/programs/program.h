/* SPDX-License-Identifier: MIT */
/*
 * What the three programs share: options, the collector in the mode that was asked for, objects that know their
 * identity, and the report.
 *
 * Every object carries an identity that no other has, and a checksum of it. The collector clears what it frees, or
 * gives it to an object of another identity: a thread that follows a link knows from memory that the collector does not
 * see which identity must be there. Links are followed out of objects that were found to be right only, so that a
 * program that lost objects counts them and does not crash.
 */
#ifndef BDWGC_PROGRAM_H
#define BDWGC_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "object.h"

enum program_mode { MODE_NONE, MODE_MPROTECT, MODE_OWN, MODE_UFFDWP };

struct program {
	const char *name;
	const char *about;
	/* In: defaults. Out: what was asked for. */
	uint64_t size_bytes;
	uint64_t rounds;  /* 0: until the time is over */
	unsigned threads; /* 0: the program takes no such option */
	uint64_t writes;  /* into old objects, a round; 0: the program takes no such option */
	enum program_mode mode;
	uint64_t seconds; /* 0: until the rounds are over */
	uint64_t seed;
	uint64_t time_limit_ms; /* of a stop; 0: as the collector has it */
	bool json;
	bool stalls;
	bool blind;
	uint64_t began_ns;
	uint64_t build_ns;  /* until program_measure() */
	uint64_t checks_ns; /* spent in checks of everything, which do not count */
	int fault_counter;  /* of the kernel; -1: none */
};

/* Parses options, starts the collector. Ends the program where that cannot be. */
void program_begin(struct program *program, int argc, char **argv);

/* What lives long is made: collects once, all of it, and starts the clock and the list of stops. */
void program_measure(struct program *program);

/* Around a check of everything: its time is not the collector's. */
void program_pause_clock(struct program *program);
void program_resume_clock(struct program *program);

/* 1: another round. */
bool program_goes_on(const struct program *program, uint64_t rounds_done);

/* Prints, and gives the exit code of main(). */
int program_end(const struct program *program, uint64_t rounds_done, uint64_t checked, uint64_t lost);

#endif
