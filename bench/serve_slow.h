/* SPDX-License-Identifier: MIT */
/*
 * The part of the question `serve` about orders: how much of a guest's work is done in the first second after a lazy
 * restore from a slow disk, without and with the order of an earlier run.
 *
 * The slow disk is nbdkit's filter `delay` below nbdfuse: a file of FUSE each read of which takes some milliseconds, in
 * the kernel's own paths, by whatever call it is read. Where nbdkit, nbdfuse or FUSE are missing nothing is measured.
 */
#ifndef UFFDWP_BENCH_SERVE_SLOW_H
#define UFFDWP_BENCH_SERVE_SLOW_H

struct bench_settings;
struct report;

/* Before the benchmark has threads. folder: for what it makes, and removes. */
void serve_slow_measure(struct report *report, const struct bench_settings *settings, const char *folder);

#endif
