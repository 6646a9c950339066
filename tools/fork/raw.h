/* SPDX-License-Identifier: MIT */
/*
 * The kernel's and the C library's own functions, of which preload.c exports other ones under the same names.
 *
 * Idea: whatever is inside of libuffdwp-fork.so calls these. So does the static library in it: CMakeLists.txt renames
 * its references (mmap to raw_mmap, and so on, see raw.syms), so that its own tables can never come to lie in the
 * region that it watches, and its fork is the C library's, or that of whole.h.
 *
 * Threads: any. raw_find() first, once; the functions that are system calls work before that.
 */
#ifndef UFFDWP_FORK_RAW_H
#define UFFDWP_FORK_RAW_H

#include <stddef.h>
#include <sys/types.h>

typedef void raw_handler(void);

void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int raw_munmap(void *address, size_t length);
void *raw_mremap(void *old, size_t old_length, size_t length, int flags, ...);
int raw_madvise(void *address, size_t length, int advice);
int raw_mprotect(void *address, size_t length, int protection);
pid_t raw_setsid(void);

/* fork(3) and _Fork(3) of the C library. */
pid_t raw_fork(void);
pid_t raw_bare_fork(void);

/* Finds both, so that a call later does not look for them. */
void raw_find_fork(void);

/* What pthread_atfork(3) calls, and what dlclose(3) and exit(3) call for each object. */
int raw_register_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child, void *object);
void raw_finalize(void *object);

#endif
