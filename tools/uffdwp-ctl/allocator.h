/* SPDX-License-Identifier: MIT */
/*
 * Which allocator a program has: linked as a library, or inside of the program itself.
 *
 * The libraries are listed by the dynamic linker, which is asked as ldd(1) asks it and runs nothing of the program.
 * What is inside shows in the symbols of the file, or where it has none in the texts that the allocator prints.
 */
#ifndef UFFDWP_CTL_ALLOCATOR_H
#define UFFDWP_CTL_ALLOCATOR_H

enum allocator_kind { ALLOCATOR_NONE, ALLOCATOR_JEMALLOC, ALLOCATOR_MIMALLOC, ALLOCATOR_TCMALLOC };

struct allocator {
	enum allocator_kind kind;
	int is_inside;     /* of the program's file */
	int gives_malloc;  /* malloc(3) is this allocator's, not the C library's */
	int is_sanitized;  /* a sanitizer has functions of its own in the place of ours */
	char library[256]; /* its name, where it is one */
};

const char *allocator_name(enum allocator_kind kind);

/* Looks at a program that can be loaded, with `preload` (or "") before its own libraries. 0 or -errno. */
int allocator_look(const char *program, const char *preload, struct allocator *found);

/* The first library of an allocator that the dynamic linker finds for the program, or NULL. */
const char *allocator_find_library(const char *program, enum allocator_kind kind);

#endif
