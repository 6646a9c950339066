/* SPDX-License-Identifier: MIT */
/* What the two halves of the shim share: what it learned at the start, for the day when the program calls exec. */
#ifndef UFFDWP_DIRTY_SHIM_H
#define UFFDWP_DIRTY_SHIM_H

#include <sys/types.h>

#include "hello.h"
#include "loadable.h"

struct shim {
	pid_t target;                     /* the process that is tracked; 0: none, all calls pass through */
	char path[LOADABLE_PATH];         /* of the shim itself, as it stood in LD_PRELOAD */
	char word[HELLO_NAME_BYTES + 16]; /* value of HELLO_VARIABLE */
};

extern struct shim shim;

/* Finds the functions that follow.c stands in front of. */
void follow_start(void);

#endif
