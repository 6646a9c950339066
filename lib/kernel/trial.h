/* SPDX-License-Identifier: MIT */
/* Trials on scratch memory: is a page that a mechanism protects still protected after this? See trial.c. */
#ifndef UFFDWP_KERNEL_TRIAL_H
#define UFFDWP_KERNEL_TRIAL_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"
#include "uffdwp.h"

/* What the trials of one mechanism on one type of memory share. */
struct trial_bench {
	const struct kernel_ops *k;
	enum uffdwp_memory memory;
	enum uffdwp_mechanism mechanism;
	uint64_t page_bytes;
	uint64_t features; /* granted */
	int uffd;          /* -1: the mechanism needs none */
	int swap_on;
	int emptied;     /* the last look met an empty entry */
	int passing;     /* -errno of the first trial that failed for want of something (kernel_is_passing()); else 0 */
	uint32_t fills;  /* UFFDWP_PROBE_FILL_* that were seen to work */
	char reason[96]; /* of the last trial, where its answer needs one; else empty */
};

/* Opens the userfaultfd, if the mechanism needs one. 0 or -errno. */
int trial_open(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
               enum uffdwp_mechanism mechanism, int swap_on, struct trial_bench *bench);
void trial_close(struct trial_bench *bench);

/* Does the kernel register this memory in the mechanism's modes? Needs no free huge page. 0 or -errno. */
int trial_register(const struct trial_bench *bench);

/* Does one trial on memory that the kernel lets register. */
enum uffdwp_answer trial_run(struct trial_bench *bench, enum uffdwp_trial trial);

/* Can page tables be moved away whole, so that all entries of shared memory are empty and every next access is stopped
 * (a bench of rearm)? KEPT: yes; LOST: accesses pass, or entries are moved one by one, see the reason; else as above.
 */
enum uffdwp_answer trial_move(struct trial_bench *bench);

/* Does the kernel's pagemap show a wp bit that was just set (a bench of markers)? 1, 0, or -errno. */
int trial_bit57(const struct trial_bench *bench);

/* Does PAGEMAP_SCAN report anonymous memory that has no page table (a bench of async)? 1, 0, or -errno. */
int trial_scan_holes(const struct trial_bench *bench);

/* Looks at a scratch page with PAGEMAP_SCAN. 0: it works, else -errno. */
int trial_scan(const struct kernel_ops *k);

#endif
