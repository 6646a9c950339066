/* SPDX-License-Identifier: MIT */
/*
 * A runtime: how this process comes to a userfaultfd, which mechanism works for which memory, and the handler threads.
 *
 * Threads: any. `lock` covers the cache of trials and the count of regions; it is never held while a region is called.
 */
#ifndef UFFDWP_FAULT_RUNTIME_H
#define UFFDWP_FAULT_RUNTIME_H

#include "base/lock.h"
#include "base/text.h"
#include "fault/guard.h"
#include "fault/handler.h"
#include "kernel/kernel.h"
#include "kernel/probe.h"
#include "kernel/roster.h"
#include "region/region.h"
#include "uffdwp.h"

#define RUNTIME_HANDLERS_MAX 64

struct mapper_plan;
struct uffdwp {
	const struct kernel_ops *k;
	enum kernel_access access; /* KERNEL_ACCESS_COUNT: there is no userfaultfd, see access_text */
	char access_text[512];
	uint32_t flags; /* UFFDWP_OPEN_* */
	pid_t process;  /* that opened it: a child of fork() has none of its threads */
	uint32_t process_number;
	uint32_t control;           /* UFFDWP_CONTROL_*; 0: none. Fixed before the first region */
	struct roster_entry roster; /* there, where it has control */
	uint64_t opened_ns;
	struct handler *handlers[RUNTIME_HANDLERS_MAX];
	unsigned handler_count;
	struct guard guard;

	struct lock lock;
	unsigned regions;
	unsigned tracks;
	int shows_wp_bits; /* 1 and 0 as pagemap was seen, -1: not tried */
	int tag;           /* of the pagemap, see kernel/own.h */
	int pagemap;       /* open since the start, for after the right to open it is gone; -1: none */
	int proc;          /* the same of the folder /proc */
	int tried[UFFDWP_MEMORY_COUNT];
	struct probe_memory trials[UFFDWP_MEMORY_COUNT];
	int tried_move; /* 1: `move` is an answer; only shared memory is asked about */
	struct probe_arming move;
	int tried_child; /* 1: `child` is an answer, while the process is as dumpable as it was: `dumpable` */
	int dumpable;
	struct probe_arming child;
};

/* uffdwp_open() on any kernel table; options are valid in size. Texts go to `text`. */
int runtime_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct text *text,
                 struct uffdwp **out);

/* -EBUSY while there are regions. */
int runtime_close(struct uffdwp *runtime);

/* Looks whether the access to a userfaultfd still works for this process, and for another where it does not: before a
 * region or a track opens one. 0, also where there is none any more, or an error of the moment. */
int runtime_check_access(struct uffdwp *runtime);

/* 0; -EBADF, -ESTALE: the program has closed descriptors of the library that the region (NULL: a new one) needs, and
 * opened others by their numbers. Threads: any. */
int runtime_check_own(struct uffdwp *runtime, const struct uffdwp_region *region);

/* The same of several regions of one runtime. */
int runtime_check_own_all(struct uffdwp *runtime, struct uffdwp_region *const *regions, size_t count);

/* Completes a checked plan: is a userfaultfd still available, and which mechanism and delivery serve the region (what
 * was asked for by name, or the best that a trial proved). 0; -EOPNOTSUPP, -EMEDIUMTYPE with the reason; -EDEADLK: the
 * calling thread lives on what is to be attached; -errno of the moment. Threads: any. */
int runtime_plan(struct uffdwp *runtime, struct region_plan *plan);

/* The same of a region that is adopted. */
int runtime_plan_adopted(struct uffdwp *runtime, struct region_plan *plan);

/* A mapper more of an adopted region. Takes the region's lock. -EBUSY: something of it is armed; -ESTALE; -errno, with
 * text. */
int runtime_join_mapper(struct uffdwp_region *region, const struct mapper_plan *plan);

/* Before each call that arms or stalls faults: 0, or -errno where the region's faults could not be resolved from here
 * on. -EDEADLK: the calling thread lives on memory of the region (kernel/caller.h), or runs on that of another;
 * -EMLINK: handlers of the program, see trap.h. Threads: any. */
int runtime_check_faults(struct uffdwp_region *region);

/* The same of several regions: the first error. */
int runtime_check_faults_all(struct uffdwp_region *const *regions, size_t count);

/* What the trials on a type of memory showed: made once, while they had all that they needed. */
void runtime_try(struct uffdwp *runtime, uint32_t memory, struct probe_memory *trial);

/* What the trial of a move of page tables showed: made when it is first asked for, and kept unless it could not be
 * made. Threads: any. */
void runtime_try_move(struct uffdwp *runtime, uint32_t memory, struct probe_arming *move);

/* The same of breaking pages off a child. */
void runtime_try_child(struct uffdwp *runtime, struct probe_arming *child);

/* A track came (1) or went (-1). */
void runtime_count_track(struct uffdwp *runtime, int by);

/* /proc/self/pagemap, to be closed by the caller; also after the process changed its user or its root folder, where it
 * cannot be opened any more. -errno. Threads: any. */
int runtime_pagemap(const struct uffdwp *runtime);

/* Does this kernel's pagemap show wp bits? 1, 0 or -errno. */
int runtime_shows_wp_bits(struct uffdwp *runtime);

/* Opens the region of a complete plan; from now on handler, registry and signal handler know it. 0 or -errno, with
 * text. */
int runtime_start(struct uffdwp *runtime, const struct region_plan *plan, struct uffdwp_region **out);

/* -EBUSY, with text: a restore, track or view of the region is open, or a cut is just being made. Threads: any. */
int runtime_check_users(struct uffdwp_region *region);

/* Closes and frees a region. -EBUSY, with text: a snapshot, restore, track or view of it is open. */
int runtime_end(struct uffdwp *runtime, struct uffdwp_region *region);

#endif
