/* SPDX-License-Identifier: MIT */
/*
 * The probe: trials first, then a choice.
 *
 * Idea: a mechanism is a rung of a ladder. Each rung has one function that looks at the answers of the trials and
 * either accepts or says what it misses; the first rung that accepts is taken. Nothing here knows a kernel version.
 *
 * Words: trial, bench: see trial.c. Rung: a mechanism and its needs.
 *
 * INV-TRIED: a mechanism is chosen for a type of memory only after a page of this type was armed here, was written to,
 * and the write was stopped.
 *
 * Threads: any. Never: fail because something is missing. What is missing is the answer.
 */
#include "kernel/probe.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>

#include "kernel/abi.h"
#include "kernel/procfs.h"
#include "kernel/trial.h"

_Static_assert((int)KERNEL_ACCESS_SYSCALL == (int)UFFDWP_ACCESS_SYSCALL &&
                       (int)KERNEL_ACCESS_DEVICE == (int)UFFDWP_ACCESS_DEVICE &&
                       (int)KERNEL_ACCESS_USER_MODE == (int)UFFDWP_ACCESS_USER_MODE &&
                       (int)KERNEL_ACCESS_COUNT == (int)UFFDWP_ACCESS_COUNT,
               "the report counts the ways as the kernel layer does");

/* What a trial does to a page, as a sentence has it. */
static const char *const trial_words[UFFDWP_TRIAL_COUNT] = {
        [UFFDWP_TRIAL_POPULATED] = "a plain write", [UFFDWP_TRIAL_UNPOPULATED] = "never having been touched",
        [UFFDWP_TRIAL_DONTNEED] = "MADV_DONTNEED",  [UFFDWP_TRIAL_PUNCH] = "a hole punch",
        [UFFDWP_TRIAL_SWAP] = "being swapped out",  [UFFDWP_TRIAL_MREMAP] = "mremap",
};

static const char *const memory_words[UFFDWP_MEMORY_COUNT] = {
        [UFFDWP_MEMORY_SHMEM] = "shared memory",
        [UFFDWP_MEMORY_HUGETLB] = "huge pages",
        [UFFDWP_MEMORY_ANON] = "private anonymous memory",
};

/* What a mechanism may ask of a trial. */
enum need { NEED_NOTHING, NEED_KEPT, NEED_KEPT_OR_UNTRIED };

struct rung {
	enum uffdwp_mechanism mechanism;
	const char *praise[UFFDWP_MEMORY_COUNT]; /* the reason when it is taken */
	enum need needs[UFFDWP_MEMORY_COUNT][UFFDWP_TRIAL_COUNT];
};

/* Anonymous memory loses its mark together with its content by MADV_DONTNEED, and an event tells. */
static const struct rung ladder[] = {
        {
                .mechanism = UFFDWP_MECHANISM_MARKER,
                .praise =
                        {
                                [UFFDWP_MEMORY_SHMEM] = "an armed page stayed armed in every trial",
                                [UFFDWP_MEMORY_HUGETLB] = "an armed page stayed armed in every trial",
                                [UFFDWP_MEMORY_ANON] = "an armed page stayed armed as long as it had content; what "
                                                       "MADV_DONTNEED throws away, an event tells of",
                        },
                .needs =
                        {
                                [UFFDWP_MEMORY_SHMEM] =
                                        {
                                                [UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_DONTNEED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_PUNCH] = NEED_KEPT,
                                                [UFFDWP_TRIAL_SWAP] = NEED_KEPT_OR_UNTRIED,
                                        },
                                [UFFDWP_MEMORY_HUGETLB] =
                                        {
                                                [UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_DONTNEED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_PUNCH] = NEED_KEPT,
                                        },
                                [UFFDWP_MEMORY_ANON] =
                                        {
                                                [UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
                                                [UFFDWP_TRIAL_SWAP] = NEED_KEPT_OR_UNTRIED,
                                        },
                        },
        },
};
#define RUNGS (sizeof ladder / sizeof ladder[0])

static int need_met(enum need need, uint32_t answer)
{
	if (need == NEED_NOTHING || answer == UFFDWP_ANSWER_KEPT)
		return 1;
	return need == NEED_KEPT_OR_UNTRIED && answer == UFFDWP_ANSWER_UNTRIED;
}

/* The first trial whose answer a rung cannot live with, or UFFDWP_TRIAL_COUNT. */
static unsigned first_unmet(const struct rung *rung, enum uffdwp_memory memory, const struct uffdwp_probe_memory *found)
{
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		if (!need_met(rung->needs[memory][trial], found->answers[trial]))
			return trial;
	return UFFDWP_TRIAL_COUNT;
}

static void say_unmet(struct uffdwp_probe_memory *found, unsigned trial)
{
	const char *why = found->reasons[trial];

	if (found->answers[trial] == UFFDWP_ANSWER_LOST)
		(void)snprintf(found->reason, sizeof found->reason,
		               "the mark is lost through %s: the next write would pass unseen", trial_words[trial]);
	else if (found->answers[trial] == UFFDWP_ANSWER_UNTRIED)
		(void)snprintf(found->reason, sizeof found->reason, "could not be tried: %s", why);
	else
		(void)snprintf(found->reason, sizeof found->reason, "the trial of %s failed: %s", trial_words[trial],
		               why);
}

/* Takes the first rung that fits; where none does, the reason is that of the topmost. */
static void choose(enum uffdwp_memory memory, struct uffdwp_probe_memory *found)
{
	found->mechanism = UFFDWP_MECHANISM_AUTO;
	for (size_t i = 0; i < RUNGS; i++) {
		unsigned unmet = first_unmet(&ladder[i], memory, found);

		if (unmet == UFFDWP_TRIAL_COUNT) {
			found->mechanism = ladder[i].mechanism;
			(void)snprintf(found->reason, sizeof found->reason, "%s", ladder[i].praise[memory]);
			return;
		}
		if (i == 0)
			say_unmet(found, unmet);
	}
}

static void say_all(struct uffdwp_probe_memory *found, const char *why)
{
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		(void)snprintf(found->reasons[trial], sizeof found->reasons[trial], "%s", why);
}

static void say_no_access(struct uffdwp_probe_memory *found, int error)
{
	found->registered = error;
	say_all(found, "no userfaultfd is to be had");
	(void)snprintf(found->reason, sizeof found->reason, "no userfaultfd is to be had: %s", strerrordesc_np(-error));
}

static void say_refused(struct uffdwp_probe_memory *found, enum uffdwp_memory memory, int error)
{
	const char *hint = "";

	if (error == -EINVAL && memory != UFFDWP_MEMORY_ANON)
		hint = " (accepted since Linux 5.19 with CONFIG_PTE_MARKER_UFFD_WP)";
	found->registered = error;
	say_all(found, "the memory cannot be registered");
	(void)snprintf(found->reason, sizeof found->reason, "write protection of %s is refused: %s%s",
	               memory_words[memory], strerrordesc_np(-error), hint);
}

static void run_trials(struct trial_bench *bench, struct uffdwp_probe_memory *found)
{
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		found->answers[trial] =
		        trial_run(bench, (enum uffdwp_trial)trial, found->reasons[trial], sizeof found->reasons[trial]);
	found->inline_works = (bench->features & UFFD_FEATURE_SIGBUS) != 0 &&
	                      found->answers[UFFDWP_TRIAL_POPULATED] == UFFDWP_ANSWER_KEPT;
}

int probe_memory(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
                 struct uffdwp_probe_memory *out)
{
	struct uffdwp_probe_memory found = {0};
	struct trial_bench bench;
	int error;

	if ((unsigned)memory >= UFFDWP_MEMORY_COUNT)
		return -EINVAL;
	error = trial_open(k, access, memory, procfs_swap_on(k), &bench);
	if (error) {
		say_no_access(&found, error);
		*out = found;
		return 0;
	}
	found.page_bytes = bench.page_bytes;
	error = trial_register(&bench);
	if (error) {
		say_refused(&found, memory, error);
	} else {
		run_trials(&bench, &found);
		choose(memory, &found);
	}
	trial_close(&bench);
	*out = found;
	return 0;
}

/* ------------------------------------------------------------------------------------------------------- report -- */

static void try_access(const struct kernel_ops *k, struct uffdwp_probe_report *report)
{
	report->access_chosen = -1;
	for (unsigned way = 0; way < KERNEL_ACCESS_COUNT; way++) {
		int uffd = kernel_uffd_open_by(k, (enum kernel_access)way);

		report->access[way] = uffd < 0 ? uffd : 0;
		if (uffd < 0)
			continue;
		k->close(uffd);
		if (report->access_chosen < 0)
			report->access_chosen = (int32_t)way;
	}
}

static int32_t number_or_error(const struct kernel_ops *k, const char *path, const char *key)
{
	uint64_t number;
	int error = procfs_number(k, path, key, &number);

	return error ? error : (int32_t)number;
}

static int try_uring(const struct kernel_ops *k)
{
	struct io_uring ring;
	int error = k->uring_init(2, &ring, 0);

	if (error == 0)
		io_uring_queue_exit(&ring);
	return error;
}

static int try_bit57(const struct kernel_ops *k, enum kernel_access access)
{
	struct trial_bench bench;
	int result = trial_open(k, access, UFFDWP_MEMORY_ANON, 0, &bench);

	if (result)
		return result;
	result = trial_bit57(&bench);
	trial_close(&bench);
	return result;
}

static void look_around(const struct kernel_ops *k, struct uffdwp_probe_report *report)
{
	report->sysctl_unprivileged = number_or_error(k, "/proc/sys/vm/unprivileged_userfaultfd", "");
	report->seccomp = number_or_error(k, "/proc/self/status", "Seccomp:");
	report->uring = try_uring(k);
	report->pagemap_scan = trial_scan(k);
	report->swap_on = (uint32_t)procfs_swap_on(k);
	if (procfs_number(k, "/proc/meminfo", "HugePages_Free:", &report->huge_pages_free) != 0)
		report->huge_pages_free = 0;
}

static void try_memories(const struct kernel_ops *k, struct uffdwp_probe_report *report)
{
	enum kernel_access access = (enum kernel_access)report->access_chosen;

	(void)kernel_uffd_features(k, access, &report->features);
	report->pagemap_bit57 = try_bit57(k, access);
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		(void)probe_memory(k, access, (enum uffdwp_memory)memory, &report->memory[memory]);
}

static void say_nothing_works(struct uffdwp_probe_report *report)
{
	int error = report->access[UFFDWP_ACCESS_USER_MODE];

	report->pagemap_bit57 = error;
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		say_no_access(&report->memory[memory], error);
}

int probe_run(const struct kernel_ops *k, struct uffdwp_probe_report *report)
{
	struct uffdwp_probe_report found = {.sz = report->sz};

	try_access(k, &found);
	look_around(k, &found);
	if (found.access_chosen >= 0)
		try_memories(k, &found);
	else
		say_nothing_works(&found);
	*report = found;
	return 0;
}
