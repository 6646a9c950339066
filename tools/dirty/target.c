/* SPDX-License-Identifier: MIT */
/* See target.h. */
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"

#define FOUND_MAX 4096 /* ranges a scan */

static int target_set_up(struct target *target, const char **failed)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED};

	*failed = "asynchronous write protection (UFFD_FEATURE_WP_ASYNC, Linux 6.7)";
	if (ioctl(target->fds[HELLO_UFFD], UFFDIO_API, &api) != 0)
		return -errno;
	*failed = "memory";
	target->found = calloc(FOUND_MAX, sizeof(*target->found));
	if (!target->found)
		return -ENOMEM;
	*failed = "reading the mappings";
	return target_look(target);
}

int target_open(struct target *target, pid_t pid, const struct hello *hello, const int fds[HELLO_FDS],
                const char **failed)
{
	int error;

	target->pid = pid;
	target->holder = hello->holder;
	memcpy(target->fds, fds, sizeof(target->fds));
	target->refused = 0;
	error = target_set_up(target, failed);
	if (error)
		target_close(target);
	return error;
}

void target_close(struct target *target)
{
	for (int i = 0; i < HELLO_FDS; i++) {
		if (target->fds[i] >= 0)
			close(target->fds[i]);
		target->fds[i] = -1;
	}
	free(target->found);
	target->found = NULL;
	maps_fini(&target->maps);
	target->pid = 0;
}

void target_lose_holder(struct target *target)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)target->pid);
	target->holder = 0;
	if (target->fds[HELLO_MAPS] >= 0)
		close(target->fds[HELLO_MAPS]);
	target->fds[HELLO_MAPS] = open(path, O_RDONLY | O_CLOEXEC);
}

int target_look(struct target *target)
{
	target->refused = 0;
	target->maps_error = maps_read(&target->maps, target->fds[HELLO_MAPS], target->pid);
	return target->maps_error;
}

/* What counts as content of a mapping. In a private mapping of a file only what is no longer the file's; in shared
 * memory everything. */
static void target_ask_for_content(const struct mapping *mapping, struct pm_scan_arg *arg)
{
	uint64_t without = PAGE_IS_PFNZERO | (mapping->kind == AREA_DATA ? PAGE_IS_FILE : 0);

	arg->size = sizeof(*arg);
	arg->category_inverted = without;
	arg->category_mask = without;
	arg->category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	arg->return_mask = PAGE_IS_HUGE;
	arg->vec_len = FOUND_MAX;
}

/* Hands on what a scan left and clears it; a scan that failed in the middle has left the ranges that it had armed. */
static void target_hand_on(struct target *target, target_fn each, void *user)
{
	for (struct page_region *found = target->found; found < target->found + FOUND_MAX && found->end; found++) {
		each(user, found->start, found->end, (found->categories & PAGE_IS_HUGE) != 0);
		*found = (struct page_region){0};
	}
}

static int target_scan(struct target *target, struct pm_scan_arg *arg, uint64_t end, target_fn each, void *user)
{
	int error = 0;

	arg->end = end;
	while (!error && arg->start < end) {
		arg->vec = (uint64_t)(uintptr_t)target->found;
		arg->walk_end = 0;
		error = ioctl(target->fds[HELLO_PAGEMAP], PAGEMAP_SCAN, arg) < 0 ? -errno : 0;
		target_hand_on(target, each, user);
		if (arg->walk_end <= arg->start)
			break;
		arg->start = arg->walk_end;
	}
	return error;
}

static int target_collect_once(struct target *target, const struct mapping *mapping, target_fn each, void *user)
{
	struct pm_scan_arg arg = {.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, .start = mapping->start};

	target_ask_for_content(mapping, &arg);
	arg.category_mask |= PAGE_IS_WRITTEN;
	return target_scan(target, &arg, mapping->end, each, user);
}

static int target_enroll(struct target *target, const struct mapping *mapping)
{
	struct uffdio_register arg = {
	        .range = {.start = mapping->start, .len = mapping->end - mapping->start},
	        .mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(target->fds[HELLO_UFFD], UFFDIO_REGISTER, &arg) == 0 ? 0 : -errno;
}

static int target_is_gone(int error)
{
	return error == -ESRCH || error == -EBADF;
}

int target_collect(struct target *target, const struct mapping *mapping, target_fn each, void *user)
{
	int error = target_collect_once(target, mapping, each, user);

	if (error != -EPERM)
		return target_is_gone(error) ? error : 0;
	error = target_enroll(target, mapping);
	if (error == 0) {
		error = target_collect_once(target, mapping, each, user);
	} else if (!target_is_gone(error) && error != -ENOENT) {
		target->refused += mapping->end - mapping->start;
		target->refused_error = error;
	}
	return target_is_gone(error) ? error : 0;
}

int target_populated(struct target *target, const struct mapping *mapping, target_fn each, void *user)
{
	struct pm_scan_arg arg = {.start = mapping->start};
	int error;

	target_ask_for_content(mapping, &arg);
	error = target_scan(target, &arg, mapping->end, each, user);
	return target_is_gone(error) ? error : 0;
}

/* Does a thread have this memory? Where that may not be asked, it is taken for yes. */
static int target_has_memory(const struct target *target, pid_t thread)
{
	return syscall(SYS_kcmp, thread, target->holder, KCMP_VM, 0, 0) <= 0;
}

/* The first thread may have ended before the others: then it has no memory any more, and they do. */
static int target_other_thread_has_memory(const struct target *target)
{
	char path[32];
	struct dirent *entry;
	int found = 0;
	DIR *folder;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)target->pid);
	folder = opendir(path);
	while (folder && !found && (entry = readdir(folder))) {
		pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);

		found = thread > 0 && thread != target->pid && target_has_memory(target, thread);
	}
	if (folder)
		closedir(folder);
	return found;
}

/* Has the process any memory? One that ends gives it up a moment before its parent is notified. */
static int target_has_any_memory(pid_t pid)
{
	char path[32];
	char text[64] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	(void)fclose(file);
	return strtoul(text, NULL, 10) > 0;
}

int target_is_left(const struct target *target)
{
	if (!target->holder)
		return target->maps_error == -ESRCH;
	return !target_has_memory(target, target->pid) && !target_other_thread_has_memory(target) &&
	       target_has_any_memory(target->pid);
}
