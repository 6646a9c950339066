/* SPDX-License-Identifier: MIT */
/* Programs that are known by their names; also used by uffdwp-ctl fork. */
#ifndef UFFDWP_FORK_NAMES_H
#define UFFDWP_FORK_NAMES_H

/* 1: a shell. It forks for all that it does and has no heap worth a region: it would only lose. */
int names_is_shell(const char *name);

/* 1: a program that becomes another one, or starts it and waits: env(1), nice(1), timeout(1). That one is meant. */
int names_is_launcher(const char *name);

#endif
