/* SPDX-License-Identifier: MIT */
/* Trials on scratch memory: does an armed page stay armed through this? See trial.c. */
#ifndef UFFDWP_KERNEL_TRIAL_H
#define UFFDWP_KERNEL_TRIAL_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"
#include "uffdwp.h"

/* One userfaultfd for the trials of one type of memory. */
struct trial_bench {
	const struct kernel_ops *k;
	enum uffdwp_memory memory;
	uint64_t page_bytes;
	uint64_t features; /* granted */
	int uffd;
	int swap_on;
};

/* Opens the userfaultfd. 0 or -errno. */
int trial_open(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory, int swap_on,
               struct trial_bench *bench);
void trial_close(struct trial_bench *bench);

/* Is MODE_WP accepted for this memory? Needs no free huge page. 0 or -errno. */
int trial_register(const struct trial_bench *bench);

/* Does one trial on memory that the kernel lets register. Writes the reason where the answer needs one, else "". */
enum uffdwp_answer trial_run(struct trial_bench *bench, enum uffdwp_trial trial, char *reason, size_t size);

/* Does the kernel's pagemap show a mark that was just put on (anonymous memory)? 1, 0, or -errno. */
int trial_bit57(const struct trial_bench *bench);

/* Looks at a scratch page with PAGEMAP_SCAN. 0: it works, else -errno. */
int trial_scan(const struct kernel_ops *k);

#endif
