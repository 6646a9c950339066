/* SPDX-License-Identifier: MIT */
/*
 * Roles of test_fork_preload.h: programs that shut themselves into a sandbox after their start, from where a child
 * could not be written to, or could not arrive: it must be made by a copy, not killed.
 */
#ifndef TEST_FORK_PRELOAD_BOX_H
#define TEST_FORK_PRELOAD_BOX_H

#include <dirent.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static size_t box_count_threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	size_t count = 0;

	must(folder != NULL);
	while (readdir(folder))
		count++;
	(void)closedir(folder);
	return count;
}

/* A child that its parent may not trace any more is ended when that writes, and its parent says so. */
static void role_undump(void)
{
	unsigned char *heap = fill_heap();
	size_t threads = box_count_threads();
	char byte = 0;
	int ends[2];
	int status = 0;

	must(pipe(ends) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && write(ends[1], "u", 1) == 1);
		for (;;)
			(void)pause();
	}
	must(read(ends[0], &byte, 1) == 1);
	memset(heap, 8, 8 * MIB);
	must(is_filled(heap, 8 * MIB, 8));
	must(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	while (box_count_threads() > threads)
		(void)usleep(1000);
	free(heap);
}

/* What the box of a role could not be closed by says so; the test looks for it. */
#define BOX_MISSING "no such sandbox here"

/* The numbers of the kernel's interface, which headers may lack: create_ruleset and restrict_self. */
static void role_landlock(void)
{
	const uint64_t handled = 0xf; /* execute, write and read files, read folders */
	unsigned char *heap = fill_heap();

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	int fd = (int)syscall(444, &handled, sizeof(handled), 0);

	if (fd < 0 || syscall(446, fd, 0) != 0)
		puts(BOX_MISSING);
	fork_and_change(heap);
	free(heap);
}

static void role_ownfiles(void)
{
	unsigned char *heap = fill_heap();

	must(unshare(CLONE_FILES) == 0);
	fork_and_change(heap);
	free(heap);
}

/* From now on a system call answers EPERM. */
static void box_forbid(int call)
{
	if (filter_call(call, filter_errno(EPERM)) != 0)
		puts(BOX_MISSING);
}

static void role_noopen(void)
{
	unsigned char *heap = fill_heap();

	box_forbid(SYS_openat);
	fork_and_change(heap);
	free(heap);
}

static void role_noremap(void)
{
	unsigned char *heap = fill_heap();

	box_forbid(SYS_mremap);
	fork_and_change(heap);
	free(heap);
}

static void role_nowrite(void)
{
	unsigned char *heap = fill_heap();

	box_forbid(SYS_process_vm_writev);
	fork_and_change(heap);
	free(heap);
}

#endif
