/* SPDX-License-Identifier: MIT */
/*
 * What the doctor knows, between looking and reporting: the library's probe, facts of the system around it, and advice
 * that follows from both. It is filled once and then only read; text.c and json.c are two forms of the same report.
 */
#ifndef UFFDWP_CTL_DOCTOR_H
#define UFFDWP_CTL_DOCTOR_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/utsname.h>

#include "found.h"
#include "uffdwp.h"

/* How the program ends; documented in its help. */
enum exit_code {
	EXIT_ALL = 0,     /* every type of memory that is here can be armed, by marker or rearm */
	EXIT_NOTHING = 1, /* nothing can be armed */
	EXIT_USAGE = 2,   /* the command line was not understood */
	EXIT_LIMITS = 3,  /* it works with limits */
	EXIT_BROKEN = 4   /* the program could not do its work: no memory, output not writable */
};

/* Facts of the system that the probe does not report. Numbers are -errno where they cannot be read. */
struct facts {
	struct utsname kernel;
	uid_t uid;
	char user[64];
	int capabilities_known;
	uint64_t capabilities;    /* effective set, bit n: capability n */
	const char *container;    /* NULL: none seen */
	int64_t uring_disabled;   /* kernel.io_uring_disabled */
	int64_t uring_group;      /* kernel.io_uring_group */
	int device_error;         /* /dev/userfaultfd: 0 is there, else -errno */
	unsigned device_mode;     /* permission bits */
	unsigned device_owner;    /* user id */
	unsigned device_group_id; /* group id */
	int proc_error;           /* /proc/self/status: 0 can be read, else -errno: much is not known then */
	int user_namespace;       /* 1: inside one, 0: not, -1: not known */
	unsigned outer_uid;       /* inside one: what this user is outside */
	char killed[160];         /* names of system calls that a seccomp filter kills for; empty: none */
};

/* Makes the probe in a child, and finds out which calls kill, where that is killed. 1: it is, and facts->killed says by
 * what; the probe must not be made then. */
int killed_look(void (*probe)(void), struct facts *facts);

/* How much a piece of advice matters. */
enum advice_level { ADVICE_REQUIRED, ADVICE_LIMIT, ADVICE_OPTIONAL };

#define ADVICE_MAX 12
#define ADVICE_CHANGES 4

struct advice {
	const char *id; /* stable name */
	enum advice_level level;
	char what[400];
	unsigned changes; /* any one of them helps */
	char change[ADVICE_CHANGES][240];
};

struct doctor {
	struct found probe;
	struct facts facts;
	unsigned advice_count;
	struct advice advice[ADVICE_MAX];
	enum exit_code verdict;
};

/* What became of a type of memory. LIMITED: armed by minor or mprotect, which cost more than they should. */
enum memory_state { MEMORY_ARMED, MEMORY_LIMITED, MEMORY_UNTRIED, MEMORY_REFUSED };

enum memory_state memory_state(const struct found *probe, unsigned memory);

/* Rungs that only tracks take. */
int tracks_only(unsigned mechanism);

/* What a track of such memory would take: async where it works, else a region's mechanism. */
unsigned track_mechanism(const struct found_memory *memory);

void facts_look(struct facts *facts);
int facts_capable(const struct facts *facts, unsigned capability);

/* Fills verdict and advice from probe and facts. */
void advice_form(struct doctor *doctor);

/* Both answer 0, or -1 where the output could not be formed. */
int text_print(const struct doctor *doctor, FILE *out, int color);
int json_print(const struct doctor *doctor, FILE *out);

/* Words: stable names for machines (json) and names for people. Never NULL. */
const char *word_memory_id(unsigned memory);
const char *word_memory(unsigned memory);
const char *word_trial_id(unsigned trial);
const char *word_trial(unsigned trial);
const char *word_answer(unsigned answer);
const char *word_mechanism(unsigned mechanism);
const char *word_mechanism_id(unsigned mechanism);
const char *word_fill_id(unsigned bit); /* of UFFDWP_PROBE_FILL_* */
#define FILLS 2
const char *word_access_id(unsigned access);
const char *word_access(unsigned access);
const char *word_level(enum advice_level level);
const char *word_verdict(enum exit_code verdict);
const char *word_seccomp(int seccomp);
const char *word_errno(int error); /* "EPERM" for -EPERM */

struct feature {
	unsigned bit;
	const char *name;  /* after UFFD_FEATURE_ */
	const char *since; /* release of Linux */
};
extern const struct feature feature_table[];
extern const unsigned feature_count;

/* What the library may be built without. */
struct part {
	uint32_t bit; /* UFFDWP_BUILT_* */
	const char *name;
};
extern const struct part part_table[];
extern const unsigned part_count;

#endif
