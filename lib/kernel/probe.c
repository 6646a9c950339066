/* SPDX-License-Identifier: MIT */
/*
 * The probe: trials first, then a choice.
 *
 * Idea: a mechanism is a rung of a ladder, a row of the table below: what it needs of each trial, and what is said when
 * it works or does not. Every rung is tried, each on a userfaultfd of its own, so that all can be shown and each can be
 * asked for by name; the first one that works is taken. Nothing here knows a kernel version.
 *
 * Words: trial, bench: see trial.c. Rung: a mechanism and its needs.
 *
 * INV-TRIED: a mechanism is chosen for a type of memory only after a page of this type was armed here by it, was
 * written to, and the write was stopped.
 *
 * Threads: any. Never: fail because something is missing. What is missing is the answer.
 */
#include "kernel/probe.h"

#include <errno.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/errno_name.h"
#include "kernel/abi.h"
#include "kernel/procfs.h"
#include "kernel/trial.h"
#include "kernel/uring.h"

_Static_assert((int)KERNEL_ACCESS_SYSCALL == (int)UFFDWP_ACCESS_SYSCALL &&
                       (int)KERNEL_ACCESS_DEVICE == (int)UFFDWP_ACCESS_DEVICE &&
                       (int)KERNEL_ACCESS_USER_MODE == (int)UFFDWP_ACCESS_USER_MODE &&
                       (int)KERNEL_ACCESS_COUNT == (int)UFFDWP_ACCESS_COUNT,
               "the report counts the kinds of access as the kernel layer does");

/* What a trial does to a page, as a sentence has it. */
static const char *const trial_words[UFFDWP_TRIAL_COUNT] = {
        [UFFDWP_TRIAL_POPULATED] = "a plain write", [UFFDWP_TRIAL_UNPOPULATED] = "never having been touched",
        [UFFDWP_TRIAL_DONTNEED] = "MADV_DONTNEED",  [UFFDWP_TRIAL_PUNCH] = "a hole punch",
        [UFFDWP_TRIAL_SWAP] = "being swapped out",  [UFFDWP_TRIAL_MREMAP] = "mremap",
};

/* What a mechanism asks of a trial: not to be made, to be made for the table only, its answer. */
enum need { NEED_NO_TRIAL, NEED_A_LOOK, NEED_KEPT, NEED_KEPT_OR_UNTRIED };

struct rung {
	enum uffdwp_mechanism mechanism;
	const char *name;
	const char *modes;                       /* that it registers memory for */
	const char *loses;                       /* what is wrong, before the words of the trial that showed it */
	const char *never[UFFDWP_MEMORY_COUNT];  /* why this memory is out of the question; NULL: it is not */
	uint32_t thread_works;                   /* its faults can be resolved by another thread */
	uint32_t tracks_only;                    /* its writes are not stopped, only reported */
	const char *praise[UFFDWP_MEMORY_COUNT]; /* the reason when it works */
	enum need needs[UFFDWP_MEMORY_COUNT][UFFDWP_TRIAL_COUNT];
};

/* clang-format off */
#define KEPT_IN_EVERY_TRIAL {                           \
	[UFFDWP_TRIAL_POPULATED] = NEED_KEPT,           \
	[UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,         \
	[UFFDWP_TRIAL_DONTNEED] = NEED_KEPT,            \
	[UFFDWP_TRIAL_PUNCH] = NEED_KEPT_OR_UNTRIED,    \
	[UFFDWP_TRIAL_SWAP] = NEED_KEPT_OR_UNTRIED,     \
	[UFFDWP_TRIAL_MREMAP] = NEED_KEPT_OR_UNTRIED,   \
}
#define KEPT_FOR_A_MAPPING {                            \
	[UFFDWP_TRIAL_POPULATED] = NEED_KEPT,           \
	[UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,         \
}

/* Wp bits: moving is followed by an event, whether or not the wp bit moves along. Anonymous memory loses its wp bit
 * together with its content by MADV_DONTNEED, and an event reports it. */
static const struct rung ladder[] = {
	{
		.mechanism = UFFDWP_MECHANISM_MARKER,
		.name = "marker",
		.modes = "write protection",
		.loses = "the wp bit is lost through",
		.thread_works = 1,
		.praise = {
			[UFFDWP_MEMORY_SHMEM] = "an armed page stayed armed in every trial",
			[UFFDWP_MEMORY_HUGETLB] = "an armed page stayed armed in every trial",
			[UFFDWP_MEMORY_ANON] = "an armed page stayed armed as long as it had content; what "
			                       "MADV_DONTNEED throws away, an event reports",
		},
		.needs = {
			[UFFDWP_MEMORY_SHMEM] = {
				[UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_DONTNEED] = NEED_KEPT,
				[UFFDWP_TRIAL_PUNCH] = NEED_KEPT,
				[UFFDWP_TRIAL_SWAP] = NEED_KEPT_OR_UNTRIED,
				[UFFDWP_TRIAL_MREMAP] = NEED_A_LOOK,
			},
			[UFFDWP_MEMORY_HUGETLB] = {
				[UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_DONTNEED] = NEED_KEPT,
				[UFFDWP_TRIAL_PUNCH] = NEED_KEPT,
				[UFFDWP_TRIAL_SWAP] = NEED_A_LOOK,
				[UFFDWP_TRIAL_MREMAP] = NEED_A_LOOK,
			},
			[UFFDWP_MEMORY_ANON] = {
				[UFFDWP_TRIAL_POPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_UNPOPULATED] = NEED_KEPT,
				[UFFDWP_TRIAL_DONTNEED] = NEED_A_LOOK,
				[UFFDWP_TRIAL_PUNCH] = NEED_A_LOOK,
				[UFFDWP_TRIAL_SWAP] = NEED_KEPT_OR_UNTRIED,
				[UFFDWP_TRIAL_MREMAP] = NEED_A_LOOK,
			},
		},
	},
	{
		.mechanism = UFFDWP_MECHANISM_REARM,
		.name = "rearm",
		.modes = "write protection with missing and minor faults",
		.loses = "no fault comes after",
		.thread_works = 1,
		.praise = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = "in every trial each access to an emptied entry was stopped"},
		.needs = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = KEPT_IN_EVERY_TRIAL},
	},
	{
		.mechanism = UFFDWP_MECHANISM_MINOR,
		.name = "minor",
		.modes = "missing and minor faults",
		.loses = "no fault comes after",
		.never = {[UFFDWP_MEMORY_ANON] = "minor faults need memory of a file, and this has none"},
		.thread_works = 1,
		.praise = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = "in every trial the next access was stopped; reads count as writes"},
		.needs = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = KEPT_IN_EVERY_TRIAL},
	},
	{
		.mechanism = UFFDWP_MECHANISM_MPROTECT,
		.name = "mprotect",
		.modes = "nothing",
		.loses = "read-only memory was written after",
		.praise = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = "the write was stopped; each run of armed pages takes a mapping"},
		.needs = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = KEPT_FOR_A_MAPPING},
	},
	{
		.mechanism = UFFDWP_MECHANISM_ASYNC,
		.name = "async",
		.modes = "asynchronous write protection",
		.loses = "PAGEMAP_SCAN did not report a write after",
		.tracks_only = 1,
		.praise = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = "for tracks: every write was reported by PAGEMAP_SCAN, which armed the page again"},
		.needs = {[UFFDWP_MEMORY_SHMEM ... UFFDWP_MEMORY_ANON] = KEPT_IN_EVERY_TRIAL},
	},
	{
		.mechanism = UFFDWP_MECHANISM_SOFT_DIRTY,
		.name = "soft-dirty",
		.modes = "nothing",
		.loses = "pagemap shows no soft-dirty bit (CONFIG_MEM_SOFT_DIRTY) after",
		.never = {
			[UFFDWP_MEMORY_SHMEM] = "the kernel drops the soft-dirty bits of shared memory when it empties an entry",
			[UFFDWP_MEMORY_HUGETLB] = "the kernel keeps no soft-dirty bits of huge pages",
		},
		.tracks_only = 1,
		.praise = {[UFFDWP_MEMORY_ANON] = "for tracks, by name only: a page that was written shows its soft-dirty bit; clearing clears the whole process"},
		.needs = {[UFFDWP_MEMORY_ANON] = {[UFFDWP_TRIAL_POPULATED] = NEED_KEPT}},
	},
};
/* clang-format on */
#define RUNGS (sizeof ladder / sizeof ladder[0])

/* The caller's question: on which kernel, by which access, for what. */
struct asker {
	const struct kernel_ops *k;
	enum kernel_access access;
	int user_mode_only; /* no other access counts */
	enum uffdwp_memory memory;
	int swap_on;
};

/* What came of one rung. */
struct climb {
	int error; /* of the access to a userfaultfd: 0 or -errno */
	uint64_t page_bytes;
	uint32_t fills;
	uint32_t answers[UFFDWP_TRIAL_COUNT];
	char reasons[UFFDWP_TRIAL_COUNT][96];
	struct probe_rung rung;
};

_Static_assert(sizeof((struct climb *)0)->reasons == sizeof((struct probe_memory *)0)->reasons &&
                       sizeof((struct climb *)0)->reasons[0] == sizeof((struct trial_bench *)0)->reason,
               "reasons are copied whole");

static const char *probe_error_name(int error)
{
	const char *name = errno_name(error);

	return name ? name : "an unknown error";
}

static int probe_need_met(enum need need, uint32_t answer)
{
	if (need == NEED_NO_TRIAL || need == NEED_A_LOOK || answer == UFFDWP_ANSWER_KEPT)
		return 1;
	return need == NEED_KEPT_OR_UNTRIED && answer == UFFDWP_ANSWER_UNTRIED;
}

/* The first trial whose answer a rung cannot live with, or UFFDWP_TRIAL_COUNT. */
static unsigned probe_first_unmet(const enum need *needs, const struct climb *climb)
{
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		if (!probe_need_met(needs[trial], climb->answers[trial]))
			return trial;
	return UFFDWP_TRIAL_COUNT;
}

__attribute__((format(printf, 2, 3))) static void probe_say(struct climb *climb, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(climb->rung.reason, sizeof climb->rung.reason, format, arguments);
	va_end(arguments);
}

static void probe_say_unmet(const struct rung *rung, struct climb *climb, unsigned trial)
{
	const char *why = climb->reasons[trial];

	if (climb->answers[trial] == UFFDWP_ANSWER_LOST)
		probe_say(climb, "%s %s: the next write would pass unseen", rung->loses, trial_words[trial]);
	else if (climb->answers[trial] == UFFDWP_ANSWER_UNTRIED)
		probe_say(climb, "could not be tried: %s", why);
	else
		probe_say(climb, "the trial of %s failed: %s", trial_words[trial], why);
}

static void probe_say_works(const struct rung *rung, enum uffdwp_memory memory, struct climb *climb)
{
	int reads_count = rung->mechanism == UFFDWP_MECHANISM_REARM && memory != UFFDWP_MEMORY_ANON &&
	                  !(climb->fills & UFFDWP_PROBE_FILL_CONTINUE_WP);

	climb->rung.works = 1;
	climb->rung.thread_works = rung->thread_works;
	climb->rung.inline_works = !rung->tracks_only;
	probe_say(climb, "%s%s", rung->praise[memory],
	          reads_count ? "; without UFFDIO_CONTINUE_MODE_WP (Linux 6.4) such reads count as writes" : "");
}

static void probe_say_all(struct climb *climb, const char *why)
{
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		(void)snprintf(climb->reasons[trial], sizeof climb->reasons[trial], "%s", why);
}

static void probe_say_no_access(struct climb *climb, int error)
{
	climb->error = error;
	climb->rung.error = kernel_is_passing(error) ? error : 0;
	probe_say_all(climb, "no userfaultfd is available");
	probe_say(climb, "no userfaultfd is available: %s", probe_error_name(error));
}

/* Which release takes what: only in words, nothing is decided by it. */
static const char *probe_release_hint(const struct rung *rung, enum uffdwp_memory memory)
{
	if (rung->mechanism == UFFDWP_MECHANISM_ASYNC)
		return " (Linux 6.7 brings it, with CONFIG_PTE_MARKER_UFFD_WP)";
	if (memory == UFFDWP_MEMORY_ANON)
		return "";
	if (rung->mechanism != UFFDWP_MECHANISM_MINOR)
		return " (Linux 5.19 brings it, with CONFIG_PTE_MARKER_UFFD_WP)";
	/* Minor faults of huge pages came with 5.13, but MADV_DONTNEED, which arms, takes them since 5.18. */
	return memory == UFFDWP_MEMORY_SHMEM ? " (Linux 5.14 brings it)" : " (Linux 5.18 brings all of it)";
}

static void probe_say_refused(const struct rung *rung, enum uffdwp_memory memory, int error, struct climb *climb)
{
	climb->error = error;
	climb->rung.error = kernel_is_passing(error) ? error : 0;
	probe_say_all(climb, "the memory cannot be registered");
	probe_say(climb, "registration for %s is refused: %s%s", rung->modes, probe_error_name(error),
	          error == -EINVAL ? probe_release_hint(rung, memory) : "");
}

/* Whether swap is on could not be asked (a negative error), and the answer would have counted. */
static int probe_swap_error(const struct trial_bench *bench)
{
	return bench->swap_on < 0 && bench->memory != UFFDWP_MEMORY_HUGETLB && bench->uffd >= 0 ? bench->swap_on : 0;
}

static void probe_run_trials(struct trial_bench *bench, const struct rung *rung, struct climb *climb)
{
	const enum need *needs = rung->needs[bench->memory];
	unsigned unmet;

	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++) {
		if (needs[trial] == NEED_NO_TRIAL)
			continue;
		climb->answers[trial] = trial_run(bench, (enum uffdwp_trial)trial);
		memcpy(climb->reasons[trial], bench->reason, sizeof bench->reason);
	}
	climb->rung.error = bench->passing ? bench->passing : probe_swap_error(bench);
	climb->fills = bench->fills;
	unmet = probe_first_unmet(needs, climb);
	if (unmet == UFFDWP_TRIAL_COUNT)
		probe_say_works(rung, bench->memory, climb);
	else
		probe_say_unmet(rung, climb, unmet);
}

/* Why there is no access to a userfaultfd. */
static int probe_no_access_error(const struct kernel_ops *k, int user_mode_only)
{
	enum kernel_access access;
	int errors[KERNEL_ACCESS_COUNT];
	int uffd = kernel_uffd_open(k, user_mode_only, &access, errors);

	if (uffd < 0)
		return uffd;
	k->close(uffd);
	return -EAGAIN;
}

static void probe_climb_to(const struct asker *asker, const struct rung *rung, struct climb *climb)
{
	struct trial_bench bench;
	int error = trial_open(asker->k, asker->access, asker->memory, rung->mechanism, asker->swap_on, &bench);

	if (error) {
		probe_say_no_access(climb, asker->access == KERNEL_ACCESS_COUNT
		                                   ? probe_no_access_error(asker->k, asker->user_mode_only)
		                                   : error);
		return;
	}
	climb->page_bytes = bench.page_bytes;
	error = trial_register(&bench);
	if (error)
		probe_say_refused(rung, asker->memory, error, climb);
	else
		probe_run_trials(&bench, rung, climb);
	trial_close(&bench);
}

static void probe_keep(const struct rung *rung, const struct climb *climb, struct probe_memory *found)
{
	found->rungs[rung->mechanism] = climb->rung;
	found->fills |= climb->fills;
	if (climb->page_bytes)
		found->page_bytes = climb->page_bytes;
	if (rung->mechanism != UFFDWP_MECHANISM_MARKER)
		return;
	found->registered = climb->error;
	memcpy(found->answers, climb->answers, sizeof found->answers);
	memcpy(found->reasons, climb->reasons, sizeof found->reasons);
}

static void probe_try_rung(const struct asker *asker, const struct rung *rung, struct probe_memory *found)
{
	struct climb climb = {0};

	if (rung->never[asker->memory])
		probe_say(&climb, "%s", rung->never[asker->memory]);
	else
		probe_climb_to(asker, rung, &climb);
	probe_keep(rung, &climb, found);
}

static const struct rung *probe_first_that_works(const struct probe_memory *found)
{
	for (size_t i = 0; i < RUNGS; i++)
		if (found->rungs[ladder[i].mechanism].works && !ladder[i].tracks_only)
			return &ladder[i];
	return NULL;
}

/* Takes the first rung that works. Where that is not the topmost, the reason is why the topmost does not. */
static void probe_choose(struct probe_memory *found)
{
	const struct rung *taken = probe_first_that_works(found);
	const char *top = found->rungs[ladder[0].mechanism].reason;

	if (!taken || taken == ladder) {
		(void)snprintf(found->reason, sizeof found->reason, "%s", top);
	} else {
		(void)snprintf(found->reason, sizeof found->reason, "%s, because %s", taken->name, top);
	}
	if (!taken)
		return;
	found->mechanism = taken->mechanism;
	found->inline_works = found->rungs[taken->mechanism].inline_works;
}

int probe_memory(const struct kernel_ops *k, enum kernel_access access, int user_mode_only, enum uffdwp_memory memory,
                 struct probe_memory *out)
{
	const struct asker asker = {.k = k,
	                            .access = access,
	                            .user_mode_only = user_mode_only,
	                            .memory = memory,
	                            .swap_on = procfs_swap_on(k)};
	struct probe_memory found = {0};

	if ((unsigned)memory >= UFFDWP_MEMORY_COUNT)
		return -EINVAL;
	for (size_t i = 0; i < RUNGS; i++)
		probe_try_rung(&asker, &ladder[i], &found);
	probe_choose(&found);
	*out = found;
	return 0;
}

/* --------------------------------------------------------------------------------------------------------- move -- */

static const char *const never_moves[UFFDWP_MEMORY_COUNT] = {
        [UFFDWP_MEMORY_HUGETLB] = "the kernel moves no huge pages and leaves their mapping in place (MREMAP_DONTUNMAP)",
        [UFFDWP_MEMORY_ANON] = "of anonymous memory the pages themselves move away, and UFFDIO_MOVE gives none back "
                               "write-protected: each read would count as a write",
};

__attribute__((format(printf, 2, 3))) static void probe_arming_say(struct probe_arming *found, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(found->reason, sizeof found->reason, format, arguments);
	va_end(arguments);
}

static void probe_move_try(struct trial_bench *bench, struct probe_arming *found)
{
	enum uffdwp_answer answer = trial_move(bench);

	found->works = answer == UFFDWP_ANSWER_KEPT;
	found->error = bench->passing;
	if (answer == UFFDWP_ANSWER_KEPT)
		probe_arming_say(found, "whole page-table pages were moved away, and each next access was stopped%s",
		                 bench->fills & UFFDWP_PROBE_FILL_CONTINUE_WP
		                         ? ""
		                         : "; without UFFDIO_CONTINUE_MODE_WP (Linux 6.4) first reads count as writes");
	else if (answer == UFFDWP_ANSWER_LOST && !bench->reason[0])
		probe_arming_say(found, "after page tables were moved away an access passed unseen");
	else
		probe_arming_say(found, "%s%s", answer == UFFDWP_ANSWER_FAILED ? "the trial failed: " : "",
		                 bench->reason);
}

static void probe_move_through(const struct asker *asker, struct probe_arming *found)
{
	struct trial_bench bench;
	int error = trial_open(asker->k, asker->access, asker->memory, UFFDWP_MECHANISM_REARM, 0, &bench);

	if (error) {
		found->error = asker->access != KERNEL_ACCESS_COUNT && kernel_is_passing(error) ? error : 0;
		probe_arming_say(found, "no userfaultfd is available: %s", probe_error_name(error));
		return;
	}
	error = trial_register(&bench);
	if (error) {
		found->error = kernel_is_passing(error) ? error : 0;
		probe_arming_say(found,
		                 "registration for write protection with missing and minor faults is refused: %s%s",
		                 probe_error_name(error), error == -EINVAL ? " (Linux 5.19 brings it)" : "");
	} else {
		probe_move_try(&bench, found);
	}
	trial_close(&bench);
}

int probe_move(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
               struct probe_arming *out)
{
	const struct asker asker = {.k = k, .access = access, .memory = memory};
	struct probe_arming found = {0};

	if ((unsigned)memory >= UFFDWP_MEMORY_COUNT)
		return -EINVAL;
	if (never_moves[memory])
		probe_arming_say(&found, "%s", never_moves[memory]);
	else
		probe_move_through(&asker, &found);
	*out = found;
	return 0;
}

/* ------------------------------------------------------------------------------------------------------- report -- */

static void probe_try_access(const struct kernel_ops *k, struct probe_report *report)
{
	report->access_chosen = -1;
	for (unsigned method = 0; method < KERNEL_ACCESS_COUNT; method++) {
		int uffd = kernel_uffd_open_by(k, (enum kernel_access)method);

		report->access[method] = uffd < 0 ? uffd : 0;
		if (uffd < 0)
			continue;
		k->close(uffd);
		if (report->access_chosen < 0)
			report->access_chosen = (int32_t)method;
	}
}

static int32_t probe_number_or_error(const struct kernel_ops *k, const char *path, const char *key)
{
	uint64_t number;
	int error = procfs_number(k, path, key, &number);

	return error ? error : (int32_t)number;
}

static int probe_try_uring(const struct kernel_ops *k)
{
	struct io_uring ring;
	int error = uring_make_apart(k, 2, &ring, 0);

	if (error == 0)
		io_uring_queue_exit(&ring);
	return error;
}

int probe_bit57(const struct kernel_ops *k, enum kernel_access access)
{
	struct trial_bench bench;
	int result = trial_open(k, access, UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MARKER, 0, &bench);

	if (result)
		return result;
	result = trial_bit57(&bench);
	trial_close(&bench);
	return result;
}

int probe_scan_holes(const struct kernel_ops *k, enum kernel_access access)
{
	struct trial_bench bench;
	int result = trial_open(k, access, UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_ASYNC, 0, &bench);

	if (result)
		return result;
	result = bench.features & UFFD_FEATURE_WP_ASYNC ? trial_scan_holes(&bench) : -EOPNOTSUPP;
	trial_close(&bench);
	return result;
}

static void probe_look_around(const struct kernel_ops *k, struct probe_report *report)
{
	report->sysctl_unprivileged = probe_number_or_error(k, "/proc/sys/vm/unprivileged_userfaultfd", "");
	report->seccomp = probe_number_or_error(k, "/proc/self/status", "Seccomp:");
	report->uring = probe_try_uring(k);
	report->pagemap_scan = trial_scan(k);
	report->swap_on = procfs_swap_on(k) > 0;
	if (procfs_number(k, "/proc/meminfo", "HugePages_Free:", &report->huge_pages_free) != 0)
		report->huge_pages_free = 0;
	if (procfs_number(k, "/proc/sys/vm/max_map_count", "", &report->max_map_count) != 0)
		report->max_map_count = 0;
}

static void probe_try_memories(const struct kernel_ops *k, struct probe_report *report)
{
	int chosen = report->access_chosen;
	enum kernel_access access = chosen < 0 ? KERNEL_ACCESS_COUNT : (enum kernel_access)chosen;

	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		(void)probe_memory(k, access, 0, (enum uffdwp_memory)memory, &report->memory[memory]);
}

static void probe_ask_userfaultfd(const struct kernel_ops *k, struct probe_report *report)
{
	if (report->access_chosen < 0) {
		report->pagemap_bit57 = report->access[UFFDWP_ACCESS_USER_MODE];
		report->scan_holes = report->access[UFFDWP_ACCESS_USER_MODE];
		return;
	}
	(void)kernel_uffd_features(k, (enum kernel_access)report->access_chosen, &report->features);
	report->pagemap_bit57 = probe_bit57(k, (enum kernel_access)report->access_chosen);
	report->scan_holes = probe_scan_holes(k, (enum kernel_access)report->access_chosen);
}

static void probe_try_moves(const struct kernel_ops *k, struct probe_report *report)
{
	int chosen = report->access_chosen;
	enum kernel_access access = chosen < 0 ? KERNEL_ACCESS_COUNT : (enum kernel_access)chosen;

	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		(void)probe_move(k, access, (enum uffdwp_memory)memory, &report->moves[memory]);
}

int probe_run(const struct kernel_ops *k, struct probe_report *report)
{
	struct probe_report found = {0};

	probe_try_access(k, &found);
	probe_look_around(k, &found);
	probe_ask_userfaultfd(k, &found);
	probe_try_memories(k, &found);
	probe_try_moves(k, &found);
	probe_child(k, &found.child);
	*report = found;
	return 0;
}

struct probe_arming probe_arming_of(const struct probe_report *report, enum uffdwp_memory memory,
                                    enum uffdwp_arming arming)
{
	const struct probe_memory *found = &report->memory[memory];
	struct probe_arming answer = {.works = found->mechanism != UFFDWP_MECHANISM_AUTO};

	if (arming == UFFDWP_ARMING_MOVE)
		return report->moves[memory];
	if (arming == UFFDWP_ARMING_AUTO)
		return (struct probe_arming){0};
	if (answer.works)
		probe_arming_say(&answer, "page by page, by the memory's mechanism");
	else
		probe_arming_say(&answer, "no mechanism works: %.120s", found->reason);
	return answer;
}
