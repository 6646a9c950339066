/* SPDX-License-Identifier: MIT */
/*
 * What a child needs before its cut: the regions reserved, a private mapping of each region's file, which the child
 * will inherit and the parent unmaps again, memory for what is noted, a place to move page tables to, and a thread. See
 * child.h.
 *
 * Threads: the caller of uffdwp_fork(), with the lock of forks held.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/thread.h"
#include "child/child_private.h"
#include "cut/move.h"
#include "kernel/own.h"
#include "kernel/process.h"
#include "region/lazy.h"
#include "region/registry.h"

#define PREPARE_WAIT_NS 10000000000ull

static int prepare_is_possible(const struct uffdwp_region *region, const void *runtime)
{
	return region->runtime == runtime && region_fits_child(region) && !atomic_load(&region->dead);
}

struct prepare_pins {
	const struct uffdwp *runtime;
	size_t left; /* that there is room for */
};

/* Partner: runtime_end(), which has set `closing` before it looks at `child_users`, and frees the region only after it
 * has taken it out of the registry. What there is no room for is counted only. */
static int prepare_pin(struct uffdwp_region *region, void *user)
{
	struct prepare_pins *pins = user;

	if (!prepare_is_possible(region, pins->runtime) || !pins->left)
		return prepare_is_possible(region, pins->runtime);
	atomic_fetch_add(&region->child_users, 1);
	if (atomic_load(&region->closing)) {
		atomic_fetch_sub(&region->child_users, 1);
		return 0;
	}
	pins->left--;
	return 1;
}

size_t child_pin_regions(const struct uffdwp *runtime, struct uffdwp_region **out, size_t most)
{
	struct prepare_pins pins = {runtime, most};

	return registry_list(prepare_pin, &pins, out, most);
}

void child_unpin_regions(struct uffdwp_region *const *regions, size_t count)
{
	for (size_t i = 0; i < count; i++)
		atomic_fetch_sub(&regions[i]->child_users, 1);
}

static int prepare_check(const struct uffdwp_region *region, struct text *text)
{
	if (!prepare_is_possible(region, region->runtime) && !atomic_load(&region->dead))
		return text_fail(
		        text, -EOPNOTSUPP,
		        "a child can have created regions of shared memory, without UFFDWP_REGION_CREATE_INHERIT; "
		        "all other memory it inherits as from fork(2)");
	if (!cut_has_rounds(region))
		return text_fail(text, -EOPNOTSUPP, "children need mechanism marker or rearm; a region is by %s",
		                 region->mechanism->name);
	return 0;
}

/* With the region's lock held. */
static int prepare_refusal(const struct uffdwp_region *region, struct text *text)
{
	const struct lazy *lazy = atomic_load(&region->lazy);

	if (atomic_load(&region->dead))
		return text_fail(text, -ESTALE, "%s: close it", region_death(region));
	if (region->cut_comes)
		return text_fail(text, -EBUSY, "a snapshot, or a view, of a region is just being begun");
	if (region->restore_open)
		return text_fail(text, -EBUSY, "a restore of a region has not been freed: uffdwp_restore_free()");
	if (lazy && atomic_load(&lazy->failed))
		return text_fail(
		        text, -EBUSY,
		        "a child would see zeros where a restore has failed: punch these pages, or restore the "
		        "region anew");
	if (region->soft_dirty)
		return text_fail(text, -EOPNOTSUPP,
		                 "soft-dirty only reports what was written: no child has such a region");
	if (atomic_load(&region->child_count) >= UFFDWP_CHILDREN_MAX)
		return text_fail(text, -EMFILE, "%d children have a region, which is all there may be",
		                 UFFDWP_CHILDREN_MAX);
	return 0;
}

static int prepare_reserve(struct uffdwp_region *region, struct text *text)
{
	int error = prepare_check(region, text);

	if (error)
		return error;
	lock_take(&region->lock);
	error = prepare_refusal(region, text);
	if (!error)
		region->cut_comes = 1; /* no other cut, until the call returns */
	lock_give(&region->lock);
	if (!error)
		cut_await_looks(region);
	return error;
}

void child_unreserve(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < child->count; i++) {
		struct uffdwp_region *region = child->cuts[i].region;

		lock_take(&region->lock);
		region->cut_comes = 0;
		lock_give(&region->lock);
	}
}

/* A child in which mremap(2) fails cannot go on. A filter that refuses it refuses this one, too, which changes nothing.
 */
static int prepare_cannot_move(const struct uffdwp_child *child, unsigned i, int *error)
{
	uint64_t bytes = child->views[i].map_bytes;

	return !child->k->mremap(child->mapped[i], bytes, bytes, 0, NULL, error);
}

static int prepare_view(struct uffdwp_child *child, unsigned i, struct text *text)
{
	struct uffdwp_region *region = child->cuts[i].region;
	struct uffdwp_view *view = &child->views[i];
	int error = region_check_file(region);

	view->k = child->k;
	view->region = region;
	view->mem = -1;
	view->page_shift = region->page_shift;
	view->map_bytes = region->capacity_bytes;
	view->child = &child->in;
	view->broken = pages_new(child->k, math_bitmap_bytes(child->cuts[i].pages_most));
	if (!error)
		child->mapped[i] =
		        child->k->mmap_unlocked(view->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
		                                region->fd, region->fd_offset, &error);
	if (child->mapped[i]) /* until the fork that is meant: other threads may fork, too */
		child->k->madvise(child->mapped[i], view->map_bytes, MADV_DONTFORK);
	if (child->mapped[i] && prepare_cannot_move(child, i, &error)) {
		child->k->munmap(child->mapped[i], view->map_bytes);
		child->mapped[i] = NULL;
		return text_fail(text, error, "a child may not move its memory: mremap(2): %s", errno_text(error));
	}
	view->from = (uintptr_t)child->mapped[i];
	child->in.views[i] = view;
	if (view->broken && child->mapped[i])
		return 0;
	return text_fail(text, error ? error : -ENOMEM, "a region's file cannot be mapped once more: %s",
	                 errno_text(error ? -error : ENOMEM));
}

static int prepare_region(struct uffdwp_child *child, struct uffdwp_region *region, uint32_t asked, struct text *text)
{
	unsigned i = child->count;
	int error = prepare_reserve(region, text);

	if (error)
		return error;
	cut_init(&child->cuts[i], region, atomic_load(&region->length_bytes));
	child->count++;
	child->in.view_count++;
	error = prepare_view(child, i, text);
	if (!error)
		error = cut_choose(&child->cuts[i], asked, text);
	return error ? error : cut_prepare(&child->cuts[i]);
}

static void prepare_sort(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < child->count; i++)
		child->sorted[i] = &child->cuts[i];
	cut_sort(child->sorted, child->count);
}

static size_t prepare_unreadable_bytes(const struct uffdwp_child *child)
{
	return (size_t)VIEW_CHILD_RUN << child->views[0].page_shift;
}

/* Descriptors of the child are opened when it is there: some are kept free for that. Low numbers are the program's, if
 * the region's file is not one of these itself. */
static int prepare_descriptors(struct uffdwp_child *child)
{
	int fd = child->cuts[0].region->fd;

	for (unsigned i = 0; i < CHILD_DESCRIPTORS; i++) {
		int kept = child->k->dup(fd, fd);

		if (kept < 0)
			return kept;
		atomic_store(&child->kept_free[i], kept);
	}
	return 0;
}

int child_free_descriptor(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < CHILD_DESCRIPTORS; i++) {
		int kept = atomic_exchange(&child->kept_free[i], -1);

		if (kept < 0)
			continue;
		child->k->close(kept);
		return 1;
	}
	return 0;
}

void child_free_descriptors(struct uffdwp_child *child)
{
	while (child_free_descriptor(child))
		;
}

static int prepare_shared(struct uffdwp_child *child, struct text *text)
{
	int error = prepare_descriptors(child);

	if (error)
		return text_fail(text, error, "no descriptors for a child: %s", errno_text(error));
	child->in.meeting = child->k->mmap(NULL, sizeof(*child->in.meeting), PROT_READ | PROT_WRITE,
	                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0, &error);
	if (child->in.meeting)
		child->in.unreadable = child->k->mmap(NULL, prepare_unreadable_bytes(child), PROT_NONE,
		                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &error);
	return child->in.unreadable ? 0 : text_fail(text, error, "no memory for a child");
}

static struct uffdwp_child *prepare_new(const struct kernel_ops *k, const struct child_request *request)
{
	struct uffdwp_child *child = pages_new(k, sizeof(*child));

	if (!child)
		return NULL;
	child->k = k;
	child->begun_ns = kernel_now_ns();
	child->process = process_number();
	child->bare = request->bare;
	child->wait_ns = request->wait_ns ? request->wait_ns : PREPARE_WAIT_NS;
	child->in.k = k;
	child->in.tag = own_new();
	child->in.pidfd = child->in.pagemap = child->in.mem = child->in.maps = -1;
	child->in.policy = request->policy;
	child->in.window_max = request->window_max;
	for (unsigned i = 0; i < CHILD_DESCRIPTORS; i++)
		atomic_store(&child->kept_free[i], -1);
	child->ends[0] = child->ends[1] = -1;
	atomic_store(&child->owners, 2);
	return child;
}

static uint64_t prepare_pages_most(const struct child_request *request)
{
	uint64_t page_bytes = request->regions[0]->page_bytes;

	return request->private_bytes ? (request->private_bytes + page_bytes - 1) / page_bytes : 0;
}

struct uffdwp_child *child_new(const struct child_request *request, void *(*watch)(void *), struct text *text,
                               int *error)
{
	struct uffdwp_child *child = prepare_new(request->regions[0]->k, request);

	if (!child) {
		*error = text_fail(text, -ENOMEM, "no memory for a child");
		return NULL;
	}
	child->in.pages_most = prepare_pages_most(request);
	*error = 0;
	for (unsigned i = 0; i < request->count && !*error; i++)
		*error = prepare_region(child, request->regions[i], request->arming, text);
	if (!*error)
		*error = prepare_shared(child, text);
	if (!*error) {
		prepare_sort(child);
		*error = thread_spawn(&child->thread, NULL, watch, child);
		if (*error)
			text_fail(text, *error, "a child's thread could not be started: %s", errno_text(*error));
		else
			pthread_detach(child->thread);
	}
	if (!*error)
		return child;
	child_take_back(child);
	child_delete(child);
	return NULL;
}

/* The regions are not used by the child afterwards, and may be closed. */
void child_take_back(struct uffdwp_child *child)
{
	child_unmap_inherited(child);
	child_free_descriptors(child);
	child_pair_close(child);
	for (unsigned i = 0; i < child->count; i++) {
		cut_forget(&child->cuts[i]);
		move_close(&child->cuts[i]);
	}
	child_unreserve(child);
}

void child_unmap_inherited(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < child->count; i++) {
		if (child->mapped[i])
			child->k->munmap(child->mapped[i], child->views[i].map_bytes);
		child->mapped[i] = NULL;
	}
}

void child_close_descriptors(struct uffdwp_child *child)
{
	struct view_child *in = &child->in;

	view_child_close(in);
	in->pidfd = in->pagemap = in->mem = in->maps = -1;
}

void child_delete(struct uffdwp_child *child)
{
	const struct kernel_ops *k = child->k;

	child_close_descriptors(child);
	child_free_descriptors(child);
	child_pair_close(child);
	for (unsigned i = 0; i < child->count; i++)
		pages_free(k, (void *)child->views[i].broken, math_bitmap_bytes(child->cuts[i].pages_most));
	if (child->in.unreadable)
		k->munmap(child->in.unreadable, prepare_unreadable_bytes(child));
	if (child->in.meeting)
		k->munmap(child->in.meeting, sizeof(*child->in.meeting));
	pages_free(k, child, sizeof(*child));
}

void child_put(struct uffdwp_child *child)
{
	if (atomic_fetch_sub(&child->owners, 1) == 1)
		child_delete(child);
}
