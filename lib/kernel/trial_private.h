/* SPDX-License-Identifier: MIT */
/*
 * What the files of the trials share: trial.c runs them, trial_method.c has what each mechanism does with the page
 * under trial, trial_scratch.c, below both, has that page and what can happen to it. trial_move.c moves more than a
 * page.
 */
#ifndef UFFDWP_KERNEL_TRIAL_PRIVATE_H
#define UFFDWP_KERNEL_TRIAL_PRIVATE_H

#include "kernel/trial.h"

/* The page under trial. */
struct trial_scratch {
	char *address;
	int fd; /* -1: anonymous */
};

/* extra: MAP_NORESERVE, or 0: then a huge page that is mapped is also available. 0 or -errno. */
int trial_scratch_map(const struct trial_bench *bench, int extra, struct trial_scratch *out);
void trial_scratch_free(const struct trial_bench *bench, const struct trial_scratch *scratch);

/* UFFDIO_WRITEPROTECT of the page. */
int trial_scratch_protect(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode);

/* Moves `length` bytes, a power of two, from the page on to a free place that is aligned to it, by mremap(2) with these
 * flags beside MREMAP_MAYMOVE and MREMAP_FIXED. 0: *target is that place; else -errno. */
int trial_scratch_move(struct trial_bench *bench, const struct trial_scratch *scratch, size_t length, int flags,
                       char **target);

/* UFFDIO_COPY of zeros into the page. */
int trial_scratch_copy(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode);

/* What happens to the page between being armed and being looked at. 0: done, 1: the kernel did not do it though it did
 * not refuse, or -errno. */
int trial_change_nothing(struct trial_bench *bench, struct trial_scratch *scratch);
int trial_change_untouched(struct trial_bench *bench, struct trial_scratch *scratch);
int trial_change_dontneed(struct trial_bench *bench, struct trial_scratch *scratch);
int trial_change_punch(struct trial_bench *bench, struct trial_scratch *scratch);
int trial_change_swap(struct trial_bench *bench, struct trial_scratch *scratch);
int trial_change_mremap(struct trial_bench *bench, struct trial_scratch *scratch);

/* How a mechanism is tried. */
struct trial_method {
	uint64_t modes[UFFDWP_MEMORY_COUNT]; /* UFFDIO_REGISTER_MODE_*; 0: without a userfaultfd */
	uint64_t features;                   /* UFFD_FEATURE_* that it works by */
	unsigned rounds;                     /* a trial that emptied the entry is done so often, on new memory */
	int (*arm)(struct trial_bench *bench, struct trial_scratch *scratch);
	/* Is the next write stopped, and can the page be disarmed? */
	enum uffdwp_answer (*look)(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round);
};

extern const struct trial_method trial_methods[UFFDWP_MECHANISM_COUNT];

/* The modes that the bench registers scratch memory in. */
uint64_t trial_modes(const struct trial_bench *bench);

/* Notes the reason of an answer; error: 0, or -errno, which is named. */
enum uffdwp_answer trial_say(struct trial_bench *bench, enum uffdwp_answer answer, const char *what, int error);

#endif
