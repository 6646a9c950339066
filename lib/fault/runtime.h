/* SPDX-License-Identifier: MIT */
/*
 * A runtime: how this process comes to a userfaultfd, which mechanism works for which memory, and the handler threads.
 *
 * Threads: any. `lock` covers the cache of trials and the count of regions; it is never held while a region is called.
 */
#ifndef UFFDWP_FAULT_RUNTIME_H
#define UFFDWP_FAULT_RUNTIME_H

#include "base/text.h"
#include "fault/handler.h"
#include "kernel/kernel.h"
#include "region/region.h"
#include "uffdwp.h"

#define RUNTIME_HANDLERS_MAX 64

struct uffdwp {
	const struct kernel_ops *k;
	enum kernel_access access; /* KERNEL_ACCESS_COUNT: there is no userfaultfd, see access_text */
	char access_text[512];
	uint32_t flags; /* UFFDWP_OPEN_* */
	pid_t process;  /* that opened it: a child of fork() has none of its threads */
	struct text text;
	struct handler *handlers[RUNTIME_HANDLERS_MAX];
	unsigned handler_count;

	pthread_mutex_t lock;
	unsigned regions;
	unsigned tracks;
	int shows_marks; /* 1 and 0 as pagemap was seen, -1: not tried */
	int tried[UFFDWP_MEMORY_COUNT];
	struct uffdwp_probe_memory trials[UFFDWP_MEMORY_COUNT];
};

/* uffdwp_open() on any kernel table; options are valid in size. Texts go to `text`. */
int runtime_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct text *text,
                 struct uffdwp **out);

/* -EBUSY while there are regions. */
int runtime_close(struct uffdwp *runtime);

/* Decides plan->mechanism, its delivery and fills: what was asked for by name, or the best that a trial proved;
 * -EOPNOTSUPP with the reason. Threads: any. */
int runtime_choose(struct uffdwp *runtime, struct region_plan *plan);

/* What the trials on a type of memory showed: made once, while they had all that they needed. */
void runtime_try(struct uffdwp *runtime, uint32_t memory, struct uffdwp_probe_memory *trial);

/* A track came (1) or went (-1). */
void runtime_count_track(struct uffdwp *runtime, int by);

/* Does this kernel's pagemap show marks? 1, 0 or -errno. */
int runtime_shows_marks(struct uffdwp *runtime);

/* A region joins (registry, handler, signal) or leaves. */
int runtime_join(struct uffdwp *runtime, struct uffdwp_region *region);
void runtime_leave(struct uffdwp *runtime, struct uffdwp_region *region);

#endif
