/* SPDX-License-Identifier: MIT */
/*
 * A kernel of one page, for the probe: a page with a wp bit, an entry that may be empty, content that may be gone, and
 * a list of what this kernel does badly. It counts what is open and mapped: nothing may be left, whichever call is
 * refused. Its addresses lead nowhere: no code may read or write them but by its own calls.
 */
#ifndef SUPPORT_ONEPAGE_H
#define SUPPORT_ONEPAGE_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "uffdwp.h"

#define ONEPAGE_FEATURES ((UFFD_FEATURE_WP_ASYNC << 1) - 1u)
#define ONEPAGE_BYTES 4096u
/* Memory that is mapped and scanned only, to see what a scan says of holes. */
#define ONEPAGE_WIDE_BYTES (1ull << 30)

struct onepage {
	/* What the kernel is like; errors are negative errno, 0: it works. */
	int system_call; /* the kinds of access to a userfaultfd */
	int device;
	int user_mode;
	uint64_t features;
	int may_watch_forks;
	int wp_errors[UFFDWP_MEMORY_COUNT]; /* of registrations for write protection */
	int minor_error;                    /* of registrations for minor faults */
	int copy_wp_error;                  /* UFFDIO_COPY_MODE_WP */
	int continue_wp_error;              /* UFFDIO_CONTINUE_MODE_WP */
	int forgets_wp_in_fills;            /* filled with the wp bit set, it is not there */
	int misses_empty_entries;           /* no missing or minor fault ever comes */
	int ignores_mprotect;
	int loses[UFFDWP_TRIAL_COUNT]; /* the wp bit, by this */
	int ignores_pageout;
	int stays_protected; /* disarming does nothing */
	int huge_free;
	int swap_on;
	int uring;
	int scan;
	uint64_t refused_call; /* this one fails, counted from 1; 0: none */

	/* State. */
	enum uffdwp_memory memory;
	uint64_t granted; /* features */
	uint64_t modes;   /* registered */
	int armed;
	int populated; /* the entry leads to memory */
	int content;   /* there is something to be mapped, in memory or swapped out */
	int read_only;
	int open_files;
	size_t mapped_bytes;
	uint64_t calls;
	const char *text; /* of the /proc file that is open */
};

extern struct onepage onepage;
extern const struct kernel_ops onepage_ops;

/* A kernel that can all. */
void onepage_begin(void);

/* Asserts that nothing is open or mapped. */
void onepage_end(void);

#endif
