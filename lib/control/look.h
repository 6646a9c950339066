/* SPDX-License-Identifier: MIT */
/*
 * What can be seen: `list` and `stat` of the protocol. Counters are read as they are; nothing waits, and no lock is
 * held while an answer is put together.
 *
 * Threads: uffdwp-control.
 */
#ifndef UFFDWP_CONTROL_LOOK_H
#define UFFDWP_CONTROL_LOOK_H

#include "control/control.h"
#include "control/say.h"

/* Before the first request. */
void look_begin(const struct control_calls *calls);

/* Members of the object that is open in `say`. `region` NULL: all of them. */
void look_list(const struct kernel_ops *k, struct say *say);
void look_stat(const struct kernel_ops *k, struct uffdwp_region *region, struct say *say);

/* pid, program, version. */
void look_say_process(struct say *say);

#endif
