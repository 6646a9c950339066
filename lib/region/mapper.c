/* SPDX-License-Identifier: MIT */
/* The calls that go to mappers; see mapper.h. Part of the fault path. */
#include "region/mapper.h"

#include <errno.h>
#include <poll.h>

#include "base/math.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"

/* How often the last unprotecting is tried again while an event of the other process waits to be read. */
#define RELEASE_TRIES 1000

static int mapper_is_live(const struct mapper *mapper)
{
	return atomic_load(&mapper->used) && !atomic_load(&mapper->gone);
}

static unsigned mapper_slots_end(const struct uffdwp_region *region)
{
	return atomic_load_explicit(&region->mappers->end, memory_order_acquire);
}

unsigned mappers_count(const struct uffdwp_region *region)
{
	unsigned count = 0;

	for (unsigned i = 0; i < mapper_slots_end(region); i++)
		count += (unsigned)mapper_is_live(&region->mappers->at[i]);
	return count;
}

int mappers_live(const struct uffdwp_region *region)
{
	return mappers_count(region) > 0;
}

void mapper_note_gone(struct mapper *mapper)
{
	atomic_store(&mapper->gone, 1);
}

/* ---- addresses ---- */

uint64_t mapper_page_of(const struct mapper *mapper, uint64_t address)
{
	for (unsigned i = 0; i < mapper->count; i++) {
		const struct uffdwp_mapping *mapping = &mapper->mappings[i];

		if (address - mapping->address < mapping->length)
			return (mapping->offset + (address - mapping->address)) >> mapper->region->page_shift;
	}
	return UINT64_MAX;
}

int mapper_overlaps(const struct mapper *mapper, unsigned number, uint64_t start, uint64_t end, uint64_t *first,
                    uint64_t *last)
{
	const struct uffdwp_mapping *mapping = &mapper->mappings[number];
	uint64_t limit = math_min_u64(end, mapping->address + mapping->length);
	uint64_t from = start > mapping->address ? start : mapping->address;
	uint64_t bias = mapping->offset - mapping->address;

	if (from >= limit)
		return 0;
	*first = (from + bias) >> mapper->region->page_shift;
	*last = (limit + bias + mapper->region->page_bytes - 1) >> mapper->region->page_shift;
	return 1;
}

/* A mapper that lives and has bytes [start, end) in one piece, and where; NULL: none. */
static struct mapper *mapper_having(struct uffdwp_region *region, uint64_t start, uint64_t end, uint64_t *address)
{
	for (unsigned i = 0; i < mapper_slots_end(region); i++) {
		struct mapper *mapper = &region->mappers->at[i];

		for (unsigned at = 0; at < mapper->count && mapper_is_live(mapper); at++) {
			const struct uffdwp_mapping *mapping = &mapper->mappings[at];
			uint64_t into = start - mapping->offset;

			if (into >= mapping->length || end - start > mapping->length - into)
				continue;
			*address = mapping->address + into;
			return mapper;
		}
	}
	return NULL;
}

/* ---- calls ---- */

/* What one of them needs for a run of bytes that it maps in one piece. */
typedef int mapper_call(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t argument);

static int mapper_writeprotect(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t mode)
{
	return mapper->region->k->uffd_writeprotect(mapper->uffd, address, length, mode);
}

static int mapper_wake(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t ignored)
{
	(void)ignored;
	return mapper->region->k->uffd_wake(mapper->uffd, address, length);
}

static int mapper_register(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t modes)
{
	if (mapper->is_registered && modes == UFFDIO_REGISTER_MODE_WP)
		return 0;
	int error = mapper->region->k->uffd_register(mapper->uffd, address, length, modes);

	/* The kernel's answer where the memory is gone, too. */
	return error == -ENOMEM && mapper->pidfd >= 0 && mapper->region->k->poll(mapper->pidfd, POLLIN, 0) > 0 ? -ESRCH
	                                                                                                       : error;
}

static int mapper_take_out(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t ignored)
{
	int error = mapper->region->k->uffd_unregister(mapper->uffd, address, length);

	(void)ignored;
	(void)mapper_wake(mapper, address, length, 0);
	return error;
}

/* The registration of another: unprotected, which an event that its owner has still to read may put off; where that
 * cannot be, unregistered all the same, for no thread would ever resolve its faults. */
static int mapper_unregister(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t ignored)
{
	const struct kernel_ops *k = mapper->region->k;
	unsigned turn = BACKOFF_YIELD;
	int error = -EAGAIN;

	(void)ignored;
	if (mapper->is_registered && atomic_load(&mapper->region->unbegun)) /* it is left as it was found */
		return mapper_wake(mapper, address, length, 0);
	for (int i = 0; mapper->is_registered && !mapper->region->is_private && i < RELEASE_TRIES && error == -EAGAIN;
	     i++) {
		error = mapper_writeprotect(mapper, address, length, 0);
		if (error == -EAGAIN)
			kernel_back_off(k, &turn);
	}
	if (error)
		return mapper_take_out(mapper, address, length, 0);
	(void)mapper_wake(mapper, address, length, 0);
	return 0;
}

/* Where the mapper has bytes [start, end) of the region. The first error, after all were tried. */
static int mapper_for_bytes(struct mapper *mapper, uint64_t start, uint64_t end, mapper_call *call, uint64_t argument)
{
	int worst = 0;

	for (unsigned i = 0; i < mapper->count; i++) {
		const struct uffdwp_mapping *mapping = &mapper->mappings[i];
		uint64_t from = start > mapping->offset ? start : mapping->offset;
		uint64_t until = math_min_u64(end, mapping->offset + mapping->length);
		int error = from < until
		                    ? call(mapper, mapping->address + (from - mapping->offset), until - from, argument)
		                    : 0;

		worst = worst ? worst : error;
	}
	return worst;
}

/* A mapper that ends meanwhile writes no more, which is no error. */
static int mapper_for_pages(struct uffdwp_region *region, uint64_t first, uint64_t end, mapper_call *call,
                            uint64_t argument)
{
	unsigned shift = region->page_shift;
	int worst = 0;

	for (unsigned i = 0; i < mapper_slots_end(region); i++) {
		struct mapper *mapper = &region->mappers->at[i];
		int error = mapper_is_live(mapper)
		                    ? mapper_for_bytes(mapper, first << shift, end << shift, call, argument)
		                    : 0;

		if (error == -ESRCH)
			mapper_note_gone(mapper);
		else
			worst = worst ? worst : error;
	}
	if (worst || mappers_live(region))
		return worst;
	region_die(region, REGION_ENDED); /* what runs has all that it needs: no thread writes any more */
	return -ESRCH;
}

int mappers_writeprotect(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t mode)
{
	return mapper_for_pages(region, first, end, mapper_writeprotect, mode);
}

int mappers_wake(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	int error = mapper_for_pages(region, first, end, mapper_wake, 0);

	return error == -ESRCH ? 0 : error;
}

/* 1: the entry was filled there. */
static int mapper_continue(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t mode)
{
	int64_t filled = mapper->region->k->uffd_continue(mapper->uffd, address, length, mode);

	return filled > 0 ? 1 : (int)filled;
}

static int mapper_zeropage(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t mode)
{
	int error = mapper->region->k->uffd_zeropage(mapper->uffd, address, length, mode);

	return error ? error : 1;
}

static int mapper_copy_zeros(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t mode)
{
	int error =
	        mapper->region->k->uffd_copy(mapper->uffd, address, atomic_load(&mapper->region->zeros), length, mode);

	return error ? error : 1;
}

static int mapper_fill_all(struct uffdwp_region *region, uint64_t page, mapper_call *call, uint64_t mode)
{
	uint64_t start = page << region->page_shift;
	int answer = -ESRCH;

	for (unsigned i = 0; i < mapper_slots_end(region); i++) {
		struct mapper *mapper = &region->mappers->at[i];
		if (!mapper_is_live(mapper))
			continue;
		int filled = mapper_for_bytes(mapper, start, start + region->page_bytes, call, mode);

		if (filled == -ESRCH)
			mapper_note_gone(mapper);
		else if (filled && answer != 1) /* 0: it does not map the page */
			answer = filled;
	}
	return answer;
}

int mappers_continue(struct uffdwp_region *region, uint64_t page, uint64_t mode)
{
	return mapper_fill_all(region, page, mapper_continue, mode);
}

int mappers_zeropage(struct uffdwp_region *region, uint64_t page, uint64_t mode)
{
	return mapper_fill_all(region, page, mapper_zeropage, mode);
}

int mappers_copy_zeros(struct uffdwp_region *region, uint64_t page, uint64_t mode)
{
	return mapper_fill_all(region, page, mapper_copy_zeros, mode);
}

int mappers_register(struct uffdwp_region *region, uint64_t modes)
{
	return mapper_for_pages(region, 0, region->ledger.count, mapper_register, modes);
}

/* A page that no mapper has: by this process's own mapping. The kernel writes it, so that a file that was cut is an
 * error and no signal. */
static int mapper_write_own(struct uffdwp_region *region, uint64_t page, const void *from)
{
	ssize_t done = region->is_private
	                       ? (ssize_t)region->page_bytes
	                       : region->k->read_self(region_address(region, page), from, region->page_bytes);

	if (done < 0)
		return (int)done;
	return (uint64_t)done == region->page_bytes ? 0 : -EFAULT;
}

/* The other mappers find it in the file, by a minor fault. */
int mappers_copy(struct uffdwp_region *region, uint64_t first, uint64_t end, const void *from, uint64_t mode)
{
	unsigned shift = region->page_shift;
	uint64_t address;
	struct mapper *mapper;

	while ((mapper = mapper_having(region, first << shift, end << shift, &address)) != NULL) {
		int error = region->k->uffd_copy(mapper->uffd, address, from, (end - first) << shift, mode);

		if (error != -ESRCH)
			return error;
		mapper_note_gone(mapper);
	}
	if (!mappers_live(region)) {
		region_die(region, REGION_ENDED);
		return -ESRCH;
	}
	return end - first > 1 ? -EEXIST : mapper_write_own(region, first, from);
}

static int mapper_poison(struct mapper *mapper, uint64_t address, uint64_t length, uint64_t mode)
{
	return mapper->region->k->uffd_poison(mapper->uffd, address, length, mode);
}

int mappers_poison(struct uffdwp_region *region, uint64_t page)
{
	return mapper_for_pages(region, page, page + 1, mapper_poison, 0);
}

void mappers_give_up_page(struct uffdwp_region *region, uint64_t page)
{
	(void)mapper_for_pages(region, page, page + 1, mapper_take_out, 0);
}

void mappers_unregister(struct uffdwp_region *region)
{
	(void)mapper_for_pages(region, 0, region->ledger.count, mapper_unregister, 0);
}

/* What was registered before one was refused is taken back. -EAGAIN is no refusal: a thread there waits until an event
 * of its own is read, by us soon. */
int mapper_try_modes(struct mapper *mapper, uint64_t modes)
{
	unsigned count = mapper->count;
	int error = 0;

	for (mapper->count = 0; mapper->count < count && !error;) {
		const struct uffdwp_mapping *mapping = &mapper->mappings[mapper->count];

		error = mapper_register(mapper, mapping->address, mapping->length, modes);
		if (!error) {
			mapper->count++;
			error = mapper_writeprotect(mapper, mapping->address, mapping->length, 0);
			error = error == -EAGAIN ? 0 : error;
		}
	}
	if (error)
		mapper_release(mapper);
	mapper->count = count;
	return error;
}

void mapper_release(struct mapper *mapper)
{
	(void)mapper_for_bytes(mapper, 0, mapper->region->capacity_bytes, mapper_unregister, 0);
}
