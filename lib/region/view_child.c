/* SPDX-License-Identifier: MIT */
/*
 * Breaking pages off a child; see view.h. Part of the fault path.
 *
 * process_vm_writev(2) from memory that cannot be read pins the child's pages for writing, by which the kernel gives
 * the child pages of its own, and then fails before a byte is written: no race with what the child writes itself. The
 * child's pagemap is the witness: only a page that is the child's own there counts as broken off. Until the child has
 * moved its mapping to the region's address both places are tried, so that no thread waits for the child to run.
 *
 * A page that did not become the child's own: the child has unmapped it, or has something else there; or has made it
 * read-only, and then it is written with its own value by /proc/PID/mem, which no write of the child can meet; or the
 * kernel refuses, and the child is ended, because it would see the parent's next write.
 */
#include <errno.h>

#include "base/math.h"
#include "kernel/mapping.h"
#include "kernel/own.h"
#include "kernel/pagemap.h"
#include "region/view.h"

/* How often a page is tried again that could be broken off, and was not. */
#define BREAK_TRIES 4

/* 0; or -EBADF, -ESTALE: the program has closed descriptors that it did not open. */
static int view_child_check(const struct view_child *child)
{
	int error = own_check(child->k, child->pagemap, child->tag);

	if (!error)
		error = own_check(child->k, child->mem, child->tag);
	return error ? error : own_check(child->k, child->maps, child->tag);
}

/* Where its pagemap was closed the process itself is asked, which is a child of ours. */
int view_child_is_gone(struct view_child *child)
{
	uint64_t entry;

	if (atomic_load(&child->gone))
		return 1;
	int is_over = own_check(child->k, child->pagemap, child->tag)
	                      ? child->k->exited(child->pid)
	                      : child->k->pread(child->pagemap, &entry, sizeof(entry), 0) == 0;

	if (is_over)
		atomic_store(&child->gone, 1);
	return is_over;
}

void view_child_unstall(struct uffdwp_view *view)
{
	if (atomic_exchange(&view->stalls, 0))
		atomic_fetch_sub(&view->region->view_stalls, 1);
}

/* Partner: the child's thread, which raises `left`, waits until no thread is in the epoch, and only then takes back
 * what was counted. */
void view_child_stall(struct view_child *child, int on)
{
	for (unsigned i = 0; i < child->view_count; i++) {
		struct uffdwp_view *view = child->views[i];

		if (atomic_load(&view->left))
			continue;
		if (!on)
			view_child_unstall(view);
		else if (!atomic_exchange(&view->stalls, 1))
			atomic_fetch_add(&view->region->view_stalls, 1);
	}
}

void view_child_kill(struct view_child *child)
{
	int is_ours = child->pidfd >= 0 && !own_check(child->k, child->pidfd, child->tag);

	if (child->pid > 0)
		child->k->kill(is_ours ? child->pidfd : -1, child->pid);
}

void view_child_end(struct view_child *child, int error)
{
	int none = 0;

	view_child_stall(child, 1);
	if (atomic_compare_exchange_strong(&child->error, &none, error))
		view_child_kill(child);
}

/* ---- pages ---- */

/* Which of the up to VIEW_CHILD_RUN pages from `address` on are the child's own now. 0 or -errno, also where its memory
 * is gone. */
static int view_child_own(const struct view_child *child, uint64_t address, size_t count, uint64_t *own)
{
	uint64_t entries[VIEW_CHILD_RUN];
	int error = pagemap_read(child->k, child->pagemap, address, count, entries);

	*own = 0;
	for (size_t i = 0; i < count && !error; i++) {
		*own |= (uint64_t)pagemap_is_own(entries[i]) << i;
	}
	return error;
}

static int view_child_try(const struct view_child *child, uint64_t address, uint64_t page_bytes, size_t count,
                          uint64_t *own)
{
	child->k->write_other(child->pid, child->unreadable, address, count * page_bytes);
	return view_child_own(child, address, count, own);
}

/* 1: the child has the page of the region's file at an address, as two looks agree; the text may change between reads.
 * 0: it has not; or -errno. */
static int view_child_sees(const struct uffdwp_view *view, uint64_t address, struct mapping *mapping)
{
	const struct view_child *child = view->child;
	struct mapping again = {0};
	int found;

	do {
		*mapping = again;
		found = mapping_at(child->k, child->maps, address, &again);
	} while (found > 0 && (again.start != mapping->start || again.end != mapping->end ||
	                       again.inode != mapping->inode || again.writable != mapping->writable));
	if (found <= 0)
		return found;
	return again.start <= address && again.inode == view->region->fd_inode && again.is_private;
}

/* One page that was tried in vain, where the child has it, or before it has moved its mapping at either place. 0: the
 * child has its own, or does not see it; 1: once more. */
static int view_child_settle(const struct uffdwp_view *view, uint64_t page)
{
	const struct view_child *child = view->child;
	uint64_t page_bytes = 1ull << view->page_shift;
	uint32_t arrived = atomic_load(&child->meeting->arrived);
	uint64_t address = (uint64_t)(uintptr_t)view->base + (page << view->page_shift);
	struct mapping mapping = {0};
	uint64_t own = 0;
	int error = 0;

	if (!arrived) {
		error = view_child_try(child, view->from + (page << view->page_shift), page_bytes, 1, &own);
		if (error || (own && !atomic_load(&child->meeting->arrived)))
			return error;
	}
	int refused = (int)child->k->write_other(child->pid, child->unreadable, address, page_bytes);

	error = view_child_own(child, address, 1, &own);
	if (error || own)
		return error;
	int sees = view_child_sees(view, address, &mapping);

	if (sees <= 0)
		return sees < 0 ? sees : !arrived;
	if (!mapping.writable)
		error = mapping_rewrite(child->k, child->mem, address); /* it is read-only */
	else if (refused != -EFAULT)
		error = refused < 0 ? refused : -EIO;
	return error ? error : 1;
}

/* -ESRCH: the process is ending, or was given other memory by execve(2) just now, which its old one does not show yet;
 * or it is just moving its mapping. */
static int view_child_settle_page(struct uffdwp_view *view, uint64_t page)
{
	int error = 1;

	for (unsigned i = 0; i < BREAK_TRIES && error == 1; i++)
		error = view_child_settle(view, page);
	return error == 1 ? -ESRCH : error;
}

/* Breaks off those of the `count` pages from `first` on that are in `wanted`. What was found before the child has moved
 * its mapping counts only if it has not moved it since: another may lie there now. 0 or -errno. */
static int view_child_break_run(struct uffdwp_view *view, uint64_t first, size_t count, uint64_t wanted)
{
	const struct view_child *child = view->child;
	uint64_t page_bytes = 1ull << view->page_shift;
	uint64_t offset = first << view->page_shift;
	uint64_t own = 0;
	int error = 0;

	if (!atomic_load(&child->meeting->arrived)) {
		error = view_child_try(child, view->from + offset, page_bytes, count, &own);
		if (atomic_load(&child->meeting->arrived))
			own = 0;
	}
	if (!error && (wanted & ~own) && atomic_load(&child->meeting->arrived))
		error = view_child_try(child, (uint64_t)(uintptr_t)view->base + offset, page_bytes, count, &own);
	for (uint64_t left = wanted & ~own; left && !error; left &= left - 1)
		error = view_child_settle_page(view, first + (uint64_t)__builtin_ctzll(left));
	return error;
}

/* Which of the up to 64 pages from `first` on have no bit yet. */
static uint64_t view_child_wanted(const struct uffdwp_view *view, uint64_t first, size_t count)
{
	uint64_t wanted = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t page = first + i;

		wanted |= (~atomic_load_explicit(&view->broken[page / 64], memory_order_acquire) >> (page % 64) & 1)
		          << i;
	}
	return wanted;
}

/* Others may rely on the bits from now on. */
static void view_child_note(struct uffdwp_view *view, uint64_t first, uint64_t wanted)
{
	uint64_t count = 0;

	for (; wanted; wanted &= wanted - 1) {
		uint64_t page = first + (uint64_t)__builtin_ctzll(wanted);
		uint64_t bit = 1ull << (page % 64);

		count += !(atomic_fetch_or(&view->broken[page / 64], bit) & bit);
	}
	atomic_fetch_add_explicit(&view->pages_broken, count, memory_order_relaxed);
	atomic_fetch_add_explicit(&view->child->pages_broken, count, memory_order_relaxed);
	atomic_store_explicit(&view->child->ends_again, 0, memory_order_relaxed);
}

/* 1: the bound is met, and the policy has begun. */
static int view_child_is_full(struct view_child *child, uint64_t more)
{
	uint64_t none = 0;

	if (!child->pages_most || atomic_load(&child->pages_broken) + more <= child->pages_most)
		return 0;
	if (child->policy == UFFDWP_POLICY_ABORT)
		view_child_end(child, -ENOBUFS);
	else
		atomic_compare_exchange_strong(&child->full_since_ns, &none, kernel_now_ns());
	view_child_stall(child, 1);
	return 1;
}

/* A child that is ending is waited for. */
static void view_child_fail(struct view_child *child, int error)
{
	if (error != -ESRCH)
		view_child_end(child, error);
	else if (!atomic_exchange(&child->ends, 1))
		view_child_stall(child, 1);
}

/* 1: no page can be broken off it at the moment. One that has ended is found out here, too: its thread may wait for a
 * lock that this thread holds. */
static int view_child_waits(struct view_child *child, uint64_t more)
{
	if (!atomic_load(&child->known))
		return 1;
	if (!atomic_load(&child->error) && !atomic_load(&child->ends) && !view_child_is_full(child, more))
		return 0;
	return !view_child_is_gone(child);
}

int view_child_break(struct uffdwp_view *view, uint64_t first, uint64_t end)
{
	struct view_child *child = view->child;

	for (uint64_t page = first; page < end; page += VIEW_CHILD_RUN) {
		size_t count = (size_t)math_min_u64(end - page, VIEW_CHILD_RUN);
		uint64_t wanted = view_child_wanted(view, page, count);
		int error = 0;

		if (wanted && !atomic_load(&child->gone)) {
			if (view_child_waits(child, (uint64_t)__builtin_popcountll(wanted)))
				return 1;
			error = view_child_check(child);
		}
		if (wanted && !error && !atomic_load(&child->gone))
			error = view_child_break_run(view, page, count, wanted);
		if (error && !view_child_is_gone(child)) {
			view_child_fail(child, error);
			return 1;
		}
		view_child_note(view, page, wanted);
	}
	return 0;
}
