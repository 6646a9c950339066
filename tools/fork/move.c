/* SPDX-License-Identifier: MIT */
/* See move.h. */
#include "move.h"

#include <string.h>

#include "heap.h"
#include "rights.h"

int move_content(uint64_t start, uint64_t end, char *place, uint64_t length)
{
	sigset_t before;
	int error;

	heap_lock(&before);
	error = rights_suspend(start, end);
	heap_unlock(&before);
	if (error)
		return error;
	memcpy(place, heap_at(start), end - start < length ? end - start : length);
	heap_lock(&before);
	error = rights_carry(start, end, place, length);
	if (error)
		(void)rights_apply(start, end);
	heap_unlock(&before);
	return error;
}
