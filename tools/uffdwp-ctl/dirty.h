/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl dirty: the command line of ../dirty, where all the work is done. */
#ifndef UFFDWP_CTL_DIRTY_H
#define UFFDWP_CTL_DIRTY_H

/* Ends as the program that it runs; returns an exit code where that never ran. */
int run_dirty(int argc, char **argv);

#endif
