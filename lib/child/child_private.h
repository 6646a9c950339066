/* SPDX-License-Identifier: MIT */
/* What the files of child/ share; see child.h. */
#ifndef UFFDWP_CHILD_CHILD_PRIVATE_H
#define UFFDWP_CHILD_CHILD_PRIVATE_H

#include "child/child.h"

/* prepare.c: all that takes time or memory, of a child of these regions, and a thread that begins with `watch`. NULL:
 * *error, with text, and nothing is left. */
struct uffdwp_child *child_new(const struct child_request *request, void *(*watch)(void *), struct text *text,
                               int *error);

/* prepare.c: unmaps from the parent what the child has inherited by now. */
void child_unmap_inherited(struct uffdwp_child *child);

/* prepare.c: gives the regions back to other cuts, once. */
void child_unreserve(struct uffdwp_child *child);

/* prepare.c: instead of a fork: all of it, before the regions may be closed. */
void child_take_back(struct uffdwp_child *child);

/* prepare.c: there is room for one of the descriptors of a child now. 0: no more is kept free. */
int child_free_descriptor(struct uffdwp_child *child);
void child_free_descriptors(struct uffdwp_child *child);

/* prepare.c: frees all but what the regions still use: child_watch() has ended for them, or was never begun. */
void child_delete(struct uffdwp_child *child);

/* By its thread, when the child is looked at no more; child_delete() does it, too. */
void child_close_descriptors(struct uffdwp_child *child);

/* watch.c: the child's thread. */
void *child_watch(void *argument);

/* rehearse.c: 0; or why a child could not have its pages broken off it, with text. */
int child_rehearse(struct uffdwp_child *child, struct text *text);

/* meet.c: a file of a process of /proc, with the child's tag. 0 or -errno. */
int child_open_proc(struct uffdwp_child *child, const char *process, const char *name, int flags, int *fd);

/* meet.c: opens what pages are broken off by; then writes are stalled no more, or the child is ended. Where the process
 * lacks descriptors or memory at the moment, and this is not the last try, the child stays unknown. */
void child_meet(struct uffdwp_child *child, int pid, int is_last);

/* meet.c: writes are stalled no more for the child's sake, and those that waited go on. */
void child_go_on(struct uffdwp_child *child);

/* pair.c: the same open file by a number that is not low: these are the program's. */
int child_lift(const struct uffdwp_child *child, int fd);

/* pair.c: for a fork(3), after which handlers of the program may write to the regions before it has returned: what
 * child_hear() listens to. 0, or a refusal with text. */
int child_pair_open(struct uffdwp_child *child, struct text *text);

/* pair.c: the parent's copy of the child's end: without it the end of the child is heard. */
void child_pair_leave(struct uffdwp_child *child);

/* pair.c: both ends. */
void child_pair_close(struct uffdwp_child *child);

/* pair.c: the child's process id, before fork(3) returns; 0: not known yet; -1: it has ended without a word. */
int child_hear(struct uffdwp_child *child);

/* pair.c: in the child: what child_hear() waits for. 0 or -errno: the parent takes it for ended. */
int child_report(struct uffdwp_child *child);

/* arrive.c: in the child, before all else. Without success the child ends. */
void child_arrive(struct uffdwp_child *child);

/* arrive.c: ends this process, which is a child: a wrong one is worse than none. */
void child_end_here(const struct kernel_ops *k);

/* arrive.c: in a child: takes a copy of all that it shares with its parent still. Nothing in other processes. 0;
 * -ENOMEM: not all could be taken: a process that is forked now must not go on. */
int child_take_all(void);

#endif
