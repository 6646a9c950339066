/* SPDX-License-Identifier: MIT */
/*
 * A program that the benchmark starts, waits for, and whose standard output it reads. Standard error stays the
 * benchmark's, so that what goes wrong is seen. A program that takes too long is killed by its number.
 *
 * Threads: the main thread only.
 */
#ifndef UFFDWP_BENCH_CHILD_H
#define UFFDWP_BENCH_CHILD_H

#include <stddef.h>

/*
 * Runs argv[0] (a path) and keeps what it prints, terminated, at most size - 1 bytes; the rest is read and dropped. Its
 * exit status; 128 + n if signal n ended it; -ETIMEDOUT, or another negative errno if it could not be run.
 */
int child_run(char *const argv[], unsigned timeout_s, char *output, size_t size);

/* "folder/name" into path; the folder of this executable if `folder` is NULL. */
void child_beside(const char *folder, const char *name, char *path, size_t size);

#endif
