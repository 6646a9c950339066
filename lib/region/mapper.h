/* SPDX-License-Identifier: MIT */
/*
 * Mappers: the other processes that map the memory of an adopted region. Each has a userfaultfd, and the region at
 * addresses of its own. The ledger is one for all of them: a page is armed in every mapper or in none, so the first
 * write of any of them claims it, and it is unprotected in all before that write lands.
 *
 * Calls that arm, disarm, wake, register, poison and fill entries go to every mapper that lives. What a restore has
 * read is copied once, to the first mapper that has the page: from then on the file has it, and the entries of the
 * others are filled by minor faults, as after any other loss of theirs. Addresses of this process (region_address())
 * are those of a mapping of its own, which is not registered: content is read there, or by the file.
 *
 * A region of private memory (is_private) has one mapper and no file. Its memory cannot be read, protected or discarded
 * from here: empty entries are filled, and that is all. So it has no ledger to speak of (all its pages are FREE), and
 * its addresses here are a reservation without access, by which the registry knows it. The discards of the mapper race
 * with what is being fetched: fault/gate.c keeps the two apart.
 *
 * A mapper that has ended is `gone`: the kernel answers -ESRCH, or its pidfd says so. Its slot is used again by the
 * next one, when no thread can be using it any more; the first keeps its descriptors, by which the region is known to
 * its handler.
 *
 * Threads: any, in the fault path, too; slots are filled and emptied by callers of join with the region's lock held, or
 * before a handler knows the region.
 */
#ifndef UFFDWP_REGION_MAPPER_H
#define UFFDWP_REGION_MAPPER_H

#include "region/region.h"

/* What a caller says of a mapper, checked by mapper_check(). */
struct mapper_plan {
	int uffd;
	int pidfd; /* -1: none */
	int is_registered;
	unsigned count;
	struct uffdwp_mapping mappings[UFFDWP_MAPPINGS_MAX];
};

struct mapper {
	struct uffdwp_region *region;
	int uffd;
	int pidfd; /* -1: none */
	int tag;   /* of both, see kernel/own.h */
	int is_registered;
	unsigned count;
	struct uffdwp_mapping mappings[UFFDWP_MAPPINGS_MAX];
	_Atomic uint32_t gone;
	_Atomic uint32_t used; /* the slot has its descriptors */
};

struct mappers {
	struct mapper at[UFFDWP_MAPPERS_MAX];
	_Atomic unsigned end; /* slots from here on were never used */
};

/* -EINVAL, with text: mappings that are not of whole pages of the region, overlap, or reach beyond it. */
int mapper_check(const struct mapper_plan *plan, uint64_t length_bytes, uint64_t page_bytes, struct text *text);

/* Takes a page that cannot be filled out of the registration of all, and resumes the threads that wait for it. (signal)
 */
void mappers_give_up_page(struct uffdwp_region *region, uint64_t page);

/* A mapper more, its descriptors duplicated and registered, not yet known to a handler. -errno, with text. */
int mapper_open(struct uffdwp_region *region, const struct mapper_plan *plan, struct mapper **out);
/* Nothing of the region is protected there afterwards. */
void mapper_close(struct mapper *mapper);
void mappers_free(struct uffdwp_region *region);

/* In a child of fork(): its copies of the descriptors, which would keep a mapper's threads asleep after its parent. */
void mappers_close_in_child(const struct uffdwp_region *region);

/* Registers it for these modes, and unprotects, which shows whether it can be protected. -errno of the kernel. */
int mapper_try_modes(struct mapper *mapper, uint64_t modes);
/* Unprotects all, and takes the registration away unless that is the mapper's own. */
void mapper_release(struct mapper *mapper);

/* 1: one of them lives. */
int mappers_live(const struct uffdwp_region *region);
unsigned mappers_count(const struct uffdwp_region *region); /* of those that live */
/* The thread that notices it first. (signal) */
void mapper_note_gone(struct mapper *mapper);

/* The page at an address of the mapper; UINT64_MAX: it is none of the region's. (signal) */
uint64_t mapper_page_of(const struct mapper *mapper, uint64_t address);
/* 1: [start, end) of the mapper's addresses touches its mapping of this number: pages [*first, *last) of the region. */
int mapper_overlaps(const struct mapper *mapper, unsigned number, uint64_t start, uint64_t end, uint64_t *first,
                    uint64_t *last);
/* As the calls of kernel_ops, in all mappers that live. -ESRCH: none does. (signal) */
int mappers_writeprotect(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t mode);
int mappers_wake(struct uffdwp_region *region, uint64_t first, uint64_t end);
/* Fills the entry of a page: with what the file has there, with a hole's zeros, with a copy of a page of zeros. 1: it
 * was empty in one of them; -EEXIST: in none; -errno. (signal) */
int mappers_continue(struct uffdwp_region *region, uint64_t page, uint64_t mode);
int mappers_zeropage(struct uffdwp_region *region, uint64_t page, uint64_t mode);
int mappers_copy_zeros(struct uffdwp_region *region, uint64_t page, uint64_t mode);
/* What a restore has read, into the first mapper that has pages [first, end); what none has into the file. As
 * uffd_copy(); -EEXIST also where no mapper has all of them in one piece. */
int mappers_copy(struct uffdwp_region *region, uint64_t first, uint64_t end, const void *from, uint64_t mode);
/* A thread that touches the page gets SIGBUS. As uffd_poison(). (signal) */
int mappers_poison(struct uffdwp_region *region, uint64_t page);
int mappers_register(struct uffdwp_region *region, uint64_t modes);
void mappers_unregister(struct uffdwp_region *region);

#endif
