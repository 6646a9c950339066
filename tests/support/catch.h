/* SPDX-License-Identifier: MIT */
/*
 * A handler of SIGBUS or SIGSEGV that belongs to the test: it was there before the library was, and gets what is not
 * the library's. It leaves by a jump:
 *
 * 	catch_install(SIGBUS, 1);
 * 	if (!sigsetjmp(catch_jump, 1))
 * 		touch what raises it;
 */
#ifndef SUPPORT_CATCH_H
#define SUPPORT_CATCH_H

#include <setjmp.h>

extern sigjmp_buf catch_jump;
extern void *volatile catch_address; /* of the last one, with_info */
extern volatile int catch_count;

/* with_info: by SA_SIGINFO. */
void catch_install(int signal_number, int with_info);

#endif
