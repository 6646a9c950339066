/* SPDX-License-Identifier: MIT */
/*
 * See audit.h. The ledger is read before and after the kernel's view: a page that is ARMED both times was ARMED
 * between, because no thread arms while the lock is held. So a page that was seen unprotected is one, although writers
 * go on.
 *
 * What is found is claimed, armed again, and ARMED again: the sweep and others wait for the claim. A snapshot that has
 * not saved it yet fails, because it may have been written.
 */
#include "fault/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>

#include "base/errno_name.h"
#include "base/invariant.h"
#include "base/math.h"
#include "base/signals.h"
#include "fault/events.h"
#include "fault/fault.h"
#include "fault/runtime.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "region/lazy.h"
#include "region/mapper.h"

#define ARM_TRIES 1000

struct audit {
	struct uffdwp_region *region;
	struct uffdwp_audit *found;
	const struct uffdwp_mapping *mapping; /* of a mapper, whose pagemap is read; NULL: this process's */
	int error;
};

/* Which of pages [first, end) are armed in the ledger. */
static uint64_t audit_armed_bits(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t bits = 0;

	for (uint64_t page = first; page < end; page++)
		bits |= (uint64_t)ledger_is_protected(ledger_get(&region->ledger, page)) << (page - first);
	return bits;
}

/* For INV-OPEN. Pages in `open` were FREE or OPEN before the entries were read; those that still are carry no wp bit.
 */
static inline int audit_open_are_bare(const struct uffdwp_region *region, uint64_t open, uint64_t first, uint64_t end,
                                      const uint64_t *entries)
{
	for (uint64_t page = first; page < end; page++) {
		if (open >> (page - first) & 1 && entries[page - first] & PAGEMAP_UFFD_WP &&
		    ledger_has(&region->ledger, page, page + 1, LEDGER_BIT(FREE) | LEDGER_BIT(OPEN)))
			return 0;
	}
	return 1;
}

/* For an assertion only. */
__attribute__((unused)) static uint64_t audit_open_bits(const struct uffdwp_region *region, uint64_t first,
                                                        uint64_t end)
{
	uint64_t bits = 0;

	for (uint64_t page = first; page < end; page++)
		bits |= (uint64_t)ledger_has(&region->ledger, page, page + 1, LEDGER_BIT(FREE) | LEDGER_BIT(OPEN))
		        << (page - first);
	return bits;
}

/* 1: nothing would stop a write through this entry. */
static int audit_is_open(const struct uffdwp_region *region, uint64_t entry)
{
	int present = (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
	int wp = (entry & PAGEMAP_UFFD_WP) != 0;

	if (!region_owns_empty(region))
		return !wp;
	return present && !wp;
}

/* Arms a page that is ARMED or WATCHED in the ledger. 0; 1: it was unprotected meanwhile; or -errno. A signal handler
 * that wrote to the region inside of the epoch would wait for itself. */
static int audit_arm_again(struct uffdwp_region *region, uint64_t page)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	enum ledger_state state = ledger_get(&region->ledger, page);
	int error = 1;

	if (ledger_is_protected(state) && ledger_move(&region->ledger, page, state, LEDGER_CLAIMED)) {
		error = region->mechanism->arm(region, page, page + 1);
		ledger_set(&region->ledger, page, state);
		fault_wake_pages(region, page, page + 1);
	}
	epoch_leave(ticket);
	signals_restore(&before);
	return error;
}

static int audit_arm_again_with_retry(struct uffdwp_region *region, uint64_t page)
{
	int error = -EAGAIN;
	unsigned turn = BACKOFF_YIELD;

	for (int i = 0; i < ARM_TRIES && error == -EAGAIN; i++) {
		error = audit_arm_again(region, page);
		if (error == -EAGAIN)
			kernel_back_off(region->k, &turn);
	}
	return error;
}

static void audit_fail_safely(struct uffdwp_region *region, uint64_t page)
{
	sigset_t before;

	signals_block(&before);
	fault_fail_running(region, -ENODATA, page);
	signals_restore(&before);
}

static void audit_found_lost(struct audit *audit, uint64_t page)
{
	struct uffdwp_region *region = audit->region;
	int was_armed = !ledger_has(&region->ledger, page, page + 1, LEDGER_BIT(WATCHED) | LEDGER_BIT(STORED));
	int error = audit_arm_again_with_retry(region, page);

	if (error == -ENOENT) { /* so is all else: audit_lose_all() */
		audit->error = error;
		return;
	}
	audit->found->pages_lost++;
	region_note_bare(region);
	loss_note(region, UFFDWP_LOSS_UNKNOWN, page);
	region_note_written(region, page);
	if (was_armed) /* also when the sweep has just taken it: too late, perhaps */
		audit_fail_safely(region, page);
	if (error < 0 && !audit->error)
		audit->error = error;
	if (error)
		return;
	audit->found->pages_rearmed++;
	fault_count(&region->counters.pages_rearmed, 1);
}

static int audit_read(const struct audit *audit, int pagemap, uint64_t first, uint64_t end, uint64_t *entries)
{
	struct uffdwp_region *region = audit->region;

	if (!audit->mapping)
		return region_entries(region, pagemap, first, end, entries);
	uint64_t into = (first << region->page_shift) - audit->mapping->offset;

	return region_entries_at(region, pagemap, audit->mapping->address + into, (size_t)(end - first), entries);
}

static void audit_entries(struct audit *audit, int pagemap, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = audit->region;
	uint64_t entries[64];
	uint64_t armed = audit_armed_bits(region, first, end);
	uint64_t open = 0;

	INVARIANT_NOTE(open = audit_open_bits(region, first, end));
	int error = armed ? audit_read(audit, pagemap, first, end, entries) : 0;

	if (error) {
		audit->error = error;
		return;
	}
	INVARIANT(OPEN, !armed || audit_open_are_bare(region, open, first, end, entries));
	(void)open;
	audit->found->pages_armed += (uint64_t)__builtin_popcountll(armed);
	for (uint64_t page = first; page < end; page++) {
		/* The poison of a page that could not be restored looks like something that is swapped out. */
		if (armed >> (page - first) & 1 && audit_is_open(region, entries[page - first]) &&
		    !region_is_absent(region, page) && ledger_is_protected(ledger_get(&region->ledger, page)))
			audit_found_lost(audit, page);
	}
}

/* A writable part of the region, for mprotect. */
static void audit_writable(void *user, uint64_t from, uint64_t to)
{
	struct audit *audit = user;
	struct uffdwp_region *region = audit->region;
	uint64_t base = (uint64_t)atomic_load(&region->base);
	uint64_t end = math_min_u64((to - base) >> region->page_shift, region_pages(region));

	for (uint64_t page = (from - base) >> region->page_shift; page < end; page++) {
		if (ledger_is_protected(ledger_get(&region->ledger, page)))
			audit_found_lost(audit, page);
	}
}

/* The text of the mappings is older than the ledger that it is compared with, but a page is never armed meanwhile. */
static int audit_mappings(struct audit *audit)
{
	struct uffdwp_region *region = audit->region;
	uint64_t base = (uint64_t)atomic_load(&region->base);

	audit->found->pages_armed = ledger_count_protected(&region->ledger, 0, region_pages(region));
	return maps_each_writable(base, base + atomic_load(&region->length_bytes), audit_writable, audit);
}

/* One armed page shows the state of all, because a registration is given and taken in whole: to protect it once more
 * answers -ENOENT. Without wp bits no call asks so harmlessly, but the registration can be given once more. */
static int audit_check_registration(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	if (!(region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP))
		return region_register(region);

	for (uint64_t page = 0; page < pages; page++) {
		if (!ledger_is_protected(ledger_get(&region->ledger, page)))
			continue;
		int error = audit_arm_again_with_retry(region, page);

		if (error != 1)
			return error;
	}
	return 0;
}

static void audit_lose_all(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	for (uint64_t page = 0; page < pages; page++) {
		if (ledger_is_protected(ledger_get(&region->ledger, page)))
			loss_note(region, UFFDWP_LOSS_UNKNOWN, page);
	}
	events_lose_sight(region, REGION_UNREGISTERED, -ESTALE);
}

int audit_run(struct uffdwp_region *region, int pagemap, struct uffdwp_audit *found)
{
	struct audit audit = {.region = region, .found = found};
	INVARIANT(LOCK, invariant_holds(&region->lock));
	uint64_t pages = region_pages(region);

	if (region->uffd < 0)
		audit.error = audit_mappings(&audit);
	for (uint64_t page = 0; region->uffd >= 0 && page < pages && !audit.error; page += 64)
		audit_entries(&audit, pagemap, page, math_min_u64(page + 64, pages));
	if (region->uffd >= 0 && !audit.error) /* not before: it would mend what is to be found */
		audit.error = audit_check_registration(region);
	if (audit.error != -ENOENT)
		return audit.error;
	audit_lose_all(region);
	return -ESTALE;
}

/* wp bits are looked for in the pagemap, which an old kernel leaves out: nothing can be known then. An open pagemap, or
 * -errno with text. */
static int audit_witness(struct uffdwp_region *region)
{
	int has_bits = region->uffd >= 0 && region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP;
	int shows = has_bits ? runtime_shows_wp_bits(region->runtime) : 1;

	if (shows < 0)
		return text_fail(region->text, shows, "whether the pagemap shows wp bits could not be tried: %s",
		                 errno_text(shows));
	if (!shows)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "this kernel's pagemap does not show uffd-wp bits (Linux 5.13 does): an audit "
		                 "cannot know");
	int pagemap = region->mappers ? 0 : runtime_pagemap(region->runtime); /* of mappers: one after the other */

	return pagemap < 0 ? text_fail(region->text, pagemap, "/proc/self/pagemap cannot be opened: %s",
	                               errno_text(pagemap))
	                   : pagemap;
}

/* ---- of other processes ---- */

/* The pagemap of a mapper, by its pidfd; -ESRCH: it has ended; -errno, with text. */
static int audit_open_mapper(const struct mapper *mapper)
{
	const struct uffdwp_region *region = mapper->region;
	uint64_t pid = 0;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", mapper->pidfd);
	if (mapper->pidfd < 0 || procfs_number(region->k, path, "Pid:", &pid) || !pid)
		return region->k->poll(mapper->pidfd, POLLIN, 0) > 0
		               ? -ESRCH
		               : text_fail(region->text, -EOPNOTSUPP,
		                           "a process that maps the region was adopted without a pidfd, or is in "
		                           "another PID namespace: its page tables are not found");
	(void)snprintf(path, sizeof(path), "/proc/%llu/pagemap", (unsigned long long)pid);
	int pagemap = region->k->open(path, O_RDONLY | O_CLOEXEC, 0);
	int has_ended = region->k->poll(mapper->pidfd, POLLIN, 0) > 0; /* the number may be another's since */

	if (has_ended && pagemap >= 0)
		region->k->close(pagemap);
	if (has_ended)
		return -ESRCH;
	if (pagemap == -EPERM || pagemap == -EACCES)
		return text_fail(region->text, -EACCES,
		                 "%s may not be read: an audit needs the right to trace the process (the same user, or "
		                 "CAP_SYS_PTRACE)",
		                 path);
	return pagemap < 0 ? text_fail(region->text, pagemap, "%s: %s", path, errno_text(pagemap)) : pagemap;
}

static int audit_mapper(struct audit *audit, const struct mapper *mapper)
{
	unsigned shift = audit->region->page_shift;
	int pagemap = audit_open_mapper(mapper);

	if (pagemap < 0)
		return pagemap == -ESRCH ? 0 : pagemap;
	for (unsigned i = 0; i < mapper->count && !audit->error; i++) {
		uint64_t end = (mapper->mappings[i].offset + mapper->mappings[i].length) >> shift;

		audit->mapping = &mapper->mappings[i];
		for (uint64_t page = audit->mapping->offset >> shift; page < end && !audit->error; page += 64)
			audit_entries(audit, pagemap, page, math_min_u64(page + 64, end));
	}
	audit->region->k->close(pagemap);
	return 0;
}

/* As audit_run(). What is lost in one of them is armed again in all. A text that says why is formed already. */
static int audit_run_mappers(struct uffdwp_region *region, struct uffdwp_audit *found, int *has_text)
{
	struct audit audit = {.region = region, .found = found};
	int refused = 0;

	for (unsigned i = 0; i < atomic_load(&region->mappers->end) && !audit.error && !refused; i++) {
		const struct mapper *mapper = &region->mappers->at[i];

		if (atomic_load(&mapper->used) && !atomic_load(&mapper->gone))
			refused = audit_mapper(&audit, mapper);
	}
	*has_text = refused != 0;
	found->pages_armed = ledger_count_protected(&region->ledger, 0, region_pages(region));
	if (!audit.error && !refused)
		audit.error = audit_check_registration(region);
	if (audit.error != -ENOENT)
		return refused ? refused : audit.error;
	audit_lose_all(region);
	return -ESTALE;
}

int audit_region(struct uffdwp_region *region, struct uffdwp_audit *found)
{
	int has_text = 0;
	int pagemap = audit_witness(region);
	sigset_t before;

	if (pagemap < 0)
		return pagemap;
	lock_take(&region->lock);
	signals_block(&before); /* a signal handler that wrote to the region would wait, inside the epoch */
	int error = region->mappers ? audit_run_mappers(region, found, &has_text) : audit_run(region, pagemap, found);

	signals_restore(&before);
	lock_give(&region->lock);
	if (!region->mappers)
		region->k->close(pagemap);
	losses_report(region);
	if (error && !has_text)
		return text_fail(region->text, error, "the audit failed: %s",
		                 error == -ESTALE ? "the registration was taken away, the region is dead"
		                                  : errno_text(error));
	return error;
}
