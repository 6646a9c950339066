/* SPDX-License-Identifier: MIT */
/*
 * See audit.h. The ledger is read before and after the kernel's view: a page that is ARMED both times was ARMED
 * between, because nobody arms while the lock is held. So a page that was seen unprotected is one, although writers go
 * on.
 *
 * What is found is claimed, armed again, and ARMED again: the sweep and others wait for the claim. A snapshot that has
 * not saved it yet fails, because it may have been written.
 */
#include "fault/audit.h"

#include <errno.h>
#include <sched.h>

#include "base/math.h"
#include "fault/events.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "kernel/maps.h"

#define ARM_TRIES 1000

struct audit {
	struct uffdwp_region *region;
	struct uffdwp_audit *found;
	int error;
};

/* Which of pages [first, end) the ledger holds for armed. */
static uint64_t armed_bits(const struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t bits = 0;

	for (uint64_t page = first; page < end; page++)
		bits |= (uint64_t)ledger_is_marked(ledger_get(&region->ledger, page)) << (page - first);
	return bits;
}

/* 1: nothing would stop a write through this entry. */
static int is_open(const struct uffdwp_region *region, uint64_t entry)
{
	int present = (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
	int marked = (entry & PAGEMAP_UFFD_WP) != 0;

	if (!region_owns_empty(region))
		return !marked;
	return present && !marked;
}

/* Arms a page that is ARMED or WATCHED in the ledger. 0; 1: somebody let it go meanwhile; or -errno. */
static int arm_again(struct uffdwp_region *region, uint64_t page)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	enum ledger_state state = ledger_get(&region->ledger, page);
	int error = 1;

	if (ledger_is_marked(state) && ledger_move(&region->ledger, page, state, LEDGER_CLAIMED)) {
		error = region->mechanism->arm(region, page, page + 1);
		ledger_set(&region->ledger, page, state);
		fault_wake_pages(region, page, page + 1);
	}
	epoch_leave(ticket);
	return error;
}

static int arm_again_patiently(struct uffdwp_region *region, uint64_t page)
{
	int error = -EAGAIN;

	for (int i = 0; i < ARM_TRIES && error == -EAGAIN; i++) {
		error = arm_again(region, page);
		if (error == -EAGAIN)
			sched_yield();
	}
	return error;
}

static void found_lost(struct audit *audit, uint64_t page)
{
	struct uffdwp_region *region = audit->region;
	int was_armed = ledger_get(&region->ledger, page) != LEDGER_WATCHED;
	int error = arm_again_patiently(region, page);

	if (error == -ENOENT) { /* so is all else: lose_all() */
		audit->error = error;
		return;
	}
	audit->found->pages_lost++;
	loss_note(region, UFFDWP_LOSS_UNKNOWN, page);
	region_note_written(region, page);
	if (was_armed) /* also when the sweep has just taken it: too late, perhaps */
		fault_fail_running(region, -ENODATA, page);
	if (error < 0 && !audit->error)
		audit->error = error;
	if (error)
		return;
	audit->found->pages_rearmed++;
	fault_count(&region->counters.pages_rearmed, 1);
}

static void audit_entries(struct audit *audit, int pagemap, uint64_t first, uint64_t end)
{
	struct uffdwp_region *region = audit->region;
	uint64_t entries[64];
	uint64_t armed = armed_bits(region, first, end);
	int error = armed ? region_entries(region, pagemap, first, end, entries) : 0;

	if (error) {
		audit->error = error;
		return;
	}
	audit->found->pages_armed += (uint64_t)__builtin_popcountll(armed);
	for (uint64_t page = first; page < end; page++) {
		/* The poison of a page that could not be restored looks like something that is swapped out. */
		if (armed >> (page - first) & 1 && is_open(region, entries[page - first]) &&
		    !fault_is_absent(region, page) && ledger_is_marked(ledger_get(&region->ledger, page)))
			found_lost(audit, page);
	}
}

/* A writable part of the region, for mprotect. */
static void audit_writable(void *user, uint64_t from, uint64_t to)
{
	struct audit *audit = user;
	struct uffdwp_region *region = audit->region;
	uint64_t base = (uint64_t)atomic_load(&region->base);
	uint64_t end = min_u64((to - base) >> region->page_shift, region_pages(region));

	for (uint64_t page = (from - base) >> region->page_shift; page < end; page++) {
		if (ledger_is_marked(ledger_get(&region->ledger, page)))
			found_lost(audit, page);
	}
}

/* The text of the mappings is older than the ledger that it is compared with, but a page is never armed meanwhile. */
static int audit_mappings(struct audit *audit)
{
	struct uffdwp_region *region = audit->region;
	uint64_t base = (uint64_t)atomic_load(&region->base);

	audit->found->pages_armed = ledger_count_marked(&region->ledger, 0, region_pages(region));
	return maps_each_writable(base, base + atomic_load(&region->length_bytes), audit_writable, audit);
}

/* One armed page tells of all, because a registration is given and taken in whole: to protect it once more answers
 * -ENOENT. Without marks nothing asks so harmlessly, but the registration can be given once more. */
static int check_registration(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	if (!(region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP))
		return region_register(region);

	for (uint64_t page = 0; page < pages; page++) {
		if (!ledger_is_marked(ledger_get(&region->ledger, page)))
			continue;
		int error = arm_again_patiently(region, page);

		if (error != 1)
			return error;
	}
	return 0;
}

static void lose_all(struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);

	for (uint64_t page = 0; page < pages; page++) {
		if (ledger_is_marked(ledger_get(&region->ledger, page)))
			loss_note(region, UFFDWP_LOSS_UNKNOWN, page);
	}
	events_die(region, -ESTALE, 0);
}

int audit_run(struct uffdwp_region *region, int pagemap, struct uffdwp_audit *found)
{
	struct audit audit = {.region = region, .found = found};
	uint64_t pages = region_pages(region);

	if (region->uffd < 0)
		audit.error = audit_mappings(&audit);
	for (uint64_t page = 0; region->uffd >= 0 && page < pages && !audit.error; page += 64)
		audit_entries(&audit, pagemap, page, min_u64(page + 64, pages));
	if (region->uffd >= 0 && !audit.error) /* not before: it would mend what is to be found */
		audit.error = check_registration(region);
	if (audit.error != -ENOENT)
		return audit.error;
	lose_all(region);
	return -ESTALE;
}
