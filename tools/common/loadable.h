/* SPDX-License-Identifier: MIT */
/*
 * Can a shared object be preloaded into this program? Read from its first bytes, as the kernel and the dynamic linker
 * do. Used by uffdwp-ctl fork and uffdwp-dirty before the start, and by the latter's shim before an exec: nothing is
 * allocated, nothing is kept.
 */
#ifndef UFFDWP_COMMON_LOADABLE_H
#define UFFDWP_COMMON_LOADABLE_H

#include <stddef.h>

enum loadable {
	LOADABLE_YES = 0,
	LOADABLE_NOT_FOUND,
	LOADABLE_NOT_ALLOWED, /* not executable, or a folder */
	LOADABLE_UNREADABLE,  /* may be executed but not read: it cannot be known */
	LOADABLE_STATIC,      /* no dynamic linker: nothing is preloaded */
	LOADABLE_MACHINE,     /* another class, byte order or machine */
	LOADABLE_LIBC,        /* another dynamic linker, of another C library */
	LOADABLE_RIGHTS,      /* set-user-ID, set-group-ID or capabilities: the dynamic linker ignores LD_PRELOAD */
	LOADABLE_STRANGE      /* a damaged header, or interpreters without end */
};

#define LOADABLE_PATH 4096

/* Finds a program as execvp(3) does (`search`: the value of PATH or NULL) and looks at it, or at the interpreter of a
 * script. path: room for LOADABLE_PATH; the file that was judged. */
enum loadable loadable_look(const char *file, const char *search, char *path);

/* For people: "is linked statically: ...". */
const char *loadable_reason(enum loadable why);

#endif
