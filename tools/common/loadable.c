/* SPDX-License-Identifier: MIT */
/* See loadable.h. */
#include "loadable.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HEADER_BYTES 4096
#define INTERPRETERS 5 /* the kernel's own bound on scripts of scripts */

/* What this code itself was compiled for. */
#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#elif defined(__riscv)
#define OUR_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define OUR_MACHINE EM_PPC64
#elif defined(__s390x__)
#define OUR_MACHINE EM_S390
#else
#define OUR_MACHINE EM_NONE
#endif
#if __ELF_NATIVE_CLASS == 64
#define OUR_CLASS ELFCLASS64
#else
#define OUR_CLASS ELFCLASS32
#endif
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OUR_ORDER ELFDATA2LSB
#else
#define OUR_ORDER ELFDATA2MSB
#endif

/* A file's first bytes, zeros after them. */
struct header {
	_Alignas(8) char bytes[HEADER_BYTES];
};

static int loadable_read_header(const char *path, struct header *header)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	memset(header->bytes, 0, sizeof(header->bytes));
	got = pread(fd, header->bytes, sizeof(header->bytes) - 1, 0);
	close(fd);
	return got < 0 ? -errno : (int)got;
}

/* Where the name of the program's dynamic linker stands; NULL: it has none. Names and tables that lie beyond the first
 * page are read by their offset. */
static enum loadable loadable_find_linker(const char *path, const struct header *header, char name[256])
{
	ElfW(Ehdr) elf;
	ElfW(Phdr) segment;
	enum loadable result = LOADABLE_STATIC;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return LOADABLE_UNREADABLE;
	memcpy(&elf, header->bytes, sizeof(elf));
	for (unsigned i = 0; i < elf.e_phnum && result == LOADABLE_STATIC; i++) {
		off_t at = (off_t)(elf.e_phoff + (ElfW(Off))i * elf.e_phentsize);
		ssize_t length;

		if (pread(fd, &segment, sizeof(segment), at) != (ssize_t)sizeof(segment)) {
			result = LOADABLE_STRANGE;
		} else if (segment.p_type == PT_INTERP) {
			length = pread(fd, name, 255, (off_t)segment.p_offset);
			name[length > 0 ? length : 0] = '\0';
			result = length > 0 ? LOADABLE_YES : LOADABLE_STRANGE;
		}
	}
	close(fd);
	return result;
}

static enum loadable loadable_look_at_elf(const char *path, const struct header *header)
{
	ElfW(Ehdr) elf;
	struct header own;
	char linker[256];
	char own_linker[256];
	enum loadable result;

	memcpy(&elf, header->bytes, sizeof(elf));
	if (elf.e_ident[EI_CLASS] != OUR_CLASS || elf.e_ident[EI_DATA] != OUR_ORDER)
		return LOADABLE_MACHINE;
	if (OUR_MACHINE != EM_NONE && elf.e_machine != OUR_MACHINE)
		return LOADABLE_MACHINE;
	result = loadable_find_linker(path, header, linker);
	if (result != LOADABLE_YES)
		return result;
	/* The process that asks is dynamically linked itself. */
	if (loadable_read_header("/proc/self/exe", &own) <= 0 ||
	    loadable_find_linker("/proc/self/exe", &own, own_linker) != LOADABLE_YES)
		return LOADABLE_YES;
	return strcmp(linker, own_linker) == 0 ? LOADABLE_YES : LOADABLE_LIBC;
}

/* Does the kernel give it other rights than ours, so that the dynamic linker runs in secure mode? */
static int loadable_gives_rights(const char *path, const struct stat *st)
{
	if ((st->st_mode & S_ISUID) && st->st_uid != geteuid())
		return 1;
	if ((st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP) && st->st_gid != getegid())
		return 1;
	return geteuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* "#!  /usr/bin/env -S x": the interpreter's path. 0: there is none. */
static int loadable_find_interpreter(const struct header *header, char *path)
{
	const char *at = header->bytes + 2;
	size_t length;

	at += strspn(at, " \t");
	length = strcspn(at, " \t\n");
	if (!length || length >= LOADABLE_PATH)
		return 0;
	memcpy(path, at, length);
	path[length] = '\0';
	return 1;
}

static enum loadable loadable_look_at_file(char *path)
{
	static const char shell[] = "/bin/sh";
	struct header header;
	struct stat st;

	for (int depth = 0; depth < INTERPRETERS; depth++) {
		int got;

		if (stat(path, &st) != 0)
			return errno == ENOENT || errno == ENOTDIR ? LOADABLE_NOT_FOUND : LOADABLE_NOT_ALLOWED;
		if (!S_ISREG(st.st_mode) || access(path, X_OK) != 0)
			return LOADABLE_NOT_ALLOWED;
		got = loadable_read_header(path, &header);
		if (got < 0)
			return LOADABLE_UNREADABLE;
		if (memcmp(header.bytes, ELFMAG, SELFMAG) == 0) {
			if (got < (int)sizeof(ElfW(Ehdr)))
				return LOADABLE_STRANGE;
			return loadable_gives_rights(path, &st) ? LOADABLE_RIGHTS : loadable_look_at_elf(path, &header);
		}
		if (memcmp(header.bytes, "#!", 2) != 0)
			memcpy(path, shell, sizeof(shell)); /* what execvp(3) does with a text */
		else if (!loadable_find_interpreter(&header, path))
			return LOADABLE_STRANGE;
	}
	return LOADABLE_STRANGE;
}

/* folder/file, or file where the folder is empty: that means the current one. */
static int loadable_join(char *path, const char *folder, size_t folder_length, const char *file)
{
	size_t length = strlen(file);

	if (folder_length + 1 + length >= LOADABLE_PATH)
		return 0;
	memcpy(path, folder, folder_length);
	if (folder_length)
		path[folder_length++] = '/';
	memcpy(path + folder_length, file, length + 1);
	return 1;
}

static enum loadable loadable_search_path(const char *file, const char *search, char *path)
{
	enum loadable result = LOADABLE_NOT_FOUND;

	for (const char *at = search;; at++) {
		size_t length = strcspn(at, ":");
		struct stat st;

		if (loadable_join(path, at, length, file) && stat(path, &st) == 0) {
			if (S_ISREG(st.st_mode) && access(path, X_OK) == 0)
				return loadable_look_at_file(path);
			result = LOADABLE_NOT_ALLOWED;
		}
		at += length;
		if (!*at)
			return result;
	}
}

enum loadable loadable_look(const char *file, const char *search, char *path)
{
	if (!*file)
		return LOADABLE_NOT_FOUND;
	if (!strchr(file, '/'))
		return loadable_search_path(file, search ? search : "/bin:/usr/bin", path);
	if (!loadable_join(path, "", 0, file))
		return LOADABLE_NOT_FOUND;
	return loadable_look_at_file(path);
}

const char *loadable_reason(enum loadable why)
{
	static const char rights[] =
	        "gets other rights when it starts (set-user-ID, set-group-ID, capabilities): the dynamic linker loads "
	        "nothing into it then. Run uffdwp-ctl as that user, or a copy of the program without these rights";
	static const char *const reasons[] = {
	        "can be tracked",
	        "there is no such program",
	        "is not an executable file, or may not be executed by this user",
	        "may not be read by this user, so that it cannot be known whether it can be tracked",
	        "is linked statically: there is no dynamic linker that would load the shim",
	        "is made for another machine than uffdwp-ctl, which has no shim for it",
	        "uses another dynamic linker (C library) than uffdwp-ctl",
	        rights,
	        "has a header that makes no sense",
	};

	return (unsigned)why < sizeof(reasons) / sizeof(reasons[0]) ? reasons[why] : "cannot be tracked";
}
