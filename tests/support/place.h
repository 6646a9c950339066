/* SPDX-License-Identifier: MIT */
/*
 * A place to test in: a runtime and one region, for each type of memory and each delivery. Tests that hold for all run
 * as Check loop tests over PLACE_CASES; a case that this machine cannot do is printed once and passed over.
 */
#ifndef SUPPORT_PLACE_H
#define SUPPORT_PLACE_H

#include <stddef.h>
#include <stdint.h>

#include "uffdwp.h"

struct kernel_ops;

#define PLACE_CASES ((int)UFFDWP_MEMORY_COUNT * 2)

struct place_case {
	enum uffdwp_memory memory;
	enum uffdwp_delivery delivery;
};

struct place {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t page_bytes;
	size_t pages;
	size_t length_bytes;
	int fd;       /* ours, of attached memory; -1: none */
	int attached; /* the mapping is ours to unmap */
};

/* Memory of a type, mapped by the test. */
struct patch {
	uint8_t *base;
	size_t page_bytes;
	size_t length_bytes;
	int fd; /* -1: anonymous */
};

struct place_case place_case(int index);
/* Deliveries in turn, for tests that want both at once: thread only, where inline is left out. */
enum uffdwp_delivery place_delivery(unsigned index);

const char *place_memory_name(enum uffdwp_memory memory);
size_t place_page_bytes(enum uffdwp_memory memory);

/* 1: this machine can do it; else the reason is printed for the test. */
int place_possible(const char *test, struct place_case which);

struct patch patch_map(enum uffdwp_memory memory, size_t pages);
void patch_unmap(const struct patch *patch);

/* Opens a runtime (k NULL: on the real kernel) with a region of `pages`: created where that can be, attached for
 * anonymous memory. Every failure is an assertion. */
void place_open(struct place *place, struct place_case which, size_t pages);

/* The same, attached to memory of ours whatever its type; `knows_fd`: the library is told the file. */
void place_attach(struct place *place, struct place_case which, size_t pages, int knows_fd);

/* For tests that can take a failure: 0 or the library's error; then nothing is open. */
int place_try(struct place *place, const struct kernel_ops *k, uint32_t open_flags, struct place_case which,
              size_t pages);

void place_close(struct place *place);

/* Writes one byte to each page, so that all are populated. */
void place_touch(const struct place *place);

/* Fills the place with bytes that differ from page to page. */
void place_fill(const struct place *place, uint64_t salt);

uint64_t place_ledger(const struct place *place);
size_t place_witness(const struct place *place);
struct uffdwp_region_stats place_stats(const struct place *place);

/* The region's faults, once they are at least `expected`: a handler may count a fault after the writer has gone on. */
uint64_t place_faults(const struct place *place, uint64_t expected);

#endif
