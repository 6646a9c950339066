/* SPDX-License-Identifier: MIT */
/* Exit codes of programs that run another one and end as it ends, where it did not run: as those of env(1) and
 * timeout(1).
 */
#ifndef UFFDWP_COMMON_LAUNCH_CODES_H
#define UFFDWP_COMMON_LAUNCH_CODES_H

enum { LAUNCH_BROKEN = 125, LAUNCH_NOT_RUN = 126, LAUNCH_NOT_FOUND = 127 };

#endif
