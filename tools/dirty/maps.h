/* SPDX-License-Identifier: MIT */
/*
 * The mappings of a process that hold what a snapshot of it would hold: private anonymous memory, shared memory,
 * written parts of private file mappings, the stack. Parsed from the text of /proc/PID/maps.
 */
#ifndef UFFDWP_DIRTY_MAPS_H
#define UFFDWP_DIRTY_MAPS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum area_kind { AREA_HEAP, AREA_STACK, AREA_ANON, AREA_SHARED, AREA_DATA, AREA_KINDS };

const char *area_kind_name(enum area_kind kind);

/* One line of maps that is tracked. */
struct mapping {
	uint64_t start;
	uint64_t end;
	enum area_kind kind;
	const char *name; /* in the text; "anon" for memory without a name */
};

struct maps {
	char *text;
	size_t text_size;
	struct mapping *list; /* by address */
	size_t count;
	size_t capacity;
	const char *const *excluded; /* patterns of names, NULL at the end; may be NULL */
	uint64_t memory_devices[64]; /* st_dev of tmpfs and hugetlbfs, as they were met */
	uint64_t other_devices[64];
	unsigned memory_device_count;
	unsigned other_device_count;
};

/* Reads all of an open maps file. 0; -ESRCH where the memory is gone; -EBADMSG where a line is not understood, since a
 * list without it would miss writes; -errno. */
int maps_read(struct maps *maps, int fd, pid_t pid);

void maps_fini(struct maps *maps);

#endif
