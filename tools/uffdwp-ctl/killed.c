/* SPDX-License-Identifier: MIT */
/*
 * The doctor's probe where seccomp filters kill (killing.h): a child makes it first. Where that is killed by SIGSYS,
 * each system call that matters is made by a child of its own, to name those that kill; the doctor itself makes none of
 * them then.
 */
#include <stdio.h>

#include "doctor.h"
#include "killing.h"

int killed_look(void (*probe)(void), struct facts *facts)
{
	facts->killed[0] = '\0';
	if (!killing_kills(probe))
		return 0;
	if (!killing_find(facts->killed, sizeof(facts->killed), 1))
		(void)snprintf(facts->killed, sizeof(facts->killed), "a system call of the probe");
	return 1;
}
