/* SPDX-License-Identifier: MIT */
/*
 * What is mapped in a range of addresses.
 *
 * Idea: /proc/self/maps has everything but the page size, cheaply. Only a mapping with a file can have another page
 * size than the system's (anonymous huge pages are files, too), and only then is it asked for: by PROCMAP_QUERY where
 * the kernel has it, else from smaps, which counts every page of every mapping and is slow in a large process.
 *
 * Threads: any. A mapping that changes meanwhile gives an answer of before, of after, or a range that is not covered.
 *
 * Never: guess. A page size that cannot be found is an error. Nor the caller's heap, by malloc(3) or stdio: it may be
 * armed while the signals are blocked by which its writes are resolved, or tracked while the lock is held that the
 * event of a munmap(2) waits for.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/math.h"
#include "kernel/maps.h"

/* include/uapi/linux/fs.h, 6.11 */
struct procmap_query_now {
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
#define PROCMAP_QUERY_NOW _IOWR('f', 17, struct procmap_query_now)

/* A header line of maps or smaps. */
struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	unsigned device_major;
	unsigned device_minor;
	char perms[4];
	int has_file;
	int sysv;
};

/* A number as the kernel prints it, which has no sign, and the one character that must follow it; moves *text after
 * both. */
static int maps_parse_number(const char **text, int base, char after, uint64_t *out)
{
	char *end;

	if (!isxdigit((unsigned char)**text))
		return 0;
	unsigned long long value = strtoull(*text, &end, base);

	if (*end != after)
		return 0;
	*text = end + 1;
	*out = value;
	return 1;
}

/* "start-end perms offset major:minor inode ..." */
static int maps_parse_mapping(const char *line, struct mapping *out)
{
	uint64_t major;
	uint64_t minor;

	if (!maps_parse_number(&line, 16, '-', &out->start) || !maps_parse_number(&line, 16, ' ', &out->end) ||
	    out->start >= out->end)
		return 0;
	if (strnlen(line, 5) < 5)
		return 0;
	memcpy(out->perms, line, sizeof out->perms);
	line += 5;
	if (!maps_parse_number(&line, 16, ' ', &out->offset) || !maps_parse_number(&line, 16, ':', &major) ||
	    !maps_parse_number(&line, 16, ' ', &minor))
		return 0;
	out->inode = strtoull(line, NULL, 10);
	out->device_major = (unsigned)major;
	out->device_minor = (unsigned)minor;
	/* A System V segment has its id as its inode, which may be 0, or that of another file of the device. */
	out->sysv = strstr(line, " /SYSV") != NULL;
	out->has_file = out->inode || major || minor;
	return 1;
}

static void maps_take_first(struct maps_range *range, const struct mapping *m, uint64_t start)
{
	range->inode = m->inode;
	range->device_major = m->device_major;
	range->device_minor = m->device_minor;
	range->has_file = m->has_file;
	range->sysv = m->sysv;
	range->offset = m->has_file ? m->offset + (start - m->start) : 0;
	range->readable = m->perms[0] == 'r';
	range->writable = m->perms[1] == 'w';
	range->executable = m->perms[2] == 'x';
	range->shared = m->perms[3] == 's';
	range->uniform = 1;
}

/* `at` bytes of the range lie before this mapping. */
static void maps_take_next(struct maps_range *range, const struct mapping *m, uint64_t at)
{
	range->readable &= m->perms[0] == 'r';
	range->writable &= m->perms[1] == 'w';
	range->executable &= m->perms[2] == 'x';
	if (m->inode != range->inode || m->has_file != range->has_file || m->sysv != range->sysv ||
	    m->device_major != range->device_major || m->device_minor != range->device_minor ||
	    (m->perms[3] == 's') != range->shared || (m->has_file && m->offset != range->offset + at))
		range->uniform = 0;
}

/* What is read of a file at a time. A line that is longer is cut: what it ends with is the name of a file. */
#define TEXT_BYTES 4096

/* The part of a file that was read, and whether it begins within a line that was passed on already. */
struct text_part {
	char bytes[TEXT_BYTES + 1];
	size_t length;
	int is_rest;
};

static void maps_drop_front(struct text_part *part, size_t length)
{
	part->length -= length;
	memmove(part->bytes, part->bytes + length, part->length);
}

/* Calls back for each whole line that is there, or for what fits of one. 1: the callback has had enough. */
static int maps_take_lines(struct text_part *part, int (*take)(void *user, const char *line), void *user)
{
	char *end;
	size_t at = 0;
	int enough = 0;

	while (!enough && (end = memchr(part->bytes + at, '\n', part->length - at))) {
		*end = '\0';
		enough = !part->is_rest && take(user, part->bytes + at);
		part->is_rest = 0;
		at = (size_t)(end - part->bytes) + 1;
	}
	maps_drop_front(part, at);
	if (enough || part->length < TEXT_BYTES)
		return enough;
	part->bytes[TEXT_BYTES] = '\0';
	enough = !part->is_rest && take(user, part->bytes);
	part->is_rest = 1;
	part->length = 0;
	return enough;
}

/* Calls back for each line of a file of /proc/self until it says 1. 0 or -errno; errno is left as it was. */
static int maps_each_line(const char *path, int (*take)(void *user, const char *line), void *user)
{
	struct text_part part = {.length = 0};
	int saved_errno = errno;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : 1;
	int error = 0;

	while (got > 0) {
		got = read(fd, part.bytes + part.length, TEXT_BYTES - part.length);
		if (got < 0 && errno == EINTR)
			got = 1;
		else if (got > 0 && (part.length += (size_t)got, maps_take_lines(&part, take, user)))
			break;
	}
	if (got < 0)
		error = -errno;
	if (fd >= 0)
		(void)close(fd);
	errno = saved_errno;
	return error;
}

struct look {
	uint64_t start;
	uint64_t end;
	uint64_t reached; /* [start, reached) is covered */
	struct maps_range range;
};

static int maps_look_line(void *user, const char *line)
{
	struct look *look = user;
	struct mapping m;

	if (!maps_parse_mapping(line, &m) || m.end <= look->reached)
		return 0;
	if (m.start > look->reached)
		return 1;
	if (look->reached == look->start)
		maps_take_first(&look->range, &m, look->start);
	else
		maps_take_next(&look->range, &m, m.start - look->start);
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

static void maps_sizes_add(struct sizes *sizes, uint64_t page_bytes)
{
	if (!sizes->least || page_bytes < sizes->least)
		sizes->least = page_bytes;
	if (page_bytes > sizes->most)
		sizes->most = page_bytes;
}

static int maps_sizes_line(void *user, const char *line)
{
	static const char key[] = "KernelPageSize:";
	struct sizes *sizes = user;
	struct mapping m;

	if (maps_parse_mapping(line, &m)) {
		sizes->inside = m.end > sizes->start && m.start < sizes->end;
		return m.start >= sizes->end;
	}
	if (sizes->inside && strncmp(line, key, sizeof key - 1) == 0)
		maps_sizes_add(sizes, strtoull(line + sizeof key - 1, NULL, 10) * 1024);
	return 0;
}

static int maps_sizes_query(struct sizes *sizes)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t at = sizes->start; at < sizes->end && !error;) {
		struct procmap_query_now query = {.size = sizeof query, .query_addr = at};

		if (syscall(SYS_ioctl, fd, PROCMAP_QUERY_NOW, &query) != 0) {
			error = -errno;
			continue;
		}
		maps_sizes_add(sizes, query.vma_page_size);
		at = query.vma_end;
	}
	(void)close(fd);
	return error;
}

/* What is misunderstood must not become a size: pages are counted by shifts. */
static int maps_is_page_size(uint64_t bytes)
{
	return bytes >= (uint64_t)sysconf(_SC_PAGESIZE) && math_is_power_of_two(bytes);
}

static int maps_look_page_size(const struct look *look, struct maps_range *range)
{
	struct sizes sizes = {.start = look->start, .end = look->reached};
	uint64_t system_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int error = 0;

	if (!range->has_file && range->uniform) {
		range->page_bytes = system_bytes;
		range->hugetlb = 0;
		return 0;
	}
	if (maps_sizes_query(&sizes) != 0) {
		sizes.least = sizes.most = 0;
		error = maps_each_line("/proc/self/smaps", maps_sizes_line, &sizes);
	}
	if (error == 0 && (!maps_is_page_size(sizes.least) || !maps_is_page_size(sizes.most)))
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
	int error = maps_each_line("/proc/self/maps", maps_look_line, &look);

	look.range.covered = look.reached >= look.end;
	if (look.reached > look.end)
		look.reached = look.end;
	if (error == 0 && look.reached > start)
		error = maps_look_page_size(&look, &look.range);
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

static int maps_is_alias(const struct alias_search *search, const struct mapping *m)
{
	const struct maps_range *range = search->range;
	uint64_t length = search->end - search->start;

	return m->inode == range->inode && m->sysv == range->sysv && m->device_major == range->device_major &&
	       m->device_minor == range->device_minor && m->perms[1] == 'w' && m->perms[3] == 's' &&
	       m->offset < range->offset + length && range->offset < m->offset + (m->end - m->start);
}

/* In a mapping that is larger than the range only the range itself is no alias: the rest shows other parts of the
 * file. */
static int maps_alias_line(void *user, const char *line)
{
	struct alias_search *search = user;
	struct mapping m;

	if (!maps_parse_mapping(line, &m) || !maps_is_alias(search, &m))
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
	int error = range->shared && range->has_file ? maps_each_line("/proc/self/maps", maps_alias_line, &search) : 0;

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

static int maps_writable_line(void *user, const char *line)
{
	struct writable_search *search = user;
	struct mapping m;

	if (!maps_parse_mapping(line, &m) || m.end <= search->start)
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

	return maps_each_line("/proc/self/maps", maps_writable_line, &search);
}

/* ---- counting ---- */

struct count_search {
	uint64_t start;
	uint64_t end;
	struct maps_count count;
};

static int maps_count_line(void *user, const char *line)
{
	struct count_search *search = user;
	struct mapping m;

	search->count.all++;
	if (maps_parse_mapping(line, &m) && m.start >= search->start && m.start < search->end)
		search->count.inside++;
	return 0;
}

int maps_count(uint64_t start, uint64_t end, struct maps_count *out)
{
	struct count_search search = {.start = start, .end = end};
	int error = maps_each_line("/proc/self/maps", maps_count_line, &search);

	if (error)
		return error;
	*out = search.count;
	return 0;
}
