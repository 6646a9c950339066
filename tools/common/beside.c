/* SPDX-License-Identifier: MIT */
/* See beside.h. */
#include "beside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* The path of this program, or nothing. Where /proc is missing: as it was executed. */
static void beside_know_self(char *path, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", path, size - 1);
	const char *executed = (const char *)getauxval(AT_EXECFN); /* NOLINT(performance-no-int-to-ptr) */
	char *real = length > 0 || !executed ? NULL : realpath(executed, NULL);

	path[length > 0 ? length : 0] = '\0';
	if (real && strlen(real) < size)
		memcpy(path, real, strlen(real) + 1);
	free(real);
}

int beside_find(const char *name, char path[LOADABLE_PATH])
{
	static const char *const places[] = {"../lib/", UFFDWP_MODULEDIR_FROM_BIN "/"};
	char folder[LOADABLE_PATH - 64];
	char *slash;

	beside_know_self(folder, sizeof(folder));
	slash = strrchr(folder, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		int fits = snprintf(path, LOADABLE_PATH, "%s%s%s", folder, places[i], name);

		if (fits < LOADABLE_PATH && access(path, R_OK) == 0)
			return 1;
	}
	(void)snprintf(path, LOADABLE_PATH, "%s/%s", UFFDWP_MODULEDIR, name);
	return access(path, R_OK) == 0;
}
