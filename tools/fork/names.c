/* SPDX-License-Identifier: MIT */
/* See names.h. */
#include "names.h"

#include <stddef.h>
#include <string.h>

static int names_have(const char *const *names, const char *name)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names != NULL;
}

int names_is_shell(const char *name)
{
	static const char *const shells[] = {"sh", "ash", "bash", "busybox", "dash", "ksh", "mksh", "zsh", NULL};

	return names_have(shells, name);
}

int names_is_launcher(const char *name)
{
	static const char *const launchers[] = {"catatonit", "chrt",   "dumb-init", "env",     "gosu",    "ionice",
	                                        "nice",      "nohup",  "numactl",   "prlimit", "runuser", "setarch",
	                                        "setpriv",   "setsid", "stdbuf",    "su-exec", "taskset", "time",
	                                        "timeout",   "tini",   NULL};

	return names_have(launchers, name);
}
