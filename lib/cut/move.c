/* SPDX-License-Identifier: MIT */
/*
 * Arming by a move: in the pause all page tables of the region are moved away at once (region/tables.h), so that every
 * page is armed by having an empty entry: each next access is an event, and the fault path fills the entry with the
 * protection on, or preserves first (INV-REARM). Nothing in the pause grows with the region but the ledger, a byte a
 * page.
 *
 * INV-CUT holds by the move alone: mremap(2) holds the lock that every fault and every fill of an entry needs, from
 * before the first entry is taken away, with the processors' copies of it, until the last one is. A write that is
 * excluded met an empty entry, so it landed after that, and so did whatever depends on it. Faults are stalled all the
 * same, for those that began before: one that was about to fill an entry plainly would do so after the move
 * (INV-EPOCH).
 *
 * Afterwards the owner's thread fills entries with the protection on, so that reads do not wait for the handler, as
 * long as the pool has room; what the sweep has saved it fills plainly. Last it unmaps the old tables in parts.
 *
 * At rest: where the mechanism leaves empty entries to the kernel, a region that is ours is registered for them only
 * while something is armed.
 *
 * Threads: the caller of begin, until the pause is over; then the owner's thread.
 */
#include "cut/move.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/invariant.h"
#include "base/math.h"
#include "fault/runtime.h"
#include "kernel/mapping.h"
#include "kernel/own.h"
#include "kernel/procfs.h"
#include "region/tables.h"

/* Pages that are filled at a time, a word of the content's bits: a writer that meets one waits until all are. */
#define MOVE_FILL_PAGES 64

/* Between two pieces that are taken out of the registration. */
#define MOVE_PAUSE_NS 20000

/* Why the region, as it is, or what is wanted of the cut does not allow it. NULL: it does. */
static const char *move_refusal(const struct cut *cut)
{
	const struct uffdwp_region *region = cut->region;

	if (region->mappers)
		return "its page tables are other processes': ask for UFFDWP_ARMING_ROUNDS";
	if (!region_can_own_empty(region))
		return "accesses to empty entries have to come to the library: open the region by AUTO, "
		       "UFFDWP_MECHANISM_MARKER or UFFDWP_MECHANISM_REARM";
	if (region->fd < 0)
		return "it needs the file of the mapping: attach with its fd";
	if ((cut->keeps || cut->increment || region_is_wanted(region)) &&
	    !(region->fills & UFFDWP_PROBE_FILL_CONTINUE_WP))
		return "to keep the protection of pages for others or for increments, they have to be mapped "
		       "write-protected, which takes UFFDIO_CONTINUE_MODE_WP (Linux 6.4)";
	return atomic_load(&region->lazy) ? "a lazy restore of the region is running, or has failed" : NULL;
}

/* 1: the kernel has refused a move, and would again: the owner's mprotect(2), madvise(2) or the like lasts. */
static int move_is_in_parts(const struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t base = atomic_load(&region->base);
	struct mapping mapping;

	if (!region->immovable)
		return 0;
	int maps = cut->k->open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	if (maps < 0)
		return 1;
	region->immovable = mapping_at(cut->k, maps, base, &mapping) <= 0 || mapping.start > base ||
	                    mapping.end < base + region->capacity_bytes;
	cut->k->close(maps);
	return region->immovable;
}

/* Where it was not asked for by name: what is armed already is not armed anew, and no system call may fail that did
 * not before. */
static const char *move_reluctance(const struct cut *cut)
{
	const struct uffdwp_region *region = cut->region;

	if (!region->syscalls_wait)
		return "system calls that read would fail with EFAULT until pages are mapped again";
	if (!(region->fills & UFFDWP_PROBE_FILL_CONTINUE_WP))
		return "first reads would count as writes (before Linux 6.4)";
	if (region->kept && cut->preserve) /* what has none is to begin at once */
		return "the region is protected since its last cut";
	return move_is_in_parts(cut) ? "the region's mapping is in several parts" : NULL;
}

/* mremap(2) takes mlock(2) along, and the region would be unlocked. */
static int move_check_locks(const struct cut *cut, const char **reason)
{
	uint64_t locked_kib = 0;
	int error = procfs_number(cut->k, "/proc/self/status", "VmLck:", &locked_kib);

	*reason = error ? "whether memory is locked cannot be asked"
	                : "this process has locked memory (mlock), and a region that is would be unlocked; ask for "
	                  "UFFDWP_ARMING_ROUNDS";
	return error || !locked_kib ? error : -EOPNOTSUPP;
}

/*
 * A page that is armed loses content by a discard only, and gains some by a fault only, after which it is armed no more
 * or holds zeros. So what has content and is still armed afterwards had it at the cut. A discard that came between
 * would go unnoticed: but it takes blocks from the file, which can only have gained those of holes that were filled.
 * The file has to be the region's alone, and the kernel must not drop pages of zeros, as it does where swap is on.
 * Increments want to know before the cut what was discarded since the last.
 */
static int move_looks_late(const struct cut *cut)
{
	struct stat st;

	/* Other mappings of the file allocate pages of holes that they read. */
	if (!cut->preserve || region_breaks_pages(cut->region))
		return 0;
	return !cut->increment && cut->region->owned && !cut->swap_on && cut->k->fstat(cut->region->fd, &st) == 0;
}

int move_check(struct cut *cut, int by_name, struct probe_arming *found)
{
	struct uffdwp_region *region = cut->region;
	const char *reason = region->memory == UFFDWP_MEMORY_SHMEM ? move_refusal(cut) : NULL;
	int error = reason ? -EOPNOTSUPP : 0;

	if (!error && !by_name && (reason = move_reluctance(cut)))
		error = -EOPNOTSUPP;
	if (!error) {
		runtime_try_move(region->runtime, region->memory, found);
		if (!found->works)
			return found->error ? found->error : -EOPNOTSUPP;
		error = move_check_locks(cut, &reason);
	}
	if (error)
		(void)snprintf(found->reason, sizeof(found->reason), "%s", reason);
	return error;
}

int move_open(struct cut *cut, struct probe_arming *found)
{
	struct uffdwp_region *region = cut->region;

	cut->old.at = tables_reserve(cut->k, region->capacity_bytes, region->page_bytes, atomic_load(&region->base));
	cut->old.left = cut->old.at ? region->capacity_bytes : 0;
	cut->looks_late = cut->old.at && move_looks_late(cut);
	if (cut->old.at)
		return 0;
	(void)snprintf(found->reason, sizeof(found->reason), "no address space, or too many mappings");
	return -ENOMEM;
}

void move_came(struct cut *cut)
{
	if (cut->comes)
		cut->region->moves_soon--;
	cut->comes = 0;
}

int move_prepare(struct cut *cut)
{
	if (cut->arming != UFFDWP_ARMING_MOVE)
		return 0;
	tables_forget_moves(cut->region); /* that of another cut, whose owner lives on */
	if (!cut->comes)
		cut->region->moves_soon++;
	cut->comes = 1;
	return region_own_empty(cut->region);
}

static uint64_t move_blocks(const struct cut *cut)
{
	struct stat st;

	return cut->k->fstat(cut->region->fd, &st) ? UINT64_MAX : (uint64_t)st.st_blocks;
}

int move_check_content(const struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t filled = atomic_load(&region->holes_filled) - cut->holes_filled; /* before the blocks are looked at */
	uint64_t blocks = move_blocks(cut);

	if (!cut->looks_late || atomic_load(&region->discards) != cut->discards)
		return 0;
	return blocks < cut->blocks + filled * (region->page_bytes / 512) ? -ENODATA : 0;
}

/* While faults are stalled. */
static void move_note_blocks(struct cut *cut)
{
	cut->blocks = move_blocks(cut);
	cut->holes_filled = atomic_load(&cut->region->holes_filled);
	cut->discards = atomic_load(&cut->region->discards);
	if (cut->blocks == UINT64_MAX) /* it could be asked before; now nothing can be known */
		cut->looks_late = 0;
}

int move_arm(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	if (cut->looks_late)
		move_note_blocks(cut);
	if (!cut->looks_late)
		content_look(cut, 0, cut->end_page);
	cut->old.filled = atomic_load(&region->length_bytes);
	uint32_t was_moved = atomic_exchange(&region->moved, 1);
	int error = tables_move(region, &cut->old.at);

	if (error) {
		cut->old.left = cut->old.at ? cut->old.left : 0;
		/* Once is enough: the pause of what falls back is as long as arming takes. */
		region->immovable |= error == -EFAULT || cut->may_fall_back;
		atomic_store(&region->moved, was_moved);
		return error;
	}
	cut->moved = 1;
	cut->move_number = atomic_fetch_add(&region->moves, 1) + 1;
	return 0;
}

const char *move_meaning(const struct cut *cut, int error)
{
	if (cut->arming != UFFDWP_ARMING_MOVE)
		return NULL;
	if (error == -EFAULT)
		return "its page tables cannot be moved: the mapping is in several parts now, by mprotect(2), "
		       "madvise(2) "
		       "or the like; ask for UFFDWP_ARMING_ROUNDS";
	if (error == -ENOMEM)
		return "its page tables cannot be moved: no memory or address space, or too many mappings";
	return NULL;
}

/* After the look: a page that is armed still, or was a moment ago, has not been written since the cut. */
static void move_note_content(struct cut *cut, uint64_t first, uint64_t content)
{
	struct ledger *ledger = &cut->region->ledger;
	uint64_t had = 0;

	for (uint64_t left = content; left; left &= left - 1) {
		unsigned at = (unsigned)__builtin_ctzll(left);
		enum ledger_state state = ledger_get(ledger, first + at);

		had |= (uint64_t)(state == LEDGER_ARMED || state == LEDGER_CLAIMED) << at;
	}
	atomic_fetch_or(&cut->preserve->content[first / 64], had);
}

uint64_t move_fill(struct cut *cut, uint64_t page, int fills)
{
	struct uffdwp_region *region = cut->region;
	uint64_t end = math_min_u64(page + MOVE_FILL_PAGES, cut->end_page);

	uint64_t all = math_low_bits(end - page);

	/* One of several owners fills: their threads would meet in the same entries. */
	fills = fills && cut->move_number == atomic_load(&region->moves) &&
	        (region->fills & UFFDWP_PROBE_FILL_CONTINUE_WP) && cut->filled_end == page;
	if (!fills && !cut->looks_late)
		return cut->end_page;
	uint64_t there = page < cut->data_end ? all : mechanism_in_memory(region, page, end);

	if (cut->looks_late) /* what is being moved in memory is not there, and has content */
		move_note_content(cut, page, there == all ? all : region_data(region, page, end));
	if (!fills)
		return end;
	cut->filled_end = end;
	fault_fill_protected(region, page, end, there);
	return end;
}

uint64_t move_skip_holes(struct cut *cut, uint64_t page)
{
	struct uffdwp_region *region = cut->region;
	uint64_t end = cut->end_page << region->page_shift;

	if (cut->swap_on || page < cut->data_end) /* what is swapped out is not to be read back */
		return page;
	uint64_t data = region_seek(region, page << region->page_shift, end, REGION_SEEK_DATA_HINT);
	uint64_t hole = data < end ? region_seek(region, data, end, REGION_SEEK_HOLE) : end;

	cut->data_end = hole >> region->page_shift;
	cut->filled_end = data >> region->page_shift;
	return cut->filled_end;
}

void move_fill_rest(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;
	uint64_t pages = region_pages(region);

	for (uint64_t page = cut->filled_end; cut->moved && page < pages;) {
		uint64_t end = math_min_u64(page + MOVE_FILL_PAGES, pages);

		fault_fill_protected(region, page, end, mechanism_in_memory(region, page, end));
		page = end;
	}
}

/* With the region's lock held: 1: nothing of it is armed, nor will be without this lock. Memory that its owner may
 * unmap at any time stays registered, because an event that comes while it is not would be missed. */
static int move_may_rest(const struct uffdwp_region *region)
{
	return region->owned && !atomic_load(&region->dead) && !atomic_load(&region->preserve) && !region->moves_soon &&
	       !atomic_load(&region->leftovers) && !region_is_active(region) &&
	       !own_check(region->k, region->uffd, region->tag);
}

/* The kernel goes through all entries: piece by piece, so that no thread waits long for its lock. Where something is to
 * be armed again meanwhile, all of the region is registered again, and stays so. */
void move_rest(struct uffdwp_region *region)
{
	uint64_t offset = 0;
	int goes_on = !region->mechanism->owns_empty && region_owns_empty(region);

	while (goes_on) {
		lock_take(&region->lock);
		goes_on = move_may_rest(region);
		INVARIANT(REARM, !goes_on || !ledger_has(&region->ledger, 0, region_pages(region),
		                                         LEDGER_BITS_PROTECTED | LEDGER_BIT(CLAIMED)));
		goes_on = goes_on && region_disown_piece(region, &offset);
		lock_give(&region->lock);
		if (goes_on)
			kernel_sleep(region->k,
			             MOVE_PAUSE_NS); /* a thread that waits for the lock gets it: the next cut */
	}
}

void move_drop_some(struct cut *cut)
{
	tables_forget_move(cut->region, cut->old.at);
	if (cut->moved && cut->old.left)
		tables_drop(cut->region, cut->old.at, &cut->old.left, cut->old.filled);
	else if (cut->old.at && cut->old.left)
		cut->k->munmap(cut->old.at, cut->old.left);
	if (cut->moved && cut->old.left)
		return;
	cut->moved = 0;
	cut->old.at = NULL;
}

void move_drop(struct cut *cut)
{
	while (cut->old.at)
		move_drop_some(cut);
}

void move_close(struct cut *cut)
{
	if (cut->comes) { /* it did not */
		lock_take(&cut->region->lock);
		move_came(cut);
		lock_give(&cut->region->lock);
	}
	move_rest(cut->region);
	move_drop(cut);
}
