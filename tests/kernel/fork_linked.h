/* SPDX-License-Identifier: MIT */
/*
 * A library that a test program is linked to. Its constructor, which runs before that of what is preloaded, adds
 * handlers of pthread_atfork(3), and these use memory that the program has mapped meanwhile.
 */
#ifndef TEST_FORK_LINKED_H
#define TEST_FORK_LINKED_H

#include <stddef.h>

/* Memory of two pages or more; NULL: handlers do nothing. The first byte counts forks, the second the parent's handler,
 * the third the child's; the second page reads as zeros in the child. */
extern unsigned char *volatile fork_linked_block;

#endif
