/* SPDX-License-Identifier: MIT */
/*
 * A program that replaces itself by exec stays tracked: these functions stand in front of those of the C library and
 * add the shim's two words to the environment, for the tracked process only and only where the new program can take
 * the shim. A child, also of vfork(), has another process id and passes through; so its environment is what the
 * program gave it.
 *
 * exec is async-signal-safe and may be called by any thread: nothing here allocates by malloc, takes a lock or keeps
 * state. The environment with the two words is mapped, and unmapped where exec fails; errno is that of exec.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

#define PRELOAD "LD_PRELOAD="

static int (*next_execvpe)(const char *file, char *const argv[], char *const envp[]);

void follow_start(void)
{
	void *found = dlsym(RTLD_NEXT, "execvpe");

	memcpy(&next_execvpe, &found, sizeof(found));
}

/* An environment for an exec. */
struct words {
	char *const *envp;
	void *memory; /* NULL: the caller's own environment, as it is */
	size_t bytes;
};

static size_t follow_count_strings(char *const *list)
{
	size_t count = 0;

	while (list && list[count])
		count++;
	return count;
}

static const char *follow_preload_of(char *const *envp)
{
	for (; envp && *envp; envp++) {
		if (strncmp(*envp, PRELOAD, strlen(PRELOAD)) == 0)
			return *envp + strlen(PRELOAD);
	}
	return "";
}

/* Copies the environment with LD_PRELOAD where it stood, or after all others. */
static void follow_fill(struct words *words, char *const *envp, char *preload, char *word)
{
	char **out = words->memory;
	int placed = 0;

	words->envp = out;
	for (; envp && *envp; envp++) {
		int is_preload = strncmp(*envp, PRELOAD, strlen(PRELOAD)) == 0;

		*out++ = is_preload ? preload : *envp;
		placed |= is_preload;
	}
	if (!placed)
		*out++ = preload;
	*out++ = word;
	*out = NULL;
}

static void follow_add_words(struct words *words, char *const *envp)
{
	const char *others = follow_preload_of(envp);
	size_t list_bytes = (follow_count_strings(envp) + 3) * sizeof(char *);
	size_t preload_bytes = sizeof(PRELOAD) + strlen(shim.path) + 1 + strlen(others);
	size_t word_bytes = sizeof(HELLO_VARIABLE) + 1 + strlen(shim.word);
	char *preload;

	words->bytes = list_bytes + preload_bytes + word_bytes;
	words->memory = mmap(NULL, words->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (words->memory == MAP_FAILED) {
		words->memory = NULL;
		return;
	}
	preload = (char *)words->memory + list_bytes;
	(void)snprintf(preload, preload_bytes, PRELOAD "%s%s%s", shim.path, *others ? ":" : "", others);
	(void)snprintf(preload + preload_bytes, word_bytes, HELLO_VARIABLE "=%s", shim.word);
	follow_fill(words, envp, preload, preload + preload_bytes);
}

/* Decides whether the new program is followed. search: PATH for a bare name, NULL: the name is a path. */
static struct words follow_words_for(const char *file, int bare, char *const *envp)
{
	struct words words = {envp, NULL, 0};
	char path[LOADABLE_PATH];
	int error = errno;

	if (shim.target && getpid() == shim.target && file) {
		const char *search = bare ? getenv("PATH") : "";

		if (loadable_look(file, search, path) == LOADABLE_YES)
			follow_add_words(&words, envp);
	}
	errno = error;
	return words;
}

static int follow_failed(const struct words *words, int result)
{
	int error = errno;

	if (words->memory)
		munmap(words->memory, words->bytes);
	errno = error;
	return result;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int execve(const char *path, char *const argv[], char *const envp[])
{
	struct words words = follow_words_for(path, 0, envp);

	return follow_failed(&words, (int)syscall(SYS_execve, path, argv, words.envp));
}

EXPORTED int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORTED int execvpe(const char *file, char *const argv[], char *const envp[])
{
	struct words words = follow_words_for(file, 1, envp);

	if (!next_execvpe) {
		errno = ENOSYS;
		return follow_failed(&words, -1);
	}
	return follow_failed(&words, next_execvpe(file, argv, words.envp));
}

EXPORTED int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

/* The same file under a name that can be looked at: relative to a descriptor means through /proc. */
static const char *follow_name_at(int folder, const char *path, char *name, size_t size)
{
	if (!path || path[0] == '/')
		return path;
	if (folder == AT_FDCWD)
		(void)snprintf(name, size, "./%s", path);
	else
		(void)snprintf(name, size, "/proc/self/fd/%d%s%s", folder, *path ? "/" : "", path);
	return name;
}

EXPORTED int execveat(int folder, const char *path, char *const argv[], char *const envp[], int flags)
{
	char name[64 + LOADABLE_PATH];
	struct words words = follow_words_for(follow_name_at(folder, path, name, sizeof(name)), 0, envp);

	return follow_failed(&words, (int)syscall(SYS_execveat, folder, path, argv, words.envp, flags));
}

EXPORTED int fexecve(int fd, char *const argv[], char *const envp[])
{
	return execveat(fd, "", argv, envp, AT_EMPTY_PATH);
}

/* The arguments of the list forms, gathered on pages of their own: there may be more than a stack holds. */
struct gathered {
	char **argv;
	size_t bytes;
	char *const *envp;
};

static size_t follow_count_arguments(va_list arguments)
{
	size_t count = 1;

	while (va_arg(arguments, char *))
		count++;
	return count;
}

static int follow_gather(struct gathered *gathered, size_t count, const char *first, va_list arguments)
{
	gathered->bytes = (count + 1) * sizeof(char *);
	gathered->argv = mmap(NULL, gathered->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (gathered->argv == MAP_FAILED)
		return 0;
	memcpy(&gathered->argv[0], &first, sizeof(first));
	for (size_t i = 1; i <= count; i++)
		gathered->argv[i] = va_arg(arguments, char *);
	return 1;
}

/* exec with a list: `named` of the three forms. 'p': searched in PATH; 'e': the environment stands after the list. */
static int follow_exec_list(int named, const char *file, const char *first, va_list counted, va_list arguments)
{
	struct gathered gathered;
	size_t count = first ? follow_count_arguments(counted) : 0;
	int error;

	if (!follow_gather(&gathered, count, first, arguments))
		return -1;
	gathered.envp = named == 'e' ? va_arg(arguments, char *const *) : environ;
	if (named == 'p')
		execvpe(file, gathered.argv, gathered.envp);
	else
		execve(file, gathered.argv, gathered.envp);
	error = errno;
	munmap(gathered.argv, gathered.bytes);
	errno = error;
	return -1;
}

#define EXEC_LIST(function, named)                                                                                     \
	EXPORTED int function(const char *file, const char *first, ...)                                                \
	{                                                                                                              \
		va_list counted;                                                                                       \
		va_list arguments;                                                                                     \
                                                                                                                       \
		va_start(counted, first);                                                                              \
		va_start(arguments, first);                                                                            \
		(void)follow_exec_list(named, file, first, counted, arguments);                                        \
		va_end(arguments);                                                                                     \
		va_end(counted);                                                                                       \
		return -1;                                                                                             \
	}

EXEC_LIST(execl, 'l')
EXEC_LIST(execlp, 'p')
EXEC_LIST(execle, 'e')
