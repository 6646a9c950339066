/* SPDX-License-Identifier: MIT */
/*
 * uffdwp_fork(): a child process writes the memory out as of one instant, as programs do with fork(2), but the call
 * does not copy page tables: it takes the same time at any size.
 *
 * The memory is an array in which all elements have the same value: its version. The parent forks at version 1 and
 * writes version 2 over all of it, while the child writes what it sees into a file. The file has to be version 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <uffdwp.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)64 << 20)
#define COUNT (LENGTH_BYTES / sizeof(uint64_t))
#define PATH "fork.raw"

static int fork_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static void fork_write(uint64_t *memory, uint64_t version)
{
	for (size_t at = 0; at < COUNT; at++)
		memory[at] = version;
}

/* The child: it has the region at the same address, as plain memory of its own, and calls the library no more. */
static int fork_save(const uint64_t *memory)
{
	const char *bytes = (const char *)memory;
	int fd = open(PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	for (size_t at = 0; at < LENGTH_BYTES && fd >= 0;) {
		ssize_t written = write(fd, bytes + at, LENGTH_BYTES - at);

		if (written <= 0) {
			perror(PATH);
			return 1;
		}
		at += (size_t)written;
	}
	return fd < 0 || close(fd) != 0 ? 1 : 0;
}

/* How many elements of the file are of another version. */
static size_t fork_count_wrong(uint64_t version)
{
	uint64_t element;
	size_t right = 0;
	FILE *file = fopen(PATH, "rb");

	while (file != NULL && fread(&element, sizeof(element), 1, file) == 1)
		right += element == version ? 1 : 0;
	if (file != NULL)
		fclose(file);
	return COUNT - right;
}

static int fork_run(struct uffdwp *runtime, uint64_t *memory)
{
	struct uffdwp_child_info info = UFFDWP_INIT(struct uffdwp_child_info);
	struct uffdwp_child *child;
	size_t wrong;
	int status;
	pid_t pid;

	fork_write(memory, 1);
	fflush(stdout); /* as before any fork */
	pid = uffdwp_fork(runtime, NULL, &child);
	if (pid < 0)
		return fork_failed("uffdwp_fork", pid);
	if (pid == 0)
		_exit(fork_save(memory));
	fork_write(memory, 2);
	if (waitpid(pid, &status, 0) != pid)
		return 1;
	uffdwp_child_info(child, &info);
	uffdwp_child_free(child);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "the child failed: status %#x, %s\n", (unsigned int)status, strerror(-info.error));
		return 1;
	}
	wrong = fork_count_wrong(1);
	printf("the fork took %.2f ms; %llu MiB were copied for the child before they were written\n",
	       (double)info.call_ns / 1e6, (unsigned long long)info.private_bytes >> 20);
	printf(PATH " has %zu elements that are not of version 1; the memory is of version %llu\n", wrong,
	       (unsigned long long)memory[COUNT - 1]);
	return wrong == 0 && memory[0] == 2 && memory[COUNT - 1] == 2 ? 0 : 1;
}

int main(void)
{
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return fork_failed("uffdwp_open", error);
	error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region);
	if (error != 0) {
		result = fork_failed("uffdwp_region_create", error);
	} else {
		result = fork_run(runtime, uffdwp_region_base(region));
		uffdwp_region_close(region);
	}
	unlink(PATH);
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
