/* SPDX-License-Identifier: MIT */
/* What this kernel can do for this process, by trial; and which mechanism follows from it. See probe.c. */
#ifndef UFFDWP_KERNEL_PROBE_H
#define UFFDWP_KERNEL_PROBE_H

#include "kernel/kernel.h"
#include "uffdwp.h"

/* Everything, for people. 0, also where nothing works; report->sz is the caller's and stays. */
int probe_run(const struct kernel_ops *k, struct uffdwp_probe_report *report);

/* One type of memory, through one way to a userfaultfd (KERNEL_ACCESS_COUNT: there is none, only what needs none is
 * tried): all rungs of the ladder, a millisecond or less, huge pages and swapping some more. 0: *out says what was
 * found, also where nothing works (mechanism is UFFDWP_MECHANISM_AUTO then, and reason says why). -EINVAL: no such
 * memory. */
int probe_memory(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
                 struct uffdwp_probe_memory *out);

/* Does pagemap show a mark that was just put on? 1, 0, or -errno. */
int probe_bit57(const struct kernel_ops *k, enum kernel_access access);

/* Does PAGEMAP_SCAN report memory that has no page table, as what was discarded in whole huge pages? 1, 0, or -errno.
 */
int probe_scan_holes(const struct kernel_ops *k, enum kernel_access access);

#endif
