/* SPDX-License-Identifier: MIT */
/* See roster.h. A list for each kind, in the order of the numbers, and one lock that is held for moments. */
#include "kernel/roster.h"

#include <stddef.h>

#include "base/forks.h"
#include "base/lock.h"
#include "kernel/process.h"

static struct lock roster_lock = LOCK_INIT;
static struct roster_entry *roster_first[ROSTER_KINDS];
static struct roster_entry *roster_last[ROSTER_KINDS];
static uint64_t roster_numbers[ROSTER_KINDS];

/* The lists may have been half changed by a thread that is not in the child. */
static void roster_forget_in_child(void)
{
	lock_init(&roster_lock);
	for (int kind = 0; kind < ROSTER_KINDS; kind++) {
		roster_first[kind] = NULL;
		roster_last[kind] = NULL;
	}
}

void roster_begin(void)
{
	forks_add(roster_forget_in_child);
}

int roster_has(const struct roster_entry *entry)
{
	return entry->process && entry->process == process_number();
}

void roster_add(struct roster_entry *entry, enum roster_kind kind, void *thing, const struct roster_entry *of)
{
	lock_take(&roster_lock);
	*entry = (struct roster_entry){.kind = kind,
	                               .process = process_number(),
	                               .number = ++roster_numbers[kind],
	                               .thing = thing,
	                               .of = of,
	                               .before = roster_last[kind]};
	if (entry->before)
		entry->before->next = entry;
	else
		roster_first[kind] = entry;
	roster_last[kind] = entry;
	lock_give(&roster_lock);
}

static unsigned roster_users(struct roster_entry *entry)
{
	lock_take(&roster_lock);
	unsigned users = entry->users;

	lock_give(&roster_lock);
	return users;
}

/* Sleeps with the caller's signals open: a user may take long. */
void roster_hide(const struct kernel_ops *k, struct roster_entry *entry)
{
	if (!roster_has(entry))
		return;
	lock_take(&roster_lock);
	entry->hidden++;
	lock_give(&roster_lock);
	for (;;) {
		uint32_t seen = atomic_load(&entry->changes);

		if (!roster_users(entry))
			return;
		k->futex_wait((const uint32_t *)&entry->changes, seen, 0);
	}
}

void roster_show(struct roster_entry *entry)
{
	if (!roster_has(entry))
		return;
	lock_take(&roster_lock);
	entry->hidden--;
	lock_give(&roster_lock);
}

/* With the lock held. */
static void roster_unlink(struct roster_entry *entry)
{
	if (entry->before)
		entry->before->next = entry->next;
	else
		roster_first[entry->kind] = entry->next;
	if (entry->next)
		entry->next->before = entry->before;
	else
		roster_last[entry->kind] = entry->before;
	entry->process = 0;
}

void roster_remove(const struct kernel_ops *k, struct roster_entry *entry)
{
	if (!roster_has(entry))
		return;
	roster_hide(k, entry);
	lock_take(&roster_lock);
	roster_unlink(entry);
	lock_give(&roster_lock);
}

struct roster_entry *roster_take(enum roster_kind kind, uint64_t from, const struct roster_entry *of)
{
	lock_take(&roster_lock);
	struct roster_entry *entry = roster_first[kind];

	while (entry && (entry->number < from || entry->hidden || (of && entry->of != of)))
		entry = entry->next;
	if (entry)
		entry->users++;
	lock_give(&roster_lock);
	return entry;
}

/* The entry may be gone as soon as the lock is given back: the closer is woken before, and finds the lock held. */
void roster_give(const struct kernel_ops *k, struct roster_entry *entry)
{
	lock_take(&roster_lock);
	entry->users--;
	if (!entry->users && entry->hidden) {
		atomic_fetch_add(&entry->changes, 1);
		k->futex_wake((const uint32_t *)&entry->changes, INT32_MAX);
	}
	lock_give(&roster_lock);
}
