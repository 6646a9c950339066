/* SPDX-License-Identifier: MIT */
/*
 * The trial of breaking pages off a child: process_vm_writev(2) from memory that cannot be read, into a private mapping
 * of a memfd, as region/view_child.c does it.
 *
 * Idea: the child is a real one, because a process may always look into itself; it does nothing, and is ended by
 * SIGKILL. The page holds a word at first; afterwards it must be the child's own by its pagemap, and still hold that
 * word when the file has another.
 *
 * Threads: any, under the lock of the runtime that asks. Never: to touch memory in the child.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "kernel/pagemap.h"
#include "kernel/probe.h"

/* How often the signal that ends the child is tried: a child of this process may always be ended. */
#define TRIAL_CHILD_TRIES 100

struct trial_child {
	const struct kernel_ops *k;
	size_t page_bytes;
	int fd;
	uint64_t *shared;
	uint64_t *frozen; /* a private mapping */
	void *unreadable;
	int pid;
	int pagemap;
	int mem;
	const char *what; /* was being done when it failed */
};

static int trial_child_map(struct trial_child *trial)
{
	const struct kernel_ops *k = trial->k;
	int error = 0;

	trial->what = "memory for the trial";
	trial->fd = k->memfd_create("uffdwp-trial", MFD_CLOEXEC);
	if (trial->fd < 0)
		return trial->fd;
	error = k->ftruncate(trial->fd, trial->page_bytes);
	if (!error)
		trial->shared =
		        k->mmap(NULL, trial->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, trial->fd, 0, &error);
	if (!error)
		trial->frozen =
		        k->mmap(NULL, trial->page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, trial->fd, 0, &error);
	if (!error)
		trial->unreadable =
		        k->mmap(NULL, trial->page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &error);
	return error;
}

static int trial_child_open(const struct trial_child *trial, const char *name, int flags)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", trial->pid, name);
	return trial->k->open(path, flags | O_CLOEXEC, 0);
}

static int trial_child_fork(struct trial_child *trial)
{
	trial->what = "a process of its own";
	trial->pid = trial->k->fork(KERNEL_FORK_SILENT);
	if (!trial->pid) { /* it ends with the thread that made it, at the latest */
		syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		for (;;)
			syscall(SYS_ppoll, NULL, 0, NULL, NULL, (size_t)0);
	}
	return trial->pid < 0 ? trial->pid : 0;
}

static int trial_child_break(struct trial_child *trial)
{
	uint64_t address = (uint64_t)(uintptr_t)trial->frozen;
	uint64_t entry = 0;
	uint64_t found = 0;

	*trial->shared = 1;
	trial->what = "/proc/PID/pagemap of a child";
	trial->pagemap = trial_child_open(trial, "pagemap", O_RDONLY);
	if (trial->pagemap < 0)
		return trial->pagemap;
	trial->what = "/proc/PID/mem of a child";
	trial->mem = trial_child_open(trial, "mem", O_RDWR);
	if (trial->mem < 0)
		return trial->mem;
	trial->what = "process_vm_writev(2) into a child";
	ssize_t done = trial->k->write_other(trial->pid, trial->unreadable, address, trial->page_bytes);

	if (done != -EFAULT)
		return done < 0 ? (int)done : -EIO;
	int error = pagemap_read(trial->k, trial->pagemap, address, 1, &entry);

	if (error || !pagemap_is_own(entry))
		return error ? error : -EIO;
	*trial->shared = 2;
	return trial->k->pread(trial->mem, &found, sizeof(found), address) == sizeof(found) && found == 1 ? 0 : -EIO;
}

static void trial_child_close(const struct trial_child *trial)
{
	const struct kernel_ops *k = trial->k;

	int error = trial->pid > 0 ? -EAGAIN : -ESRCH;

	for (int i = 0; i < TRIAL_CHILD_TRIES && error && error != -ESRCH; i++)
		error = k->kill(-1, trial->pid);
	if (!error)
		k->wait(trial->pid, KERNEL_FORK_SILENT);
	if (trial->pagemap >= 0)
		k->close(trial->pagemap);
	if (trial->mem >= 0)
		k->close(trial->mem);
	if (trial->unreadable)
		k->munmap(trial->unreadable, trial->page_bytes);
	if (trial->frozen)
		k->munmap(trial->frozen, trial->page_bytes);
	if (trial->shared)
		k->munmap(trial->shared, trial->page_bytes);
	if (trial->fd >= 0)
		k->close(trial->fd);
}

void probe_child(const struct kernel_ops *k, struct probe_arming *out)
{
	struct trial_child trial = {
	        .k = k, .page_bytes = (size_t)sysconf(_SC_PAGESIZE), .fd = -1, .pagemap = -1, .mem = -1};
	struct probe_arming found = {0};
	int error = trial_child_map(&trial);

	if (!error)
		error = trial_child_fork(&trial);
	if (!error)
		error = trial_child_break(&trial);
	trial_child_close(&trial);
	found.works = !error;
	if (!error)
		(void)snprintf(found.reason, sizeof(found.reason), "a page was broken off a child");
	else
		(void)snprintf(found.reason, sizeof(found.reason), "%s: %s%s", trial.what, errno_text(error),
		               error == -EPERM || error == -EACCES
		                       ? "; needed: ptrace of children (kernel.yama.ptrace_scope 0 or 1)"
		                       : "");
	found.error = kernel_is_passing(error) ? error : 0;
	*out = found;
}
