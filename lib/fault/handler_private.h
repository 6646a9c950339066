/* SPDX-License-Identifier: MIT */
/*
 * What the files of a handler share: handler.c, its thread; handler_call.c, its callers; succession.c, another thread
 * that takes its place.
 *
 * A shift is the time of one thread in a handler: its thread, and the loop in which that thread waits. The handler, its
 * eventfd and its regions outlive it. A thread is away while it waits in its loop, and while it runs a function of the
 * caller's; else it is at work. Only of a thread that is away another one takes the place: it has nothing in its hands
 * then, every message that it has read was acted on, and it finds its shift over when it comes back. So at any time one
 * thread at most serves the uffds of a handler, and no message is acted on late.
 */
#ifndef UFFDWP_FAULT_HANDLER_PRIVATE_H
#define UFFDWP_FAULT_HANDLER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "fault/follow.h"
#include "fault/handler.h"
#include "fault/measure.h"
#include "io/loop.h"

#define HANDLER_KICK 0  /* token of the eventfd; all others are regions, or mappers */
#define HANDLER_PIDFD 1 /* a mapper's tokens: of its uffd its own address, of its pidfd the next */
#define HANDLER_DESCRIPTORS (4 * HANDLER_REGIONS_MAX + 1) /* an adopted region has two for each mapper */

enum command_kind { COMMAND_ADD, COMMAND_JOIN, COMMAND_PART, COMMAND_REMOVE, COMMAND_SYNC, COMMAND_STOP };

struct command {
	enum command_kind kind;
	struct uffdwp_region *region;
	struct mapper *mapper; /* JOIN, PART */
	int result;
	int done;
	struct command *next;
};

#define SHIFT_OVER (1ull << 63)

struct shift {
	struct handler *handler;
	struct loop *loop;
	pthread_t thread;
	_Atomic int id; /* of the thread, by gettid(2); 0: it has not begun */
	/* Counts: even while the thread is away, odd while it is at work; SHIFT_OVER: another has taken its place.
	 * Partner: the exchange in succession.c. */
	_Atomic uint64_t turn;
	struct shift *former;
	_Atomic int ended; /* the thread has done its last, and can be joined */
};

struct handler {
	const struct kernel_ops *k;
	struct shift *shift; /* of now; moved under the lock */
	int kick;
	int tag;     /* of the kick, see kernel/own.h */
	int leaving; /* the thread was asked to end without the kick */
	int node;
	int has_cpus;
	cpu_set_t cpus; /* where its threads may run */
	void *stack;    /* of its first thread; NULL: the C library's */
	int stopping;   /* the loop ends */

	struct lock lock; /* commands, dead, and what follows */
	pthread_cond_t served;
	struct command *commands;
	_Atomic int dead;
	int stopped; /* it was asked to end */
	int guarded; /* a thread of guard.c takes its place when it ends */
	int ended;   /* it has ended, and its place was not taken yet */

	/* The thread's own, changed under the lock; `count` is read by others as a hint. */
	struct uffdwp_region *regions[HANDLER_REGIONS_MAX];
	_Atomic unsigned count;
	struct region_bell *bell; /* rung when it ends; set with `guarded` */

	/* The thread's own. */
	struct follow follow;
	struct measure measure;
	int starving; /* some region waits for pool memory: deadlines are to be watched */
	int news;     /* some region may have losses to report */

	_Atomic int provoked; /* enum handler_provocation: of the next thread that looks */
	_Atomic int captive;  /* until when that one stands still */
};

/* A shift with its loop, in which the handler's eventfd is not yet. 0 or -errno. */
int shift_new(const struct kernel_ops *k, struct shift **out);
void shift_free(const struct kernel_ops *k, struct shift *shift);

/* The thread of a shift, from its begin to its end. */
void handler_serve(struct shift *shift);

/* No thread serves it any more: its regions are dead, all writers go on. By the thread that ends, or in its place. */
void handler_end(struct handler *handler);

/* What reaches the thread and wakes it is still ours: 0, or -EBADF, -ESTALE. With the lock held. */
int handler_find_lost(const struct handler *handler);

/* Adds what the handler reads of a region to a loop. 0 or -errno. */
int handler_watch_region(struct loop *loop, struct uffdwp_region *region);

#endif
