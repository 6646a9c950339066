/* SPDX-License-Identifier: MIT */
/* See registry.h. Two tables, one of them published; the other is the writers'. */
#include "region/registry.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/signals.h"

struct registry_entry {
	uintptr_t start;
	uintptr_t end;
	struct uffdwp_region *region;
	pid_t process; /* that added it: a child of fork() has copies of its parent's */
};

struct registry_table {
	size_t count;
	struct registry_entry entries[REGISTRY_MAX];
};

struct epoch fault_epoch;

static struct registry_table tables[2];
static _Atomic(struct registry_table *) published = &tables[0];
static _Atomic uint64_t changed_ns;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t epoch_lock = PTHREAD_MUTEX_INITIALIZER; /* one waiter at a time */
static pthread_once_t registry_once = PTHREAD_ONCE_INIT;

static _Atomic pid_t home; /* the process that the epoch counts in */

static void registry_first(void)
{
	epoch_init(&fault_epoch);
	atomic_store(&home, getpid());
}

/* A child of fork() has none of the threads that were inside, or held a lock. */
void registry_init(void)
{
	pthread_once(&registry_once, registry_first);
	if (atomic_exchange(&home, getpid()) == getpid())
		return;
	epoch_init(&fault_epoch);
	pthread_mutex_init(&registry_lock, NULL);
	pthread_mutex_init(&epoch_lock, NULL);
}

/* A signal handler that wrote to a region would wait, with the lock, for somebody who wants the lock. */
void fault_epoch_wait(void)
{
	sigset_t before;

	signals_block(&before);
	pthread_mutex_lock(&epoch_lock);
	epoch_wait(&fault_epoch);
	pthread_mutex_unlock(&epoch_lock);
	signals_restore(&before);
}

/* The index of the first entry that ends behind `address`. */
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

uint64_t registry_changed_ns(void)
{
	return atomic_load(&changed_ns);
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

static void table_insert(struct registry_table *table, const struct registry_entry *entry)
{
	size_t at = registry_search(table, entry->start);

	memmove(&table->entries[at + 1], &table->entries[at], (table->count - at) * sizeof(*entry));
	table->entries[at] = *entry;
	table->count++;
}

static int table_take(struct registry_table *table, const struct uffdwp_region *region, struct registry_entry *taken)
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

/* 1: some region lies there. What a parent had there is gone: else the kernel had not given the place to somebody new.
 */
static int table_overlaps(struct registry_table *table, const struct registry_entry *entry)
{
	size_t at = registry_search(table, entry->start);

	while (at < table->count && table->entries[at].start < entry->end) {
		struct registry_entry taken;

		if (table->entries[at].process == entry->process)
			return 1;
		table_take(table, table->entries[at].region, &taken);
	}
	return 0;
}

int registry_add(struct uffdwp_region *region, uintptr_t start, uint64_t length)
{
	struct registry_entry entry = {start, start + (uintptr_t)length, region, getpid()};
	int error = 0;

	pthread_mutex_lock(&registry_lock);
	struct registry_table *table = registry_spare();

	if (table_overlaps(table, &entry))
		error = -EBUSY;
	else if (table->count == REGISTRY_MAX)
		error = -ENFILE;
	if (!error) {
		table_insert(table, &entry);
		registry_publish(table);
	}
	pthread_mutex_unlock(&registry_lock);
	return error;
}

void registry_remove(struct uffdwp_region *region)
{
	struct registry_entry taken;

	pthread_mutex_lock(&registry_lock);
	struct registry_table *table = registry_spare();

	if (table_take(table, region, &taken)) {
		atomic_store(&changed_ns, kernel_now_ns());
		registry_publish(table);
	}
	pthread_mutex_unlock(&registry_lock);
}

void registry_move(struct uffdwp_region *region, uintptr_t start)
{
	struct registry_entry entry;

	pthread_mutex_lock(&registry_lock);
	struct registry_table *table = registry_spare();

	if (table_take(table, region, &entry)) {
		entry.end = start + (entry.end - entry.start);
		entry.start = start;
		table_insert(table, &entry);
		/* The base first: a reader that finds the new entry computes its page from the new base. One that still
		 * has the old entry cannot be at an address of it: nothing is mapped there any more. */
		atomic_store(&region->base, start);
		atomic_store(&changed_ns, kernel_now_ns());
		registry_publish(table);
	}
	pthread_mutex_unlock(&registry_lock);
}
