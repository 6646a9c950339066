/* SPDX-License-Identifier: MIT */
/*
 * A contender: some method to notice the first write to a page. All contenders of one measurement write the same number
 * of pages in the same order, a window each in turn, so that whatever disturbs the machine disturbs all of them alike.
 *
 * Life: open (by the contender's own function), then for each round arm once and, before each window, enter (which puts
 * its signal handler in place: contenders that use the same signal cannot all have theirs installed at once); close.
 */
#ifndef UFFDWP_BENCH_CONTENDER_H
#define UFFDWP_BENCH_CONTENDER_H

#include "area.h"
#include "bare.h"
#include "histogram.h"

enum contender_order { ORDER_SEQUENTIAL, ORDER_RANDOM, ORDER_COUNT };

struct contender {
	const char *name; /* in figures */
	void *self;
	struct area area;
	void (*arm)(void *self);
	void (*enter)(void *self);
	void (*close)(void *self);
	struct histogram hist[ORDER_COUNT];
};

/* What happens to all pages after they were armed and before they are written. */
enum library_loss { LOSS_NONE, LOSS_ZAP, LOSS_HOLE };

/* How the library is opened. */
struct library_setup {
	enum uffdwp_memory memory;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
	enum library_loss loss;
	uint32_t handler_threads;
	int cpu; /* of the handlers, or BENCH_ANY_CPU */
	size_t length_bytes;
};

struct library {
	const char *name; /* of the contender */
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct area area;
	enum library_loss loss;
	int fd;                 /* of the region's memory; the library's; -1: none */
	uint64_t faults_before; /* what filling the memory took */
	uint64_t lost_before;
	struct sigaction bus; /* what handles SIGBUS and SIGSEGV in its turn */
	struct sigaction segment;
};

/* Opens a runtime with handlers where the setup wants them; shared by all questions. */
struct uffdwp *library_runtime(uint32_t handler_threads, const char *cpus);

/* Creates a region (attaches one of anonymous memory), with its pages touched. */
void library_region(struct uffdwp *runtime, const struct library_setup *setup, struct uffdwp_region **region,
                    struct area *area);

/* Whether a mechanism works here for this memory by this delivery; NULL, or why not. Cached. */
const char *library_refuses_move(enum uffdwp_memory memory);
const char *library_refuses(enum uffdwp_memory memory, enum uffdwp_mechanism mechanism, enum uffdwp_delivery delivery);

/* What the library takes by itself; bench_skip() where nothing works. */
enum uffdwp_mechanism library_best(enum uffdwp_memory memory);

const char *library_mechanism_name(enum uffdwp_mechanism mechanism);

/* "marker", "rearm", "minor", "mprotect"; bench_die() for anything else. */
enum uffdwp_mechanism library_mechanism_of(const char *name);

/* Ends the program unless `faults` write faults were resolved, each of a page that was lost where the setup loses them:
 * else the times are not those of such faults. */
void library_expect_faults(const struct library *library, uint64_t faults);

void contender_library(struct contender *contender, const char *name, struct library *library,
                       const struct library_setup *setup);
/* `bare` has its kind set. */
void contender_bare(struct contender *contender, const char *name, struct bare *bare,
                    const struct library_setup *setup);
/* One at a time. */
void contender_mprotect(struct contender *contender, const char *name, const struct library_setup *setup);
void contender_fork(struct contender *contender, size_t length_bytes);
void contender_unarmed(struct contender *contender, size_t length_bytes);

/* Rounds over all contenders, whose areas have the same number of pages; half of the rounds in each order. */
void contender_measure(struct contender *contenders, size_t count, unsigned rounds);

/* All page numbers in a random order; the seed is not 0. */
void contender_shuffle(uint32_t *order, size_t pages, uint64_t seed);

/* Both orders together. */
void contender_merged(const struct contender *contender, struct histogram *histogram);

#endif
