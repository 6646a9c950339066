/* SPDX-License-Identifier: MIT */
/* The side `bare` of the question `fork`: see fork_bare.c. */
#ifndef UFFDWP_BENCH_FORK_BARE_H
#define UFFDWP_BENCH_FORK_BARE_H

#include "fork.h"

void fork_bare_open(const struct fork_side *side, size_t size_bytes, struct area *area);
pid_t fork_bare_fork(void);
void fork_bare_ready(pid_t child);
void fork_bare_ended(void);
void fork_bare_close(void);

#endif
