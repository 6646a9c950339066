/* SPDX-License-Identifier: MIT */
/*
 * A field: memory of one type under a track, made of a few blocks, each of which is a mapping of its own that may be
 * moved. Stress tests run over each memory and each method to track it; what a kernel refuses is said with its reason.
 *
 * A block lies in one of two slots; the slot that it is not in is reserved. So an address says which page it is or was,
 * also while the block is moved.
 *
 * Threads: a thread that touches a block's memory holds its lock shared; one that moves it, takes a part of it away or
 * makes it read-only has it alone. No thread takes a second lock while it holds one.
 */
#ifndef SUPPORT_TRACK_FIELD_H
#define SUPPORT_TRACK_FIELD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "uffdwp.h"

#define FIELD_BLOCKS_MAX 8
#define FIELD_SLOTS 2

enum field_memory {
	FIELD_ANON,
	FIELD_THP, /* anonymous, of transparent huge pages where the kernel gives them */
	FIELD_MEMFD,
	FIELD_SHARED, /* MAP_SHARED | MAP_ANONYMOUS */
	FIELD_HUGETLB,
	FIELD_FILE, /* of a disk, MAP_SHARED */
	FIELD_REGION_SHMEM,
	FIELD_REGION_HUGETLB,
	FIELD_REGION_ANON,
	FIELD_MEMORIES
};

/* A method to track: what uffdwp_track_start() is asked for, or for regions how the region catches writes. */
struct field_method {
	const char *name;
	uint32_t mechanism;
	uint32_t delivery;
	uint32_t flags; /* UFFDWP_TRACK_* */
};

struct field {
	enum field_memory memory;
	const struct field_method *method;
	struct uffdwp *runtime;
	struct uffdwp_region *region; /* NULL: plain memory */
	struct uffdwp_track *track;
	size_t page_bytes;
	size_t pages;
	size_t blocks;
	size_t block_pages;
	size_t block_bytes;
	uint8_t *slots[FIELD_SLOTS]; /* NULL: blocks are not moved */
	size_t slots_bytes;
	_Atomic(uint8_t *) at[FIELD_BLOCKS_MAX];
	pthread_rwlock_t locks[FIELD_BLOCKS_MAX];
	int fd; /* -1: none */
};

#define FIELD_METHODS 11
extern const struct field_method field_methods[FIELD_METHODS];

const char *field_memory_name(enum field_memory memory);

/* 1: this method has nothing to do with this memory (async and a region): no cell of the table. */
int field_pointless(enum field_memory memory, const struct field_method *method);

/* Opens all but adds nothing. 0; or -errno with the reason, and nothing is open. */
int field_open(struct field *field, enum field_memory memory, const struct field_method *method, char *reason,
               size_t size);

/* Stops the track if it runs, closes and unmaps all. */
void field_close(struct field *field);

/* Adds all of it, block by block. */
int field_add_all(struct field *field, uint32_t flags);

static inline size_t field_block(const struct field *field, size_t page)
{
	return page / field->block_pages;
}

/* Where a page is now; stays there while the lock of its block is held. */
uint8_t *field_address(const struct field *field, size_t page);

/* The page that is or was at an address, or field->pages: none. */
size_t field_page(const struct field *field, uint64_t address);

void field_share(struct field *field, size_t block);
void field_take(struct field *field, size_t block);
void field_leave(struct field *field, size_t block);

/* 1: mechanisms and kernel follow a mapping that is moved. */
int field_may_move(const struct field *field);

/* Moves a block, which the caller has alone, to its other slot. 0, or -errno: it stays. */
int field_move(struct field *field, size_t block);

/* 1: tracked by PAGEMAP_SCAN, so that parts of what was added may be removed. */
int field_is_async(const struct field *field);

/* 1: a system call that writes into tracked memory works. */
int field_system_calls_work(const struct field *field);

int field_is_private(const struct field *field);

#endif
