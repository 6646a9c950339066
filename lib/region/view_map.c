/* SPDX-License-Identifier: MIT */
/* The mapping of a view; see view.h. Not part of the fault path. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/trace.h"
#include "kernel/own.h"
#include "region/view.h"

static uint64_t view_map_broken_bytes(const struct uffdwp_view *view)
{
	return math_bitmap_bytes(view->map_bytes >> view->page_shift);
}

/* Some kernels forbid to write by /proc/self/mem what is mapped read-only (proc_mem.force_override, Linux 6.12;
 * seen of Debian's 7.3): found out here, on a page that is anonymous. 0; -EIO: so it is; or why it is not known. */
static int view_map_try_forced_write(const struct uffdwp_view *view)
{
	size_t length = (size_t)1 << view->page_shift;
	int error = 0;
	void *page = view->k->mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &error);
	unsigned char zero = 0;

	if (!page)
		return error;
	ssize_t done = view->k->pwrite(view->mem, &zero, 1, (uint64_t)(uintptr_t)page);

	view->k->munmap(page, length);
	return done == 1 ? 0 : done < 0 ? (int)done : -EIO;
}

static int view_map_private(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;
	int error = 0;

	view->mem = view->k->open("/proc/self/mem", O_RDWR | O_CLOEXEC, 0);
	if (view->mem < 0)
		return text_fail(region->text, view->mem, "/proc/self/mem cannot be opened for writing: %s",
		                 errno_text(view->mem));
	view->tag = own_new();
	error = own_take(view->k, view->mem, view->tag);
	if (error)
		return text_fail(region->text, error, "no memory for a view");
	error = view_map_try_forced_write(view);
	if (error && error != -EIO)
		return text_fail(region->text, error, "no page for a trial of a view: %s", errno_text(error));
	int access = PROT_READ | (error ? PROT_WRITE : 0);

	if (error)
		TRACE("view of region %p: mapped writable, this kernel forbids to write what is mapped read-only",
		      (void *)region);
	error = 0;
	view->broken = pages_new(view->k, view_map_broken_bytes(view));
	view->base = view->k->mmap_unlocked(view->map_bytes, access, MAP_PRIVATE | MAP_NORESERVE, region->fd,
	                                    region->fd_offset, &error);
	if (!view->broken || !view->base)
		return text_fail(region->text, error ? error : -ENOMEM, "no address space for a view%s",
		                 access & PROT_WRITE
		                         ? ", which counts as private memory on this kernel: see RLIMIT_DATA "
		                           "and vm.overcommit_memory"
		                         : "");
	/* In a child of fork() no thread would break pages off. */
	view->k->madvise(view->base, view->map_bytes, MADV_DONTFORK);
	return 0;
}

int view_map(struct uffdwp_region *region, struct uffdwp_view **out)
{
	struct uffdwp_view *view = pages_new(region->k, sizeof(*view));

	if (!view)
		return text_fail(region->text, -ENOMEM, "no memory for a view");
	view->k = region->k;
	view->region = region;
	view->mem = -1;
	view->page_shift = region->page_shift;
	view->map_bytes = region->ledger.count << region->page_shift;
	int error = view_map_private(view);

	if (error)
		view_unmap(view);
	else
		*out = view;
	return error;
}

void view_unmap(struct uffdwp_view *view)
{
	if (view->base)
		view->k->munmap(view->base, view->map_bytes);
	own_close(view->k, view->mem, view->tag);
	pages_free(view->k, (void *)view->broken, view_map_broken_bytes(view));
	pages_free(view->k, view, sizeof(*view));
}

void view_child_close(const struct view_child *child)
{
	own_close(child->k, child->pidfd, child->tag);
	own_close(child->k, child->pagemap, child->tag);
	own_close(child->k, child->mem, child->tag);
	own_close(child->k, child->maps, child->tag);
}
