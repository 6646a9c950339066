/* SPDX-License-Identifier: MIT */
/*
 * The thread of a child, in its parent: maps entries that the cut has emptied again, unmaps the old page tables, then
 * waits for the child's end, and unprotects what only the child wanted. See child.h.
 *
 * Threads: this one.
 */
#include <errno.h>
#include <poll.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/thread.h"
#include "base/trace.h"
#include "child/child_private.h"
#include "cut/move.h"
#include "fault/fault.h"
#include "fault/phase.h"
#include "fault/window.h"
#include "kernel/backoff.h"
#include "kernel/own.h"

/* How often a child is looked at whose end is not announced: that it became another program, where there is no
 * pidfd(2), or that a region is being closed. */
#define WATCH_MS 20

/* Fills between two looks at the child. */
#define WATCH_FILL_TURNS 16

/* Looked at, and broken off, at a time: a cut waits so long. */
#define WATCH_BREAK_PAGES 64

/* Between two pieces that are released. */
#define WATCH_PAUSE_NS 20000

/* How long another cut may take. */
#define WATCH_STALL_NS 100000

/* How long writers try again to break pages off a child that seems to end, and does not. */
#define WATCH_ENDS_NS 1000000000ull

/* How long is tried to open what pages are broken off by, while other threads take each number that gets free. The
 * child waits twice as long, see arrive_await(). */
#define WATCH_MEET_NS 500000000ull

/* With fork(3) the child itself reports: handlers of the program run before the call returns. */
static void watch_meet(struct uffdwp_child *child)
{
	uint64_t since_ns = 0;
	unsigned turn = 0;

	while (!atomic_load(&child->in.known)) {
		int pid = child->in.pid ? child->in.pid : child_hear(child);

		if (!pid)
			pid = atomic_load(&child->pid);
		if (pid > 0) {
			since_ns = since_ns ? since_ns : kernel_now_ns();
			child_meet(child, pid, kernel_now_ns() - since_ns > WATCH_MEET_NS);
		} else if (pid < 0) { /* there is none, or no more */
			atomic_store(&child->in.gone, 1);
			atomic_store(&child->in.known, 1);
			child_go_on(child);
		}
		kernel_back_off(child->k, &turn);
	}
	child_pair_close(child);
	child_free_descriptors(child);
}

/* ---- while it lives ---- */

/* No page is broken off the child's view any more, nor does the fault path know the region by it. Whatever the fault
 * path has counted by then is taken back when no thread is in the epoch. */
static void watch_detach(struct uffdwp_child *child, unsigned i)
{
	struct uffdwp_view *view = &child->views[i];

	if (atomic_exchange(&view->left, 1))
		return;
	view_detach(view);
	fault_epoch_wait();
	view_child_unstall(view);
	fault_wake_stalled(view->region);
}

/* Regions that are being closed. */
static void watch_leave_closing(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < child->count; i++) {
		if (atomic_load(&child->views[i].left) || !atomic_load(&child->views[i].leaves))
			continue;
		watch_detach(child, i);
		move_drop(&child->cuts[i]);
		atomic_fetch_sub(&child->cuts[i].region->child_users, 1);
	}
}

/* The policy's time is over, or the child's first thread has ended, and others go on: no page can be broken off it. The
 * kernel may have refused a signal that was sent. */
static void watch_enforce(struct uffdwp_child *child)
{
	uint64_t full = atomic_load(&child->in.full_since_ns);
	uint64_t now = kernel_now_ns();

	if (full && now - full > child->wait_ns)
		view_child_end(&child->in, -ETIME);
	if (atomic_exchange(&child->in.ends, 0)) {
		if (!atomic_exchange(&child->in.ends_again, 1) || now - child->ends_last_ns > WATCH_ENDS_NS / 8)
			child->ends_since_ns = now;
		child->ends_last_ns = now;
		if (now - child->ends_since_ns < WATCH_ENDS_NS)
			child_go_on(child);
		else
			view_child_end(&child->in, -ESRCH);
	}
	if (atomic_load(&child->in.error))
		view_child_kill(&child->in);
}

/* Looks after the child; waits so long, or until it has ended. 1: it has, or is another program. Whatever else this
 * thread does, it comes here often, and takes no region's lock before the end: a thread that has it may wait for that
 * end. */
static int watch_turn(struct uffdwp_child *child, int timeout_ms)
{
	if (view_child_is_gone(&child->in))
		return 1;
	if (child->in.pidfd >= 0 && !own_check(child->k, child->in.pidfd, child->in.tag)) {
		if (child->k->poll(child->in.pidfd, POLLIN, timeout_ms) > 0)
			atomic_store(&child->in.gone, 1);
	} else if (timeout_ms) {
		kernel_sleep(child->k, (uint64_t)timeout_ms * 1000000);
	}
	watch_enforce(child);
	watch_leave_closing(child);
	return (int)atomic_load(&child->in.gone);
}

/* Some entries from a page on; inside the epoch, because another cut may come. The next page. */
static uint64_t watch_fill_some(struct cut *cut, uint64_t page)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int stalled = atomic_load(&cut->region->phase) == PHASE_STALL;

	if (!stalled && page < cut->end_page)
		page = move_fill(cut, page, 1);
	epoch_leave(ticket);
	signals_restore(&before);
	if (stalled)
		kernel_sleep(cut->k, WATCH_STALL_NS);
	return page;
}

/* Maps entries again, so that reads do not fault, and gives back the old page tables. */
static void watch_fill(struct uffdwp_child *child, unsigned i)
{
	struct cut *cut = &child->cuts[i];
	uint64_t page = 0;

	for (unsigned turn = 0; cut->old.at; turn++) {
		if (turn % WATCH_FILL_TURNS == 0 && watch_turn(child, 0))
			return;
		if (atomic_load(&child->views[i].left))
			return;
		if (cut->moved && page < cut->end_page)
			page = watch_fill_some(cut, move_skip_holes(cut, page));
		else
			move_drop_some(cut);
	}
}

/* Breaks a page off the child as a write to it would, with its window. Inside the epoch. */
static void watch_break_page(struct uffdwp_region *region, uint64_t page)
{
	struct fault fault = {.region = region, .page = page, .limit = page + 1, .by = FAULT_BY_BARRIER};

	if (ledger_is_protected(ledger_get(&region->ledger, page)))
		(void)fault_resolve(&fault); /* what it could not do is left to the writers */
}

/* Those of pages [first, end) that are in memory; inside the epoch, because another cut may come. */
static void watch_break_some(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int is_idle = atomic_load(&region->phase) == PHASE_IDLE && view_children_have_room(region, end - first);
	uint64_t wanted = is_idle ? mechanism_in_memory(region, first, end) : 0;

	for (; wanted; wanted &= wanted - 1)
		watch_break_page(region, first + (uint64_t)__builtin_ctzll(wanted));
	epoch_leave(ticket);
	signals_restore(&before);
}

/* The rest of an area that is being written densely, before its writers come to it (fault/window.h). 1: there was one.
 */
static int watch_break_area(struct uffdwp_region *region)
{
	uint64_t hot = atomic_exchange(&region->area_hot, 0);
	uint64_t page = (hot - 1) & ~(uint64_t)(WINDOW_AREA_PAGES - 1);
	uint64_t end = hot ? math_min_u64(page + WINDOW_AREA_PAGES, region_pages(region)) : 0;

	for (; hot && page < end; page += WATCH_BREAK_PAGES)
		watch_break_some(region, page, math_min_u64(page + WATCH_BREAK_PAGES, end));
	return hot != 0;
}

static int watch_break_areas(struct uffdwp_child *child)
{
	int found = 0;

	for (unsigned i = 0; i < child->count; i++) {
		if (!atomic_load(&child->views[i].left))
			found |= watch_break_area(child->cuts[i].region);
	}
	return found;
}

/* ---- the end ---- */

/* Pages [first, end) are wanted by none. With the region's lock held, so that nothing is armed meanwhile. */
static void watch_release_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		unsigned turn = 0;

		while (ledger_leave(&region->ledger, page) == LEDGER_CLAIMED) /* its entry is being filled */
			kernel_back_off(region->k, &turn);
	}
	(void)phase_disarm(region, first, end); /* what is refused the fault path disarms */
}

/* With the region's lock held: 1: nothing of it is wanted any more. */
static int watch_may_release(const struct uffdwp_region *region)
{
	return !atomic_load(&region->dead) && !region_is_wanted(region) && !region->caller_armed &&
	       !atomic_load(&region->preserve);
}

/* Piece by piece: writers go on. */
static void watch_release(struct uffdwp_region *region)
{
	uint64_t step = region_piece_bytes(region) >> region->page_shift;
	int goes_on = 1;

	for (uint64_t page = 0; goes_on;) {
		lock_take(&region->lock);
		uint64_t pages = region_pages(region);

		goes_on = watch_may_release(region) && page < pages;
		if (goes_on) {
			watch_release_pages(region, page, math_min_u64(page + step, pages));
		} else if (watch_may_release(region)) {
			atomic_store(&region->moved, 0);
			atomic_store(&region->active, (uint32_t)region_is_active(region));
		}
		lock_give(&region->lock);
		page += step;
		if (goes_on)
			kernel_sleep(region->k,
			             WATCH_PAUSE_NS); /* a thread that waits for the lock gets it: the next cut */
	}
}

/* The kernel's lock of the address space is not fair either. */
static void watch_drop(struct cut *cut)
{
	while (cut->old.at) {
		move_drop_some(cut);
		kernel_sleep(cut->k, WATCH_PAUSE_NS);
	}
}

static const char *watch_reason(int error)
{
	switch (-error) {
	case ENOBUFS:
		return "it has more memory of its own than its bound allows";
	case ETIME:
		return "it has more memory of its own than its bound allows and did not end in time";
	case EBADF:
	case ESTALE:
		return "the parent has closed descriptors that it did not open";
	case EPERM:
	case EACCES:
		return "its parent may not write to its memory any more (it has changed its user or is not dumpable)";
	case ESRCH:
		return "its first thread has ended and others go on";
	default:
		return errno_text(error);
	}
}

/* tools/fork/kills.c reads the second. */
static void watch_say_end(const struct uffdwp_child *child, int error)
{
	unsigned long long pages = atomic_load(&child->in.pages_broken);

	if (!error)
		TRACE("child %d: ended, %llu pages were broken off it", child->in.pid, pages);
	else
		TRACE("child %d: ended by SIGKILL: %s, %llu pages were broken off it", child->in.pid,
		      watch_reason(error), pages);
}

static void watch_end(struct uffdwp_child *child)
{
	int stays[UFFDWP_FORK_REGIONS_MAX] = {0};

	for (unsigned i = 0; i < child->count; i++) { /* first of all: their writers may wait */
		stays[i] = !atomic_load(&child->views[i].left);
		watch_detach(child, i);
	}
	child_close_descriptors(child); /* before a region may be closed: its owner finds all descriptors given back */
	int error = atomic_load(&child->in.error);

	atomic_store(&child->state, error ? UFFDWP_CHILD_STATE_KILLED : UFFDWP_CHILD_STATE_ENDED);
	watch_say_end(child, error);
	for (unsigned i = 0; i < child->count; i++) {
		struct uffdwp_region *region = child->cuts[i].region;

		if (!stays[i])
			continue;
		watch_drop(&child->cuts[i]);
		if (!atomic_load(&child->views[i].leaves)) { /* what is being closed needs no rest */
			watch_release(region);
			atomic_fetch_sub(&region->leftovers, 1);
			move_rest(region);
		}
		atomic_fetch_sub(&region->child_users, 1);
	}
}

void *child_watch(void *argument)
{
	struct uffdwp_child *child = argument;

	atomic_store(&child->runs, 1);
	thread_begin("uffdwp-child");
	if (order_await(&child->order, child->k)) {
		watch_meet(child);
		for (unsigned i = 0; i < child->count; i++)
			watch_fill(child, i);
		while (!watch_turn(child, watch_break_areas(child) ? 0 : WATCH_MS))
			;
		watch_end(child);
	}
	child_put(child);
	return NULL;
}
