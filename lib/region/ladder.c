/* SPDX-License-Identifier: MIT */
/* The mechanisms by their numbers: the only file that knows them all. See mechanism.h. Threads: any. */
#include <stddef.h>

#include "region/mechanism.h"

const struct mechanism *mechanism_by_id(uint32_t id)
{
	static const struct mechanism *const all[] = {&mechanism_marker, &mechanism_rearm, &mechanism_minor,
	                                              &mechanism_mprotect};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (all[i]->id == id)
			return all[i];
	}
	return NULL;
}
