/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl dirty: a program of its own, uffdwp-dirty (../dirty), where all the work is done. */
#ifndef UFFDWP_CTL_DIRTY_H
#define UFFDWP_CTL_DIRTY_H

/* Becomes uffdwp-dirty with these arguments; returns an exit code where that is not available. */
int run_dirty(int argc, char **argv);

#endif
