/* SPDX-License-Identifier: MIT */
/* See prepare.c. */
#ifndef UFFDWP_BENCH_PREPARE_H
#define UFFDWP_BENCH_PREPARE_H

#include <uffdwp.h>

#include "report.h"

/* Adds faults.prepare.never_armed and .disarmed; the caller is pinned. Prints a line, too, where asked. */
void prepare_measure(struct report *report, enum uffdwp_memory memory, uint64_t size_bytes, int print);

#endif
