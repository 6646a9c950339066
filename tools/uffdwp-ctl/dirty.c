/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl dirty: this process becomes uffdwp-dirty, which is beside uffdwp-ctl where both were built or installed,
 * or in PATH. argv[0] says by which name it was called: its messages and its help have that name.
 */
#include "dirty.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launch_codes.h"
#include "loadable.h"

#define DIRTY "uffdwp-dirty"

/* The file beside this program. 0: its name does not fit. */
static int dirty_beside(char path[LOADABLE_PATH])
{
	ssize_t length = readlink("/proc/self/exe", path, LOADABLE_PATH - 1);
	char *slash;

	path[length > 0 ? length : 0] = '\0';
	slash = strrchr(path, '/');
	if (!slash || (size_t)(slash + 1 - path) + sizeof(DIRTY) > LOADABLE_PATH)
		return 0;
	memcpy(slash + 1, DIRTY, sizeof(DIRTY));
	return 1;
}

int run_dirty(int argc, char **argv)
{
	char path[LOADABLE_PATH];
	int error = ENOENT;

	(void)argc;
	if (dirty_beside(path)) {
		(void)execv(path, argv);
		error = errno;
	}
	if (error == ENOENT) {
		(void)execvp(DIRTY, argv);
		error = errno;
	}
	if (error == ENOENT)
		(void)fprintf(stderr, "uffdwp-ctl dirty: the program " DIRTY
		                      " is neither beside uffdwp-ctl nor in PATH: install it (Debian: uffdwp-tools)\n");
	else
		(void)fprintf(stderr, "uffdwp-ctl dirty: " DIRTY " cannot be run: %s\n", strerror(error));
	return LAUNCH_BROKEN;
}
