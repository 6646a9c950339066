/* SPDX-License-Identifier: MIT */
/* How many words of each kind this version of the library knows: for tables of its own. Not part of the public headers,
 * whose enumerations grow, and whose structures must not change when they do. */
#ifndef UFFDWP_BASE_COUNTS_H
#define UFFDWP_BASE_COUNTS_H

#define UFFDWP_MEMORY_COUNT 3
#define UFFDWP_MECHANISM_COUNT 7
#define UFFDWP_MECHANISM_REGION_COUNT 5 /* those below may be a region's */
#define UFFDWP_LOSS_COUNT 5
#define UFFDWP_TRIAL_COUNT 6
#define UFFDWP_ACCESS_COUNT 3
#define UFFDWP_ARMING_COUNT 3

#endif
