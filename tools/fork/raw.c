/* SPDX-License-Identifier: MIT */
/* See raw.h. */
#include "raw.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

int raw_munmap(void *address, size_t length)
{
	return (int)syscall(SYS_munmap, address, length);
}

void *raw_mremap(void *old, size_t old_length, size_t length, int flags, ...)
{
	void *to = NULL;
	va_list more;

	va_start(more, flags);
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		to = va_arg(more, void *);
	va_end(more);
	return (void *)syscall(SYS_mremap, old, old_length, length, flags, to);
}

int raw_madvise(void *address, size_t length, int advice)
{
	return (int)syscall(SYS_madvise, address, length, advice);
}

int raw_mprotect(void *address, size_t length, int protection)
{
	return (int)syscall(SYS_mprotect, address, length, protection);
}

pid_t raw_setsid(void)
{
	return (pid_t)syscall(SYS_setsid);
}

/* The next function of that name after ours. Threads that find it at the same time find the same. */
static void *raw_next(_Atomic(void *) *known, const char *name)
{
	if (!*known)
		*known = dlsym(RTLD_NEXT, name);
	return *known;
}

static _Atomic(void *) raw_known_fork;
static _Atomic(void *) raw_known_bare_fork;

pid_t raw_fork(void)
{
	pid_t (*next)(void);

	*(void **)&next = raw_next(&raw_known_fork, "fork");
	return next();
}

/* glibc has it since 2.34; before, only the one that runs handlers. */
pid_t raw_bare_fork(void)
{
	pid_t (*next)(void);

	*(void **)&next = raw_next(&raw_known_bare_fork, "_Fork");
	return next ? next() : raw_fork();
}

void raw_find_fork(void)
{
	(void)raw_next(&raw_known_fork, "fork");
	(void)raw_next(&raw_known_bare_fork, "_Fork");
}

int raw_register_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child, void *object)
{
	static _Atomic(void *) known;
	int (*next)(raw_handler *, raw_handler *, raw_handler *, void *);

	*(void **)&next = raw_next(&known, "__register_atfork");
	return next ? next(prepare, parent, child, object) : ENOMEM;
}

void raw_finalize(void *object)
{
	static _Atomic(void *) known;
	void (*next)(void *);

	*(void **)&next = raw_next(&known, "__cxa_finalize");
	if (next)
		next(object);
}
