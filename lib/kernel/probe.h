/* SPDX-License-Identifier: MIT */
/* What this kernel can do for this process, by trial; and which mechanism follows from it. See probe.c. */
#ifndef UFFDWP_KERNEL_PROBE_H
#define UFFDWP_KERNEL_PROBE_H

#include "base/counts.h"
#include "kernel/kernel.h"
#include "uffdwp.h"

/* What was tried of one mechanism; fields as in struct uffdwp_probe_rung. */
struct probe_rung {
	uint32_t works;
	uint32_t thread_works;
	uint32_t inline_works;
	int32_t error;
	char reason[160];
};

/* What was tried of a method to arm; fields as in struct uffdwp_probe_arming. */
struct probe_arming {
	uint32_t works;
	int32_t error;
	char reason[160];
};

/* Fields as in struct uffdwp_probe_memory. */
struct probe_memory {
	int32_t registered;
	uint32_t mechanism;
	uint32_t inline_works;
	uint32_t fills;
	uint64_t page_bytes;
	uint32_t answers[UFFDWP_TRIAL_COUNT];            /* enum uffdwp_answer */
	char reasons[UFFDWP_TRIAL_COUNT][96];            /* why UNTRIED or FAILED; else empty */
	char reason[192];                                /* why this mechanism, or why none */
	struct probe_rung rungs[UFFDWP_MECHANISM_COUNT]; /* by enum uffdwp_mechanism; [AUTO] is empty */
};

/* Fields as in struct uffdwp_probe_system. */
struct probe_report {
	int32_t access[UFFDWP_ACCESS_COUNT]; /* 0: works, else -errno */
	int32_t access_chosen;
	uint64_t features;
	int32_t sysctl_unprivileged;
	int32_t uring;
	int32_t pagemap_scan;
	int32_t pagemap_bit57;
	int32_t scan_holes;
	int32_t seccomp;
	uint32_t swap_on;
	uint64_t huge_pages_free;
	uint64_t max_map_count;
	struct probe_memory memory[UFFDWP_MEMORY_COUNT];
	struct probe_arming moves[UFFDWP_MEMORY_COUNT]; /* UFFDWP_ARMING_MOVE */
	struct probe_arming child;
};

/* Everything, for people. 0, also where nothing works. */
int probe_run(const struct kernel_ops *k, struct probe_report *report);

/* One type of memory, by one access to a userfaultfd (KERNEL_ACCESS_COUNT: there is none, or with user_mode_only none
 * for faults of user code, and only what needs none is tried): all rungs of the ladder, a millisecond or less, huge
 * pages and swapping some more. 0: *out says what was found, also where nothing works (mechanism is
 * UFFDWP_MECHANISM_AUTO then, and reason says why). -EINVAL: no such memory. */
int probe_memory(const struct kernel_ops *k, enum kernel_access access, int user_mode_only, enum uffdwp_memory memory,
                 struct probe_memory *out);

/* Whether memory of one type can be armed by a move of its page tables (UFFDWP_ARMING_MOVE), by an access to a
 * userfaultfd as above. Some milliseconds, so not for an open. 0: *out says what was found; -EINVAL: no such memory. */
int probe_move(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
               struct probe_arming *out);

/* What a report says of one method to arm; nothing for UFFDWP_ARMING_AUTO. */
struct probe_arming probe_arming_of(const struct probe_report *report, enum uffdwp_memory memory,
                                    enum uffdwp_arming arming);

/* Does pagemap show a wp bit that was just set? 1, 0, or -errno. */
int probe_bit57(const struct kernel_ops *k, enum kernel_access access);

/* Does PAGEMAP_SCAN report memory that has no page table, as what was discarded in whole huge pages? 1, 0, or -errno.
 */
int probe_scan_holes(const struct kernel_ops *k, enum kernel_access access);

/* Whether pages of private mappings can be broken off a child of this process, without a byte written. Makes a child,
 * which costs what a fork of the process costs, and reports its end to none. */
void probe_child(const struct kernel_ops *k, struct probe_arming *out);

#endif
