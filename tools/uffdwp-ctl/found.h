/* SPDX-License-Identifier: MIT */
/* All that the library's probe answers, asked for at once and kept in tables: the words that this program has names
 * for. */
#ifndef UFFDWP_CTL_FOUND_H
#define UFFDWP_CTL_FOUND_H

#include "uffdwp.h"

#define MEMORIES 3
#define MECHANISMS 7
#define TRIALS 6
#define ACCESSES 3
#define ARMINGS 3

struct found_memory {
	struct uffdwp_probe_memory all;
	struct uffdwp_probe_trial trials[TRIALS];    /* by enum uffdwp_trial */
	struct uffdwp_probe_rung rungs[MECHANISMS];  /* by enum uffdwp_mechanism; [AUTO] is empty */
	struct uffdwp_probe_arming armings[ARMINGS]; /* by enum uffdwp_arming; [AUTO] is empty */
};

struct found {
	struct uffdwp_probe_system system;
	int32_t access[ACCESSES]; /* by enum uffdwp_access: 0 works, else -errno */
	struct found_memory memory[MEMORIES];
	struct uffdwp_probe_arming child; /* whether there is uffdwp_fork() */
};

/* 0, or a negative errno: the probe could not run. */
int found_look(struct found *found);

#endif
