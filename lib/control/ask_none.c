/* SPDX-License-Identifier: MIT */
/* Built without json-c: no request can be taken, and no socket is made. See ask.h. */
#include <errno.h>
#include <string.h>

#include "control/ask.h"

int ask_built(void)
{
	return 0;
}

int ask_parse(const char *line, size_t length, struct ask *ask)
{
	(void)line;
	(void)length;
	memset(ask, 0, sizeof(*ask));
	return -EOPNOTSUPP;
}
