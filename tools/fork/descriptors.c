/* SPDX-License-Identifier: MIT */
/* See descriptors.h. */
#include "descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define DESCRIPTORS_LOW 200
#define DESCRIPTORS_LIMIT 64

static unsigned char descriptors_taken[DESCRIPTORS_LOW];

void descriptors_fill(void)
{
	struct rlimit limit;
	int low = DESCRIPTORS_LOW;
	int fd;
	int first;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < DESCRIPTORS_LIMIT)
		return;
	if (limit.rlim_cur / 2 < DESCRIPTORS_LOW)
		low = (int)(limit.rlim_cur / 2);
	first = open("/dev/null", O_RDONLY | O_CLOEXEC);
	for (fd = first; fd >= 0 && fd < low; fd = fcntl(first, F_DUPFD_CLOEXEC, 0))
		descriptors_taken[fd] = 1;
	if (fd >= 0)
		(void)close(fd);
}

void descriptors_empty(void)
{
	for (int fd = 0; fd < DESCRIPTORS_LOW; fd++) {
		if (descriptors_taken[fd])
			(void)close(fd);
		descriptors_taken[fd] = 0;
	}
}
