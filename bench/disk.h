/* SPDX-License-Identifier: MIT */
/* What the parts of the question `disk` share. */
#ifndef UFFDWP_BENCH_DISK_H
#define UFFDWP_BENCH_DISK_H

#include <stddef.h>
#include <stdint.h>

#include "contender.h"
#include "report.h"

/* Asks the page cache to forget a file. */
void disk_forget_cache(const char *path);

/* A hash of memory, words in order. */
uint64_t disk_sum(const struct area *area);

/* Restores the image lazily, `repeat` times: when the first read is there, how long others take, when all is there. The
 * memory must have the sum in the end. */
void disk_measure_lazy(struct report *report, struct uffdwp *runtime, const char *path, size_t length_bytes,
                       uint64_t sum, unsigned repeat, int json);

#endif
