/* SPDX-License-Identifier: MIT */
/* See registry.h. Two tables, one of them published; the other is the writers'. */
#include "region/registry.h"

#include <errno.h>
#include <string.h>

#include "base/forks.h"
#include "base/lock.h"
#include "kernel/own.h"
#include "kernel/process.h"
#include "region/mapper.h"
#include "region/view.h"

struct registry_entry {
	uintptr_t start;
	uintptr_t end;
	struct uffdwp_region *region;
	uint32_t process; /* that added it: a child of fork() has copies of its parent's */
};

struct registry_table {
	size_t count;
	struct registry_entry entries[REGISTRY_MAX];
};

/* A range that a region had. */
struct registry_gone {
	_Atomic uintptr_t start;
	_Atomic uintptr_t end; /* 0: being written */
	_Atomic uint32_t tries;
};

struct epoch fault_epoch;

static struct registry_table tables[2];
static _Atomic(struct registry_table *) published = &tables[0];
static struct registry_gone gone[REGISTRY_GONE];
static _Atomic size_t gone_next; /* written under registry_lock */
static struct lock registry_lock = LOCK_INIT;
static struct lock epoch_lock = LOCK_INIT; /* one waiter at a time */

static _Atomic uint32_t registry_home;     /* the process that the epoch counts in; 0: no thread came yet */
static _Atomic uint32_t registry_adopting; /* the process that is about to be that */

/* A child of fork() has none of the threads that were inside, or had a lock. */
static void registry_adopt(uint32_t process)
{
	if (atomic_load(&registry_home)) { /* else all is as it was compiled */
		epoch_init(&fault_epoch);
		INVARIANT_NOTE(
		        invariant_forget()); /* the thread of the parent that it is a copy of may have been inside */
		lock_init(&registry_lock);
		lock_init(&epoch_lock);
	}
	atomic_store(&registry_home, process);
}

/* What other children of its parent are looked into by. */
static void registry_close_views(const struct uffdwp_region *region)
{
	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		const struct uffdwp_view *view = atomic_load(&region->views[i]);

		if (view && view->child && atomic_load(&view->child->known))
			view_child_close(view->child);
	}
}

/* In a child of fork(), on its only thread: what it holds of its parent's uffds would keep the parent's memory
 * registered after the parent, or a daemon's closefrom(3), has closed them, and no thread could resume its writers. The
 * table may be half made only if a thread was adding to it, and then that is the spare one. */
static void registry_close_in_child(void)
{
	const struct registry_table *table = atomic_load(&published);

	for (size_t i = 0; i < table->count; i++) {
		const struct uffdwp_region *region = table->entries[i].region;

		own_close(&kernel_real, region->uffd, region->tag);
		if (region->mappers)
			mappers_close_in_child(region);
		registry_close_views(region);
	}
}

int registry_watch_forks(void)
{
	forks_add(registry_close_in_child);
	return forks_watch();
}

int registry_init(void)
{
	uint32_t process = process_number();
	sigset_t before;

	if (!process || atomic_load(&registry_home) == process)
		return process != 0;
	signals_block(&before); /* a handler that came here would wait for what it interrupted */
	if (atomic_exchange(&registry_adopting, process) != process)
		registry_adopt(process);
	while (atomic_load(&registry_home) != process)
		kernel_sleep(&kernel_real, 50000);
	signals_restore(&before);
	return 1;
}

void fault_epoch_wait(void)
{
	lock_take(&epoch_lock);
	epoch_wait(&fault_epoch);
	lock_give(&epoch_lock);
}

/* The index of the first entry that ends after `address`. */
static size_t registry_search(const struct registry_table *table, uintptr_t address)
{
	size_t low = 0;
	size_t high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (table->entries[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct uffdwp_region *registry_find(uintptr_t address)
{
	const struct registry_table *table = atomic_load(&published);
	size_t at = registry_search(table, address);

	if (at == table->count || table->entries[at].start > address)
		return NULL;
	return table->entries[at].region;
}

struct uffdwp_region *registry_locate(uintptr_t address)
{
	sigset_t before;

	if (!registry_init())
		return NULL;
	signals_block(&before); /* a signal handler that wrote to a region would wait, inside the epoch */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find(address);

	epoch_leave(ticket);
	signals_restore(&before);
	return region;
}

size_t registry_list(int (*wants)(struct uffdwp_region *region, void *user), void *user, struct uffdwp_region **out,
                     size_t most)
{
	const uint32_t process = process_number();
	size_t count = 0;

	lock_take(&registry_lock);
	const struct registry_table *table = atomic_load(&published);

	for (size_t at = 0; at < table->count; at++) {
		if (table->entries[at].process != process || !wants(table->entries[at].region, user))
			continue;
		if (count < most)
			out[count] = table->entries[at].region;
		count++;
	}
	lock_give(&registry_lock);
	return count;
}

struct uffdwp_region *registry_find_below(uintptr_t address)
{
	const struct registry_table *table = atomic_load(&published);
	size_t at = registry_search(table, address);

	if (at < table->count && table->entries[at].start <= address)
		return table->entries[at].region;
	return at > 0 ? table->entries[at - 1].region : NULL;
}

/* Before the table without the range is published. With registry_lock held. */
static void registry_note_entry_gone(const struct registry_entry *entry)
{
	size_t next = atomic_load(&gone_next);
	struct registry_gone *slot = &gone[next];

	atomic_store(&slot->end, 0);
	atomic_store(&slot->start, entry->start);
	atomic_store(&slot->tries, 0);
	atomic_store(&slot->end, entry->end);
	atomic_store(&gone_next, (next + 1) % REGISTRY_GONE);
}

void registry_note_gone(uintptr_t start, uintptr_t end)
{
	const struct registry_entry entry = {.start = start, .end = end};

	lock_take(&registry_lock);
	registry_note_entry_gone(&entry);
	lock_give(&registry_lock);
}

/* The last range that had the address counts. A slot that is being overwritten meanwhile makes one try more, or one
 * less, of several thousand. */
int registry_try_again(uintptr_t address)
{
	size_t last = atomic_load(&gone_next) + REGISTRY_GONE - 1;

	for (size_t back = 0; back < REGISTRY_GONE; back++) {
		struct registry_gone *slot = &gone[(last - back) % REGISTRY_GONE];

		if (address < atomic_load(&slot->end) && address >= atomic_load(&slot->start))
			return atomic_load(&slot->tries) < REGISTRY_GONE_TRIES &&
			       atomic_fetch_add(&slot->tries, 1) < REGISTRY_GONE_TRIES;
	}
	return 0;
}

static struct registry_table *registry_spare(void)
{
	struct registry_table *current = atomic_load(&published);
	struct registry_table *spare = current == &tables[0] ? &tables[1] : &tables[0];

	spare->count = current->count;
	memcpy(spare->entries, current->entries, current->count * sizeof(current->entries[0]));
	return spare;
}

static void registry_publish(struct registry_table *table)
{
	atomic_store(&published, table);
	fault_epoch_wait();
}

static void registry_table_insert(struct registry_table *table, const struct registry_entry *entry)
{
	size_t at = registry_search(table, entry->start);

	memmove(&table->entries[at + 1], &table->entries[at], (table->count - at) * sizeof(*entry));
	table->entries[at] = *entry;
	table->count++;
}

static int registry_table_take(struct registry_table *table, const struct uffdwp_region *region,
                               struct registry_entry *taken)
{
	for (size_t at = 0; at < table->count; at++) {
		if (table->entries[at].region != region)
			continue;
		*taken = table->entries[at];
		table->count--;
		memmove(&table->entries[at], &table->entries[at + 1], (table->count - at) * sizeof(*taken));
		return 1;
	}
	return 0;
}

/* 1: some region lies there. What a parent had there is gone: else the kernel had not given the place to a new mapping.
 */
static int registry_table_overlaps(struct registry_table *table, const struct registry_entry *entry)
{
	size_t at = registry_search(table, entry->start);

	while (at < table->count && table->entries[at].start < entry->end) {
		struct registry_entry taken;

		if (table->entries[at].process == entry->process)
			return 1;
		registry_table_take(table, table->entries[at].region, &taken);
	}
	return 0;
}

int registry_add(struct uffdwp_region *region, uintptr_t start, uint64_t length)
{
	struct registry_entry entry = {start, start + (uintptr_t)length, region, process_number()};
	int error = 0;

	lock_take(&registry_lock);
	struct registry_table *table = registry_spare();

	if (registry_table_overlaps(table, &entry))
		error = -EBUSY;
	else if (table->count == REGISTRY_MAX)
		error = -ENFILE;
	if (!error) {
		registry_table_insert(table, &entry);
		registry_publish(table);
	}
	lock_give(&registry_lock);
	return error;
}

void registry_remove(struct uffdwp_region *region)
{
	struct registry_entry taken;

	lock_take(&registry_lock);
	struct registry_table *table = registry_spare();

	if (registry_table_take(table, region, &taken)) {
		registry_note_entry_gone(&taken);
		registry_publish(table);
	}
	lock_give(&registry_lock);
}

void registry_move(struct uffdwp_region *region, uintptr_t start)
{
	struct registry_entry entry;

	lock_take(&registry_lock);
	struct registry_table *table = registry_spare();

	if (registry_table_take(table, region, &entry)) {
		registry_note_entry_gone(&entry);
		entry.end = start + (entry.end - entry.start);
		entry.start = start;
		registry_table_insert(table, &entry);
		/* The base first: a reader that finds the new entry computes its page from the new base. One that still
		 * has the old entry cannot be at an address of it: nothing is mapped there any more. */
		atomic_store(&region->base, start);
		registry_publish(table);
	}
	lock_give(&registry_lock);
}
