/* SPDX-License-Identifier: MIT */
/*
 * What is mapped in a range of addresses.
 *
 * Idea: /proc/self/maps tells everything but the page size, cheaply. Only a mapping with a file can have another page
 * size than the system's (anonymous huge pages are files, too), and only then is it asked for: by PROCMAP_QUERY where
 * the kernel has it, else from smaps, which counts every page of every mapping and is slow in a large process.
 *
 * Threads: any. A mapping that changes meanwhile gives an answer of before, of after, or a range that is not covered.
 *
 * Never: guess. A page size that cannot be had is an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernel/maps.h"

/* include/uapi/linux/fs.h, 6.11 */
struct procmap_query {
	__u64 size;
	__u64 query_flags;
	__u64 query_addr;
	__u64 vma_start;
	__u64 vma_end;
	__u64 vma_flags;
	__u64 vma_page_size;
	__u64 vma_offset;
	__u64 inode;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 vma_name_size;
	__u32 build_id_size;
	__u64 vma_name_addr;
	__u64 build_id_addr;
};
#define PROCMAP_QUERY_NOW _IOWR('f', 17, struct procmap_query)

/* A header line of maps or smaps. */
struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	unsigned device_major;
	unsigned device_minor;
	char perms[4];
};

/* A number and the one character that must follow it; moves *text behind both. */
static int parse_number(const char **text, int base, char after, uint64_t *out)
{
	char *end;
	unsigned long long value = strtoull(*text, &end, base);

	if (end == *text || *end != after)
		return 0;
	*text = end + 1;
	*out = value;
	return 1;
}

/* "start-end perms offset major:minor inode ..." */
static int parse_mapping(const char *line, struct mapping *out)
{
	uint64_t major;
	uint64_t minor;

	if (!parse_number(&line, 16, '-', &out->start) || !parse_number(&line, 16, ' ', &out->end))
		return 0;
	if (strnlen(line, 5) < 5)
		return 0;
	memcpy(out->perms, line, sizeof out->perms);
	line += 5;
	if (!parse_number(&line, 16, ' ', &out->offset) || !parse_number(&line, 16, ':', &major) ||
	    !parse_number(&line, 16, ' ', &minor))
		return 0;
	out->inode = strtoull(line, NULL, 10);
	out->device_major = (unsigned)major;
	out->device_minor = (unsigned)minor;
	return 1;
}

static void take_first(struct maps_range *range, const struct mapping *m, uint64_t start)
{
	range->inode = m->inode;
	range->device_major = m->device_major;
	range->device_minor = m->device_minor;
	range->offset = m->inode ? m->offset + (start - m->start) : 0;
	range->readable = m->perms[0] == 'r';
	range->writable = m->perms[1] == 'w';
	range->executable = m->perms[2] == 'x';
	range->shared = m->perms[3] == 's';
	range->uniform = 1;
}

/* `at` bytes of the range lie before this mapping. */
static void take_next(struct maps_range *range, const struct mapping *m, uint64_t at)
{
	range->readable &= m->perms[0] == 'r';
	range->writable &= m->perms[1] == 'w';
	range->executable &= m->perms[2] == 'x';
	if (m->inode != range->inode || m->device_major != range->device_major ||
	    m->device_minor != range->device_minor || (m->perms[3] == 's') != range->shared ||
	    (m->inode && m->offset != range->offset + at))
		range->uniform = 0;
}

/* Calls back for each line of a file of /proc/self until it says 1. 0 or -errno; errno is left as it was. */
static int each_line(const char *path, int (*take)(void *user, const char *line), void *user)
{
	int saved_errno = errno;
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	int error = 0;

	if (!file) {
		error = -errno;
		errno = saved_errno;
		return error;
	}
	while (getline(&line, &size, file) >= 0)
		if (take(user, line))
			break;
	if (ferror(file))
		error = -EIO;
	free(line);
	(void)fclose(file);
	errno = saved_errno;
	return error;
}

struct look {
	uint64_t start;
	uint64_t end;
	uint64_t reached; /* [start, reached) is covered */
	struct maps_range range;
};

static int look_line(void *user, const char *line)
{
	struct look *look = user;
	struct mapping m;

	if (!parse_mapping(line, &m) || m.end <= look->reached)
		return 0;
	if (m.start > look->reached)
		return 1;
	if (look->reached == look->start)
		take_first(&look->range, &m, look->start);
	else
		take_next(&look->range, &m, m.start - look->start);
	look->reached = m.end;
	return m.end >= look->end;
}

/* Page sizes of the mappings of a range. */
struct sizes {
	uint64_t start;
	uint64_t end;
	int inside; /* the header line last seen is of a mapping of the range */
	uint64_t least;
	uint64_t most;
};

static void sizes_add(struct sizes *sizes, uint64_t page_bytes)
{
	if (!sizes->least || page_bytes < sizes->least)
		sizes->least = page_bytes;
	if (page_bytes > sizes->most)
		sizes->most = page_bytes;
}

static int sizes_line(void *user, const char *line)
{
	static const char key[] = "KernelPageSize:";
	struct sizes *sizes = user;
	struct mapping m;

	if (parse_mapping(line, &m)) {
		sizes->inside = m.end > sizes->start && m.start < sizes->end;
		return m.start >= sizes->end;
	}
	if (sizes->inside && strncmp(line, key, sizeof key - 1) == 0)
		sizes_add(sizes, strtoull(line + sizeof key - 1, NULL, 10) * 1024);
	return 0;
}

static int sizes_query(struct sizes *sizes)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t at = sizes->start; at < sizes->end && !error;) {
		struct procmap_query query = {.size = sizeof query, .query_addr = at};

		if (ioctl(fd, PROCMAP_QUERY_NOW, &query) != 0) {
			error = -errno;
			continue;
		}
		sizes_add(sizes, query.vma_page_size);
		at = query.vma_end;
	}
	(void)close(fd);
	return error;
}

static int look_page_size(const struct look *look, struct maps_range *range)
{
	struct sizes sizes = {.start = look->start, .end = look->reached};
	uint64_t system_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int error = 0;

	if (range->inode == 0 && range->uniform) {
		range->page_bytes = system_bytes;
		range->hugetlb = 0;
		return 0;
	}
	if (sizes_query(&sizes) != 0) {
		sizes.least = sizes.most = 0;
		error = each_line("/proc/self/smaps", sizes_line, &sizes);
	}
	if (error == 0 && !sizes.least)
		error = -ENODATA;
	if (error)
		return error;
	range->page_bytes = sizes.least;
	range->hugetlb = sizes.most > system_bytes;
	if (sizes.least != sizes.most)
		range->uniform = 0;
	return 0;
}

int maps_look(uint64_t start, uint64_t length, struct maps_range *out)
{
	struct look look = {.start = start, .end = start + length, .reached = start};
	int saved_errno = errno;
	int error = each_line("/proc/self/maps", look_line, &look);

	look.range.covered = look.reached >= look.end;
	if (look.reached > look.end)
		look.reached = look.end;
	if (error == 0 && look.reached > start)
		error = look_page_size(&look, &look.range);
	errno = saved_errno;
	if (error)
		return error;
	*out = look.range;
	return 0;
}

/* ---- aliases ---- */

struct alias_search {
	uint64_t start;
	uint64_t end;
	const struct maps_range *range;
	struct maps_aliases found;
};

static int is_alias(const struct alias_search *search, const struct mapping *m)
{
	const struct maps_range *range = search->range;
	uint64_t length = search->end - search->start;

	return m->inode == range->inode && m->device_major == range->device_major &&
	       m->device_minor == range->device_minor && m->perms[1] == 'w' && m->perms[3] == 's' &&
	       m->offset < range->offset + length && range->offset < m->offset + (m->end - m->start);
}

/* Of a mapping that is larger than the range only the range itself is none: the rest shows other parts of the file. */
static int alias_line(void *user, const char *line)
{
	struct alias_search *search = user;
	struct mapping m;

	if (!parse_mapping(line, &m) || !is_alias(search, &m))
		return 0;
	if (m.start < search->end && search->start < m.end)
		return 0;
	if (search->found.count++ == 0) {
		search->found.start = m.start;
		search->found.end = m.end;
	}
	return 0;
}

int maps_find_aliases(uint64_t start, uint64_t length, const struct maps_range *range, struct maps_aliases *out)
{
	struct alias_search search = {.start = start, .end = start + length, .range = range};
	int error = range->shared && range->inode ? each_line("/proc/self/maps", alias_line, &search) : 0;

	if (error)
		return error;
	*out = search.found;
	return 0;
}

/* ---- writable parts ---- */

struct writable_search {
	uint64_t start;
	uint64_t end;
	void (*each)(void *user, uint64_t from, uint64_t to);
	void *user;
};

static int writable_line(void *user, const char *line)
{
	struct writable_search *search = user;
	struct mapping m;

	if (!parse_mapping(line, &m) || m.end <= search->start)
		return 0;
	if (m.start >= search->end)
		return 1;
	if (m.perms[1] == 'w')
		search->each(search->user, m.start > search->start ? m.start : search->start,
		             m.end < search->end ? m.end : search->end);
	return 0;
}

int maps_each_writable(uint64_t start, uint64_t end, void (*each)(void *user, uint64_t from, uint64_t to), void *user)
{
	struct writable_search search = {.start = start, .end = end, .each = each, .user = user};

	return each_line("/proc/self/maps", writable_line, &search);
}

/* ---- counting ---- */

struct count_search {
	uint64_t start;
	uint64_t end;
	struct maps_count count;
};

static int count_line(void *user, const char *line)
{
	struct count_search *search = user;
	struct mapping m;

	search->count.all++;
	if (parse_mapping(line, &m) && m.start >= search->start && m.start < search->end)
		search->count.inside++;
	return 0;
}

int maps_count(uint64_t start, uint64_t end, struct maps_count *out)
{
	struct count_search search = {.start = start, .end = end};
	int error = each_line("/proc/self/maps", count_line, &search);

	if (error)
		return error;
	*out = search.count;
	return 0;
}
