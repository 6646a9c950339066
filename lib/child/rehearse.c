/* SPDX-License-Identifier: MIT */
/*
 * What the parent is going to do to its child is done to this process before there is a child (what the child does
 * first of all, mremap(2), is tried in prepare.c, for each region): a program that has shut itself into a sandbox
 * meanwhile (Landlock, seccomp, descriptors of a thread alone) gets an error, not a child that has to be killed at the
 * next write. See child.h.
 *
 * Threads: the caller of uffdwp_fork(). What a handler thread is allowed that was started before the sandbox does not
 * count: others break pages off, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "child/child_private.h"
#include "fault/handler.h"
#include "kernel/mapping.h"
#include "kernel/pagemap.h"

static int rehearse_refuse(struct text *text, const char *what, int error)
{
	return text_fail(text, error == -EMFILE || error == -ENFILE || error == -ENOMEM ? error : -EOPNOTSUPP,
	                 "pages cannot be broken off a child any more, because of a sandbox perhaps: %s: %s", what,
	                 errno_text(error));
}

/* What is done with each file, of a page of our own. */
static int rehearse_pagemap(struct uffdwp_child *child, int fd)
{
	uint64_t entry;

	return pagemap_read(child->k, fd, (uint64_t)(uintptr_t)child->in.meeting, 1, &entry);
}

static int rehearse_mem(struct uffdwp_child *child, int fd)
{
	return mapping_rewrite(child->k, fd, (uint64_t)(uintptr_t)child->in.meeting);
}

static int rehearse_maps(struct uffdwp_child *child, int fd)
{
	char byte;
	ssize_t got = child->k->pread(fd, &byte, 1, 0);

	return got < 0 ? (int)got : 0;
}

/* The files of the child, with which it is read and written. None stays open: the child must not have them. */
static const struct rehearse_file {
	const char *name;
	int flags;
	int (*use)(struct uffdwp_child *child, int fd);
} rehearse_table[] = {
        {"pagemap", O_RDONLY, rehearse_pagemap}, {"mem", O_RDWR, rehearse_mem}, {"maps", O_RDONLY, rehearse_maps}};

static int rehearse_file(struct uffdwp_child *child, const struct rehearse_file *file, struct text *text)
{
	char what[32];
	int fd;
	int error = child_open_proc(child, "self", file->name, file->flags, &fd);

	(void)snprintf(what, sizeof(what), "/proc/self/%s", file->name);
	if (!error) {
		error = file->use(child, fd);
		child->k->close(fd);
	}
	return error ? rehearse_refuse(text, what, error) : 0;
}

static int rehearse_files(struct uffdwp_child *child, struct text *text)
{
	int error = 0;

	for (unsigned i = 0; i < sizeof(rehearse_table) / sizeof(rehearse_table[0]) && !error; i++)
		error = rehearse_file(child, &rehearse_table[i], text);
	return error;
}

/* How a page is broken off, see region/view_child.c, of a page of our own. */
static int rehearse_break(struct uffdwp_child *child, struct text *text)
{
	uint64_t address = (uint64_t)(uintptr_t)child->in.meeting;
	ssize_t wrote = child->k->write_other((int)syscall(SYS_getpid), child->in.unreadable, address, 1);

	return wrote == -EFAULT ? 0 : rehearse_refuse(text, "process_vm_writev(2)", wrote < 0 ? (int)wrote : -EIO);
}

/* What a number in the table of descriptors of a thread means. */
static int rehearse_look(struct uffdwp_child *child, const char *thread, char *to, size_t size)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%s/fd/%d", thread, atomic_load(&child->kept_free[0]));
	memset(to, 0, size);
	return (int)child->k->readlinkat(AT_FDCWD, path, to, size - 1);
}

/* A descriptor that was opened just now is one of the handler's, too: not after unshare(2) with CLONE_FILES. */
static int rehearse_share(struct uffdwp_child *child, struct text *text)
{
	struct handler *handler = child->cuts[0].region->handler;
	char thread[32];
	char ours[64];
	char theirs[64];
	uint32_t id = handler ? handler_thread(handler) : 0;

	(void)snprintf(thread, sizeof(thread), "self/task/%u", id);
	if (!id || rehearse_look(child, "thread-self", ours, sizeof(ours)) <= 0)
		return 0;
	int got = rehearse_look(child, thread, theirs, sizeof(theirs));

	if (got == -ENOENT || (got > 0 && strcmp(ours, theirs) != 0))
		return text_fail(text, -EOPNOTSUPP,
		                 "this thread has descriptors of its own (CLONE_FILES), which the library's lack");
	return 0;
}

int child_rehearse(struct uffdwp_child *child, struct text *text)
{
	int error = rehearse_files(child, text);

	if (!error)
		error = rehearse_break(child, text);
	return error ? error : rehearse_share(child, text);
}
