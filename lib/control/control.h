/* SPDX-License-Identifier: MIT */
/*
 * Control of a live process: other processes of the same user ask what its regions do, and have things done, by the
 * socket and the lines of PROTOCOL.md.
 *
 *   control.c   the socket's life; what a runtime and a region pass through when they open and close
 *   sockfile.c  where the socket lies            serve.c    the thread, its clients
 *   ask.h       a request: ask_json.c, or none   say.c      an answer
 *   answer.c    which request is this, may it    look.c     list, stat
 *   acts.c      what is done                     tapped.c   trace
 *
 * Idea: one thread serves all clients, and waits for none of them. It finds runtimes, regions, snapshots and restores
 * on the roster (kernel/roster.h), takes one, and uses it without a lock; what closes it waits until it was given back.
 * Only what belongs to a runtime with control is on the roster. The fault path knows nothing of all this: it counts in
 * memory of the region's (region/meter.h), where the program has control.
 *
 * Threads: any through this header; uffdwp-control in serve.c and what it calls. That thread may meet a protected page
 * in the program's heap, and sleeps there as any writer does: it holds no lock then.
 *
 * Never: a client is trusted with more than its user may do, or makes another thread wait; a child of fork() answers
 * on, or removes, its parent's socket; a region goes while a request uses it.
 */
#ifndef UFFDWP_CONTROL_CONTROL_H
#define UFFDWP_CONTROL_CONTROL_H

#include "base/text.h"
#include "fault/runtime.h"
#include "uffdwp.h"

/* The calls of the interface that requests are made of: the library's own, through which the checks are the same. */
struct control_calls {
	int (*snapshot_begin)(struct uffdwp_region *, const struct uffdwp_snapshot_options *,
	                      struct uffdwp_snapshot **);
	int (*snapshot_poll)(struct uffdwp_snapshot *, struct uffdwp_snapshot_progress *);
	size_t (*snapshot_text)(struct uffdwp_snapshot *, char *, size_t);
	int (*snapshot_abort)(struct uffdwp_snapshot *);
	int (*snapshot_free)(struct uffdwp_snapshot *);
	int (*restore_poll)(struct uffdwp_restore *, struct uffdwp_restore_progress *);
	int (*region_stats)(const struct uffdwp_region *, struct uffdwp_region_stats *);
	int (*region_audit)(struct uffdwp_region *, struct uffdwp_audit *);
	int (*region_arm)(struct uffdwp_region *, uint64_t, uint64_t);
	int (*region_disarm)(struct uffdwp_region *, uint64_t, uint64_t);
	int (*region_armed)(const struct uffdwp_region *, uint64_t, uint64_t, uint64_t *);
	const char *(*version)(void);
};

/* A runtime, with control where its options or the environment ask for it. Options are checked. 0 or -errno, with text;
 * a socket that only the environment asks for and that cannot be made is no error. */
int control_open_runtime(const struct kernel_ops *k, const struct uffdwp_options *options,
                         const struct control_calls *calls, struct text *text, struct uffdwp **out);

/* -EBUSY, with text: regions or tracks are open. */
int control_close_runtime(struct uffdwp *runtime);

/* A region of a plan, and its end: -EBUSY, with text. */
int control_open_region(struct uffdwp *runtime, struct region_plan *plan, struct uffdwp_region **out);
int control_close_region(struct uffdwp_region *region);

#endif
