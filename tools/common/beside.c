/* SPDX-License-Identifier: MIT */
/* See beside.h. */
#include "beside.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int beside_find(const char *name, char path[LOADABLE_PATH])
{
	static const char *const places[] = {"../lib/", UFFDWP_MODULEDIR_FROM_BIN "/"};
	char folder[LOADABLE_PATH - 64];
	ssize_t length = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
	char *slash;

	folder[length > 0 ? length : 0] = '\0';
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
