/* SPDX-License-Identifier: MIT */
/*
 * A place to test in: a runtime and one region, for each type of memory, each mechanism and each delivery. Tests that
 * hold for all run as Check loop tests over PLACE_CASES; tests that are dear and have nothing to do with the mechanism
 * over PLACE_AUTO_CASES, with the mechanism that the library chooses here.
 *
 * Which cases there are on this machine is asked once for the program, of probe_run(); what is not available is printed
 * then with its reason, and passed over by the tests without a word. UFFDWP_TEST_DELIVERY=thread leaves inline delivery
 * out, UFFDWP_TEST_MECHANISM=NAME all mechanisms but one.
 *
 * The ledger has a second witness, what the kernel says of a page (witness.h). What it can say depends on the
 * mechanism:
 *
 *   marker     an armed page carries the wp bit, and no other does
 *   rearm      an armed page carries the wp bit or has no entry; no other carries the wp bit
 *   minor      an armed page has no entry (others may have none either)
 *   mprotect   the mapping of an armed page allows no write, that of others does
 *
 * Where the kernel does not show wp bits, it says nothing of marker and rearm; then place_close() writes to every page,
 * and as many must have been stopped as were armed in the ledger.
 */
#ifndef SUPPORT_PLACE_H
#define SUPPORT_PLACE_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/probe.h"
#include "uffdwp.h"

struct kernel_ops;

#define PLACE_MECHANISMS ((int)UFFDWP_MECHANISM_REGION_COUNT - 1)
#define PLACE_CASES ((int)UFFDWP_MEMORY_COUNT * PLACE_MECHANISMS * 2)
#define PLACE_AUTO_CASES ((int)UFFDWP_MEMORY_COUNT * 2)

struct place_case {
	enum uffdwp_memory memory;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
};

struct place {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t page_bytes;
	size_t pages;
	size_t length_bytes;
	enum uffdwp_mechanism mechanism; /* the one in use */
	enum uffdwp_delivery delivery;   /* the one in use */
	int fd;                          /* ours, of attached memory; -1: none */
	int attached;                    /* the mapping is ours to unmap */
};

/* Memory of a type, mapped by the test. */
struct patch {
	uint8_t *base;
	size_t page_bytes;
	size_t length_bytes;
	int fd; /* -1: anonymous */
};

/* Asks what there is; call in main(), after support_begin() and before Check forks anything. */
void place_begin(void);

/* 1, which is said: a filter on this process, as containers have it, refuses userfaultfd(2). */
int place_is_filtered(const char *test);

/* The arguments of place_begin(). */
const struct probe_report *place_report(void);

/* memory x mechanism x delivery, [0, PLACE_CASES) */
struct place_case place_case(int index);
/* memory x delivery, by the mechanism that the library takes, [0, PLACE_AUTO_CASES) */
struct place_case place_auto_case(int index);
/* All but the memory is the library's choice. */
struct place_case place_any(enum uffdwp_memory memory);
/* A mechanism with the delivery that the library chooses for it. */
struct place_case place_by(enum uffdwp_memory memory, enum uffdwp_mechanism mechanism);

/* Deliveries in turn, for tests that want both at once: what is not available for this memory is left out. */
enum uffdwp_delivery place_delivery(enum uffdwp_memory memory, unsigned index);

const char *place_memory_name(enum uffdwp_memory memory);
const char *place_mechanism_name(enum uffdwp_mechanism mechanism);
const char *place_delivery_name(enum uffdwp_delivery delivery);
/* "shmem, rearm, inline" in a buffer that the next call takes again. */
const char *place_case_name(struct place_case which);
size_t place_page_bytes(enum uffdwp_memory memory);

/* 1: this machine can do it. */
int place_possible(struct place_case which);

/* What the case means once AUTO is resolved; of a possible case. */
enum uffdwp_mechanism place_mechanism(struct place_case which);

/* 1: a region of this mechanism follows mremap(2) and munmap(2): the kernel sends events. */
int place_follows(struct place_case which);
/* 1: a system call that meets an armed page waits, as any other write; else it gets EFAULT, and wants a barrier. */
int place_system_calls_wait(struct place_case which);
/* 1: pages are armed in rounds, and increments are available. */
int place_has_increments(struct place_case which);
/* 1: its regions can be armed by a move of their page tables (UFFDWP_ARMING_MOVE). */
int place_moves(struct place_case which);
/* 1: they are, where nothing else is asked for. */
int place_moves_unasked(struct place_case which);
/* 1: uffdwp_fork() makes a child with a region here. Before Check runs. */
int place_has_children(void);
#define PLACE_NO_CHILDREN                                                                                              \
	"a child with a region cannot be made here: no uffd-wp for shared memory, or a process may not trace its "     \
	"children"
/* 1: MADV_DONTNEED takes such memory (hugetlb: Linux 5.18). */
int place_takes_dontneed(enum uffdwp_memory memory);
/* 1: images are restored lazily: by rearm, and by a thread only where the kernel has UFFDIO_POISON. */
int place_restores_lazily(struct place_case which);
/* 1: attached memory of this type needs its file with this mechanism. */
int place_needs_fd(struct place_case which);

struct patch patch_map(enum uffdwp_memory memory, size_t pages);
void patch_unmap(const struct patch *patch);

/* Opens a runtime (k NULL: on the real kernel) with a region of `pages`: created where that can be, attached for
 * anonymous memory. Every failure is an assertion. */
void place_open(struct place *place, struct place_case which, size_t pages);

/* The same, attached to memory of ours whatever its type; `knows_fd`: the library gets the file. */
void place_attach(struct place *place, struct place_case which, size_t pages, int knows_fd);

/* For tests that can take a failure: 0 or the library's error; then nothing is open. */
int place_try(struct place *place, const struct kernel_ops *k, uint32_t open_flags, struct place_case which,
              size_t pages);

/* place_open() with options of the test's own; the case decides on mechanism, delivery and memory. */
void place_open_with(struct place *place, struct place_case which, size_t pages,
                     const struct uffdwp_region_options *options);

void place_close(struct place *place);

/* Writes one byte to each page, so that all are populated. */
void place_touch(const struct place *place);

/* Fills the place with bytes that differ from page to page. */
void place_fill(const struct place *place, uint64_t salt);

/* Pages that the ledger holds for armed. */
uint64_t place_ledger(const struct place *place);
int place_is_armed(const struct place *place, size_t page);

/* 1: the witness can recognize an armed page here. */
int place_witness_knows(const struct place *place);

/* 1: ledger and witness agree on every page, or the witness does not know; else the first difference is printed. */
int place_agrees(const struct place *place);

/* 1: the kernel shows no protection, as after the region was closed. */
int place_released(const struct place *place);

/* The ledger holds so many pages for armed, and the witness agrees. */
void place_expect_armed(const struct place *place, size_t pages);

struct uffdwp_region_stats place_stats(const struct place *place);

/* The region's faults, once they are at least `expected`: a handler may count a fault after the writer has gone on. */
uint64_t place_faults(const struct place *place, uint64_t expected);

/* The descriptor of the region's memory. */
int place_fd(const struct place *place);

#endif
