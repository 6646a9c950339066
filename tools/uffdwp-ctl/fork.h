/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl fork: runs a program with libuffdwp-fork.so before its C library. */
#ifndef UFFDWP_CTL_FORK_H
#define UFFDWP_CTL_FORK_H

/* Becomes the program; returns an exit code where that is not possible, or only looked. */
int run_fork(int argc, char **argv);

#endif
