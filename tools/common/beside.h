/* SPDX-License-Identifier: MIT */
/* Shared objects of the project that are loaded into other programs: where they are. */
#ifndef UFFDWP_COMMON_BESIDE_H
#define UFFDWP_COMMON_BESIDE_H

#include "loadable.h"

/* Beside the program that runs, as it was built or installed, then where it was configured to be installed. 1: `path`
 * can be read; 0: it is the last place that was looked at. */
int beside_find(const char *name, char path[LOADABLE_PATH]);

#endif
