/* SPDX-License-Identifier: MIT */
/* See catch.h. */
#include "catch.h"

#include <signal.h>
#include <stddef.h>

#include "support.h"

sigjmp_buf catch_jump;
void *volatile catch_address;
volatile int catch_count;

static void take_with_info(int signal_number, siginfo_t *info, void *context)
{
	(void)signal_number;
	(void)context;
	catch_address = info->si_addr;
	catch_count = catch_count + 1;
	siglongjmp(catch_jump, 1);
}

static void take(int signal_number)
{
	(void)signal_number;
	catch_count = catch_count + 1;
	siglongjmp(catch_jump, 1);
}

void catch_install(int signal_number, int with_info)
{
	struct sigaction action = {.sa_flags = with_info ? SA_SIGINFO : 0};
	if (with_info) {
		action.sa_sigaction = take_with_info;
	} else {
		action.sa_handler = take;
	}
	sigemptyset(&action.sa_mask);
	must(sigaction(signal_number, &action, NULL) == 0);
}
