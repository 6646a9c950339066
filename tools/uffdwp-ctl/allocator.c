/* SPDX-License-Identifier: MIT */
/* See allocator.h. */
#include "allocator.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALLOCATOR_KINDS 4

struct allocator_signs {
	const char *name;
	const char *library;     /* how its libraries begin */
	const char *symbol;      /* that it defines, with or without a prefix before */
	const char *text;        /* that it prints */
	const char *found_by[4]; /* names of its library, the best first */
};

static const struct allocator_signs allocator_signs[ALLOCATOR_KINDS] = {
        {"none", NULL, NULL, NULL, {NULL}},
        {"jemalloc", "libjemalloc.so", "mallctl", "<jemalloc>: ", {"libjemalloc.so.2", "libjemalloc.so", NULL}},
        {"mimalloc",
         "libmimalloc",
         "mi_malloc",
         "mimalloc: error: ",
         {"libmimalloc.so.2", "libmimalloc.so.2.0", "libmimalloc.so", NULL}},
        {"tcmalloc",
         "libtcmalloc",
         "tc_malloc",
         "tcmalloc: large alloc ",
         {"libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so", NULL}},
};

const char *allocator_name(enum allocator_kind kind)
{
	return allocator_signs[kind].name;
}

/* --------------------------------------------------------------------------------------------------- libraries -- */

/* Our environment, in which the dynamic linker lists what it would load. */
static char **allocator_make_environment(const char *preload, char word[4096])
{
	static char trace[] = "LD_TRACE_LOADED_OBJECTS=1";
	size_t count = 0;
	size_t to = 0;
	char **list;

	while (environ[count])
		count++;
	list = calloc(count + 3, sizeof(*list));
	if (!list)
		return NULL;
	(void)snprintf(word, 4096, "LD_PRELOAD=%s", preload);
	for (size_t i = 0; i < count; i++) {
		if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
			list[to++] = environ[i];
	}
	list[to++] = trace;
	if (*preload)
		list[to] = word;
	return list;
}

/* Starts the dynamic linker; its output can be read from the stream that is returned, or NULL. */
static FILE *allocator_ask_linker(const char *program, const char *preload, pid_t *pid)
{
	char *argv[] = {(char *)(uintptr_t)program, NULL};
	posix_spawn_file_actions_t actions;
	char word[4096];
	char **list = allocator_make_environment(preload, word);
	int ends[2];
	int error;

	if (!list || pipe2(ends, O_CLOEXEC) != 0) {
		free(list);
		return NULL;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	error = posix_spawn(pid, program, &actions, NULL, argv, list);
	posix_spawn_file_actions_destroy(&actions);
	free(list);
	close(ends[1]);
	if (!error)
		return fdopen(ends[0], "r");
	close(ends[0]);
	return NULL;
}

/* "	libjemalloc.so.2 => /lib/... (0x...)": the last part of the first word. */
static const char *allocator_take_name(char *line)
{
	char *name = line + strspn(line, " \t");
	char *slash;

	name[strcspn(name, " \n")] = '\0';
	slash = strrchr(name, '/');
	return slash ? slash + 1 : name;
}

static int allocator_look_at_libraries(const char *program, const char *preload, struct allocator *found)
{
	char line[4096];
	pid_t pid = 0;
	FILE *lines = allocator_ask_linker(program, preload, &pid);

	if (!lines)
		return -EIO;
	while (fgets(line, sizeof(line), lines)) {
		const char *name = allocator_take_name(line);

		if (strncmp(name, "libasan.", 8) == 0 || strncmp(name, "libtsan.", 8) == 0)
			found->is_sanitized = 1;
		for (int kind = 1; kind < ALLOCATOR_KINDS; kind++) {
			const char *begin = allocator_signs[kind].library;

			if (found->kind == ALLOCATOR_NONE && strncmp(name, begin, strlen(begin)) == 0) {
				found->kind = (enum allocator_kind)kind;
				found->gives_malloc = 1;
				(void)snprintf(found->library, sizeof(found->library), "%.255s", name);
			}
		}
	}
	(void)fclose(lines);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	return 0;
}

const char *allocator_find_library(const char *program, enum allocator_kind kind)
{
	for (size_t i = 0; allocator_signs[kind].found_by[i]; i++) {
		struct allocator found = {.kind = ALLOCATOR_NONE};
		const char *name = allocator_signs[kind].found_by[i];

		if (allocator_look_at_libraries(program, name, &found) == 0 && found.kind == kind)
			return name;
	}
	return NULL;
}

/* ------------------------------------------------------------------------------------------------- the program -- */

struct allocator_file {
	const char *bytes;
	size_t length;
};

/* NULL where the file has not that much. */
static const void *allocator_at(const struct allocator_file *file, uint64_t offset, uint64_t length)
{
	return offset <= file->length && length <= file->length - offset ? file->bytes + offset : NULL;
}

static int allocator_ends_with(const char *name, const char *end)
{
	size_t length = strlen(name);
	size_t end_length = strlen(end);

	return length >= end_length && strcmp(name + length - end_length, end) == 0;
}

static void allocator_judge_symbol(const char *name, struct allocator *found)
{
	if (strcmp(name, "malloc") == 0)
		found->gives_malloc = 1;
	if (strcmp(name, "__asan_init") == 0 || strcmp(name, "__tsan_init") == 0 || strcmp(name, "__msan_init") == 0)
		found->is_sanitized = 1;
	for (int kind = 1; kind < ALLOCATOR_KINDS; kind++) {
		if (allocator_ends_with(name, allocator_signs[kind].symbol))
			found->kind = (enum allocator_kind)kind;
	}
}

/* What a table of symbols defines. */
static void allocator_look_at_table(const struct allocator_file *file, const ElfW(Shdr) * sections, unsigned count,
                                    const ElfW(Shdr) * table, struct allocator *found)
{
	const ElfW(Sym) *symbols = allocator_at(file, table->sh_offset, table->sh_size);
	const ElfW(Shdr) *names = table->sh_link < count ? &sections[table->sh_link] : NULL;
	const char *text = names ? allocator_at(file, names->sh_offset, names->sh_size) : NULL;

	if (!symbols || !text || !names->sh_size || text[names->sh_size - 1])
		return;
	for (size_t i = 0; i < table->sh_size / sizeof(*symbols); i++) {
		if (symbols[i].st_shndx != SHN_UNDEF && symbols[i].st_name < names->sh_size)
			allocator_judge_symbol(text + symbols[i].st_name, found);
	}
}

static void allocator_look_at_texts(const struct allocator_file *file, struct allocator *found)
{
	for (int kind = 1; kind < ALLOCATOR_KINDS && found->kind == ALLOCATOR_NONE; kind++) {
		const char *text = allocator_signs[kind].text;

		if (memmem(file->bytes, file->length, text, strlen(text)))
			found->kind = (enum allocator_kind)kind;
	}
}

static void allocator_look_at_symbols(const struct allocator_file *file, struct allocator *found)
{
	const ElfW(Ehdr) *elf = allocator_at(file, 0, sizeof(*elf));
	const ElfW(Shdr) *sections =
	        elf ? allocator_at(file, elf->e_shoff, (uint64_t)elf->e_shnum * sizeof(*sections)) : NULL;

	for (unsigned i = 0; sections && i < elf->e_shnum; i++) {
		if (sections[i].sh_type == SHT_SYMTAB || sections[i].sh_type == SHT_DYNSYM)
			allocator_look_at_table(file, sections, elf->e_shnum, &sections[i], found);
	}
}

static int allocator_look_inside(const char *program, struct allocator *found)
{
	int fd = open(program, O_RDONLY | O_CLOEXEC);
	struct allocator_file file = {NULL, 0};
	struct stat st;
	void *bytes;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && st.st_size > 0)
		file.length = (size_t)st.st_size;
	bytes = mmap(NULL, file.length, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (bytes == MAP_FAILED)
		return -errno;
	file.bytes = bytes;
	allocator_look_at_symbols(&file, found);
	if (found->kind == ALLOCATOR_NONE)
		allocator_look_at_texts(&file, found);
	found->is_inside = found->kind != ALLOCATOR_NONE;
	(void)munmap(bytes, file.length);
	return 0;
}

int allocator_look(const char *program, const char *preload, struct allocator *found)
{
	int error;

	*found = (struct allocator){.kind = ALLOCATOR_NONE};
	error = allocator_look_at_libraries(program, preload, found);
	if (error || found->kind != ALLOCATOR_NONE)
		return error;
	return allocator_look_inside(program, found);
}
