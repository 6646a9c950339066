/* SPDX-License-Identifier: MIT */
/*
 * /proc/self/maps and smaps say what the input says. Either any bytes, of which no answer may be impossible; or a table
 * as the kernel prints it, made from the input, of which each answer must be what the table itself says.
 *
 * open(2) of the two files is led here by the linker (--wrap).
 *
 * fuzz-options: -max_len=4096 -len_control=0
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/math.h"
#include "forge.h"
#include "kernel/maps.h"

#define PAGE 4096ull
#define LINES_MOST 12
#define TEXT_MOST 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);

static char maps_text[TEXT_MOST];
static char smaps_text[TEXT_MOST];
static size_t maps_size;
static size_t smaps_size;
static int is_played;

static int play(const char *text, size_t size)
{
	int fd = memfd_create("played", MFD_CLOEXEC);

	forge_must(fd >= 0 && write(fd, text, size) == (ssize_t)size && lseek(fd, 0, SEEK_SET) == 0, "a text to play");
	return fd;
}

/* They are no files of /proc: PROCMAP_QUERY is refused, and the text is asked. */
int __wrap_open(const char *path, int flags, ...)
{
	va_list arguments;

	if (is_played && strcmp(path, "/proc/self/maps") == 0)
		return play(maps_text, maps_size);
	if (is_played && strcmp(path, "/proc/self/smaps") == 0)
		return play(smaps_text, smaps_size);
	va_start(arguments, flags);
	int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;

	va_end(arguments);
	return __real_open(path, flags, mode);
}

/* ---- what must hold of any answer ---- */

struct parts {
	uint64_t start;
	uint64_t end;
	uint64_t bytes;
};

static void see_part(void *user, uint64_t from, uint64_t to)
{
	struct parts *parts = user;

	forge_must(from < to && from >= parts->start && to <= parts->end, "a part is not empty, and inside");
	parts->bytes += to - from;
}

static void check_range(const struct maps_range *range)
{
	forge_must(!range->covered || math_is_power_of_two(range->page_bytes), "a page size is a power of two");
	forge_must(!range->covered || range->page_bytes >= PAGE, "a page size is at least the system's");
}

static int look(uint64_t start, uint64_t length, struct maps_range *range, struct maps_aliases *aliases,
                uint64_t *writable)
{
	static const struct maps_range nothing;
	struct parts parts = {.start = start, .end = start + length};
	struct maps_count count;

	*range = nothing;
	range->inode = 77;
	int error = maps_look(start, length, range);

	if (error)
		forge_must(range->inode == 77, "an answer is written on success only");
	else
		check_range(range);
	forge_must(maps_count(start, start + length, &count) == 0 && count.inside <= count.all, "counts agree");
	forge_must(maps_each_writable(start, start + length, see_part, &parts) == 0, "parts can be seen");
	*writable = parts.bytes;
	if (!error) {
		memset(aliases, 0, sizeof(*aliases));
		forge_must(maps_find_aliases(start, length, range, aliases) == 0, "aliases can be looked for");
		forge_must(!aliases->count || aliases->start < aliases->end, "an alias is not empty");
		forge_must(!aliases->count || aliases->end <= start || aliases->start >= start + length,
		           "an alias lies elsewhere");
	}
	return error;
}

/* ---- a table as the kernel prints it ---- */

struct line {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	unsigned device;
	char access[5];
};

static struct line lines[LINES_MOST];
static unsigned line_count;

static void print_line(const struct line *line)
{
	maps_size += (size_t)snprintf(maps_text + maps_size, TEXT_MOST - maps_size,
	                              "%08" PRIx64 "-%08" PRIx64 " %s %08" PRIx64 " 00:%02x %" PRIu64 " %s\n",
	                              line->start, line->end, line->access, line->offset, line->device, line->inode,
	                              line->inode ? "                  /memfd:a-b c (deleted)" : "");
	smaps_size += (size_t)snprintf(smaps_text + smaps_size, TEXT_MOST - smaps_size,
	                               "%08" PRIx64 "-%08" PRIx64 " %s %08" PRIx64 " 00:%02x %" PRIu64
	                               " /a\nSize:  8 kB\nKernelPageSize:        4 kB\nVmFlags: rd wr\n",
	                               line->start, line->end, line->access, line->offset, line->device, line->inode);
}

static void make_table(struct forge_input *input)
{
	uint64_t at = 0x10000;

	maps_size = smaps_size = line_count = 0;
	for (unsigned count = forge_take8(input) % (LINES_MOST + 1); line_count < count; line_count++) {
		struct line *line = &lines[line_count];
		uint8_t kind = forge_take8(input);

		at += (kind & 1) * PAGE * (1 + forge_take8(input) % 3);
		line->start = at;
		at += PAGE * (1 + forge_take8(input) % 4);
		line->end = at;
		line->inode = kind & 2 ? 1 + (kind >> 2 & 1) : 0;
		line->device = line->inode ? 1 : 0;
		line->offset = line->inode ? forge_take8(input) % 8 * PAGE : 0;
		(void)snprintf(line->access, sizeof(line->access), "%c%c-%c", kind & 8 ? '-' : 'r',
		               kind & 16 ? '-' : 'w', kind & 32 ? 's' : 'p');
		print_line(line);
	}
}

static const struct line *line_of(uint64_t address)
{
	for (unsigned i = 0; i < line_count; i++) {
		if (address >= lines[i].start && address < lines[i].end)
			return &lines[i];
	}
	return NULL;
}

/* The table asked page by page. */
static void check_table(uint64_t start, uint64_t length, const struct maps_range *range,
                        const struct maps_aliases *aliases, uint64_t writable)
{
	const struct line *first = line_of(start);
	int covered = 1;
	int readable = 1;
	int may_write = 1;
	int uniform = 1;
	uint64_t writable_bytes = 0;

	for (uint64_t at = start; at < start + length; at += PAGE) {
		const struct line *line = line_of(at);

		covered &= line != NULL;
		writable_bytes += line && line->access[1] == 'w' ? PAGE : 0;
		if (!line || !covered)
			continue;
		readable &= line->access[0] == 'r';
		may_write &= line->access[1] == 'w';
		uniform &= line->inode == first->inode && line->access[3] == first->access[3] &&
		           (!line->inode ||
		            line->offset + (at - line->start) == first->offset + (start - first->start) + (at - start));
	}
	forge_must(writable == writable_bytes, "the writable parts are those of the table");
	forge_must(range->covered == covered, "covered is what the table says");
	if (!covered)
		return;
	forge_must(range->readable == readable && range->writable == may_write, "access is what the table says");
	forge_must(range->uniform == uniform, "uniform is what the table says");
	forge_must(range->page_bytes == PAGE && !range->hugetlb, "the page size is what the table says");
	uint32_t count = 0;

	for (unsigned i = 0; range->shared && range->has_file && i < line_count; i++)
		count += lines[i].inode == range->inode && lines[i].access[1] == 'w' && lines[i].access[3] == 's' &&
		         lines[i].offset < range->offset + length &&
		         range->offset < lines[i].offset + (lines[i].end - lines[i].start) &&
		         (lines[i].end <= start || lines[i].start >= start + length);
	forge_must(aliases->count == count, "the aliases are those of the table");
}

static void play_table(struct forge_input *input)
{
	struct maps_range range;
	struct maps_aliases aliases = {0};
	uint64_t writable;

	make_table(input);
	if (!maps_size)
		return;
	uint64_t start = 0x10000 + forge_take8(input) % 32 * PAGE;
	uint64_t length = (1 + forge_take8(input) % 16) * PAGE;

	is_played = 1;
	int error = look(start, length, &range, &aliases, &writable);

	is_played = 0;
	forge_must(error == 0, "a table of the kernel is understood");
	check_table(start, length, &range, &aliases, writable);
}

static void play_bytes(struct forge_input *input)
{
	struct maps_range range;
	struct maps_aliases aliases;
	uint64_t writable;
	uint64_t start = forge_take_number(input);
	uint64_t length = forge_take_number(input);

	if (start + length < start || !length || !input->left)
		return;
	maps_size = smaps_size = input->left < TEXT_MOST ? input->left : TEXT_MOST;
	memcpy(maps_text, input->at, maps_size);
	memcpy(smaps_text, input->at, smaps_size);
	is_played = 1;
	(void)look(start, length, &range, &aliases, &writable);
	is_played = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct forge_input input = {data, size};

	if (forge_take8(&input) & 1)
		play_table(&input);
	else
		play_bytes(&input);
	return 0;
}
