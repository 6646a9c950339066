/* SPDX-License-Identifier: MIT */
/* See tables.h. */
#include "region/tables.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/invariant.h"
#include "base/math.h"
#include "kernel/backoff.h"
#include "kernel/own.h"

/* A table is one page, of entries that are as large as a pointer: a page-table page maps so much, and a page of
 * pointers to such pages as much more. */
static uint64_t tables_span(uint64_t below)
{
	uint64_t entries = (uint64_t)sysconf(_SC_PAGESIZE) / sizeof(uint64_t);

	return below > UINT64_MAX / 2 / entries ? 0 : below * entries;
}

/* A place that lies as `like` does within `span` bytes, a power of two. */
static void *tables_reserve_in(const struct kernel_ops *k, uint64_t length, uint64_t span, uintptr_t like)
{
	int error;

	if (length > SIZE_MAX - span)
		return NULL;
	char *wide =
	        k->mmap_unlocked(length + span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &error);

	if (!wide)
		return NULL;
	size_t head = (size_t)((like - (uintptr_t)wide) & (span - 1));

	if (head)
		k->munmap(wide, head);
	if (span - head)
		k->munmap(wide + head + length, span - head);
	return wide + head;
}

void *tables_reserve(const struct kernel_ops *k, uint64_t length, uint64_t page_bytes, uintptr_t like)
{
	uint64_t table = tables_span(page_bytes);
	uint64_t upper = tables_span(table);
	void *place = upper && length >= upper ? tables_reserve_in(k, length, upper, like) : NULL;

	return place ? place : tables_reserve_in(k, length, table, like);
}

void *tables_place(const struct uffdwp_region *region)
{
	if (region->memory != UFFDWP_MEMORY_SHMEM)
		return NULL;
	return tables_reserve(region->k, region->capacity_bytes, region->page_bytes, 0);
}

/* Partner of `moving`: handler_die(), which has set `dead` before it looks at it. */
static void *tables_move_to(struct uffdwp_region *region, void *target, int *error)
{
	void *base = (void *)atomic_load(&region->base);
	void *moved = NULL;

	atomic_store(&region->moved_to, (uintptr_t)target);
	atomic_store(&region->moving, 1);
	*error = -ESTALE;
	if (!atomic_load(&region->dead))
		moved = region->k->mremap(base, region->capacity_bytes, region->capacity_bytes,
		                          MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP_NOW, target, error);
	atomic_store(&region->moving, 0);
	return moved;
}

int tables_move(struct uffdwp_region *region, void **target)
{
	int error;

	if (!tables_move_to(region, *target, &error)) {
		atomic_store(&region->moved_to, 0);
		if (error != -ESTALE && error != -ENOSYS) /* those come before the kernel has done anything */
			*target = NULL;
		return error;
	}
	region->k->madvise(*target, region->capacity_bytes, MADV_DONTFORK); /* best effort, errors ignored */
	return 0;
}

/* The event was read before mremap(2) returned: in a turn of the handler that is over, or under way. */
static void tables_forget(struct uffdwp_region *region, uintptr_t to)
{
	uint32_t turns = atomic_load(&region->events_turns);
	unsigned turn = 0;

	while (atomic_load(&region->events_in_hand) && atomic_load(&region->events_turns) == turns &&
	       !atomic_load(&region->dead))
		kernel_back_off(region->k, &turn);
	atomic_compare_exchange_strong(&region->moved_to, &to, 0); /* it may be another one's by now */
}

void tables_forget_move(struct uffdwp_region *region, const void *target)
{
	uintptr_t to = (uintptr_t)target;

	if (to && atomic_load(&region->moved_to) == to)
		tables_forget(region, to);
}

void tables_forget_moves(struct uffdwp_region *region)
{
	uintptr_t to = atomic_load(&region->moved_to);

	INVARIANT(LOCK, invariant_holds(&region->lock));
	if (to)
		tables_forget(region, to);
}

/* The target is registered as the region is: taken out first, or each unmapping would wait for its event to be read,
 * and no fault of the region could be resolved meanwhile. */
void tables_drop(struct uffdwp_region *region, void *target, uint64_t *length, uint64_t filled)
{
	uint64_t piece = *length > filled ? *length - filled : math_min_u64(*length, region_piece_bytes(region));
	unsigned char *start = (unsigned char *)target + *length - piece;

	if (region->uffd >= 0 && !own_check(region->k, region->uffd, region->tag))
		region->k->uffd_unregister(region->uffd, (uintptr_t)start, piece);
	region->k->munmap(start, piece);
	*length -= piece;
}
