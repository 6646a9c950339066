/* SPDX-License-Identifier: MIT */
/*
 * A watchdog of programs in which calls are refused (refusing.h): a hang, or a fault that the library passed on
 * although it is its own, ends the process with a line that names the call. Arm it by alarm(2).
 */
#ifndef SUPPORT_WATCHDOG_H
#define SUPPORT_WATCHDOG_H

#include <stdint.h>

/* Which call is refused at the moment. */
extern uint64_t watchdog_nth;

void watchdog_install(void);

/* For a test that sets an alarm without: a thread that takes it when all others have it blocked, in a fault perhaps. */
void watchdog_listen(void);

/* Fails the test, with a line that names the call, if it does not hold. */
void watchdog_expect(int holds, const char *what);

#endif
