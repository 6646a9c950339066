/* SPDX-License-Identifier: MIT */
/*
 * Trials: what this kernel does with an armed page, seen rather than deduced from its version.
 *
 * Idea: map a page of the type in question, arm it, let something happen to it, and have a SYSTEM CALL write to it. On
 * a userfaultfd with UFFD_FEATURE_SIGBUS a system call that meets an armed page answers EFAULT: the write was stopped;
 * success means that it passed unseen: lost. To be sure that EFAULT came from the arming, the page is disarmed
 * afterwards and must then be writable. What arming and disarming mean, and whether reads must be stopped too, is the
 * mechanism's (trial_method.c).
 *
 * Words: bench: the userfaultfd and what it may do; scratch: the page under trial; change: what happens to it; method:
 * how a mechanism is tried.
 *
 * Threads: trials run inside foreign processes, also beside other threads: no signal handler is touched and the
 * environment stays as it is.
 *
 * Never: touch scratch memory by a load or a store (a huge page that is not available would be a SIGBUS), hang, or
 * leave memory, descriptors or threads.
 */
#include "kernel/trial.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/procfs.h"
#include "kernel/trial_private.h"

/* What every trial asks for, beside what the mechanism works by: what the kernel lacks is left out. */
#define FEATURES (UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMAP)

/* 0 or -errno: it cannot be asked now. */
static int trial_scratch_page_bytes(const struct kernel_ops *k, enum uffdwp_memory memory, uint64_t *page_bytes)
{
	uint64_t huge_kib;
	int error = memory == UFFDWP_MEMORY_HUGETLB ? procfs_number(k, "/proc/meminfo", "Hugepagesize:", &huge_kib)
	                                            : -ENODATA;

	if (kernel_is_passing(error))
		return error;
	*page_bytes = error ? (uint64_t)sysconf(_SC_PAGESIZE) : huge_kib * 1024;
	return 0;
}

int trial_open(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory,
               enum uffdwp_mechanism mechanism, int swap_on, struct trial_bench *bench)
{
	struct trial_bench made = {.k = k, .memory = memory, .mechanism = mechanism, .uffd = -1, .swap_on = swap_on};
	int error = trial_scratch_page_bytes(k, memory, &made.page_bytes);

	if (error)
		return error;
	if (trial_modes(&made)) {
		made.uffd = kernel_uffd_new(k, access, FEATURES | trial_methods[mechanism].features, &made.features);
		if (made.uffd < 0)
			return made.uffd;
	}
	*bench = made;
	return 0;
}

static int trial_register_scratch(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	uint64_t modes = trial_modes(bench);

	if (!modes)
		return 0;
	return bench->k->uffd_register(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, modes);
}

int trial_register(const struct trial_bench *bench)
{
	struct trial_scratch scratch;
	int error;

	if (!trial_modes(bench))
		return 0;
	if (bench->mechanism == UFFDWP_MECHANISM_ASYNC && !(bench->features & UFFD_FEATURE_WP_ASYNC))
		return -EINVAL;
	error = trial_scratch_map(bench, MAP_NORESERVE, &scratch);
	if (error)
		return error;
	error = trial_register_scratch(bench, &scratch);
	trial_scratch_free(bench, &scratch);
	return error;
}

/* ------------------------------------------------------------------------------------------------------- trials -- */

struct trial_plan {
	const char *name;
	int (*change)(struct trial_bench *bench, struct trial_scratch *scratch);
	int populate; /* the page is written before it is registered */
};

static const struct trial_plan plans[UFFDWP_TRIAL_COUNT] = {
        [UFFDWP_TRIAL_POPULATED] = {"nothing", trial_change_nothing, 1},
        [UFFDWP_TRIAL_UNPOPULATED] = {"a zap of nothing", trial_change_untouched, 0},
        [UFFDWP_TRIAL_DONTNEED] = {"MADV_DONTNEED", trial_change_dontneed, 1},
        [UFFDWP_TRIAL_PUNCH] = {"FALLOC_FL_PUNCH_HOLE", trial_change_punch, 1},
        [UFFDWP_TRIAL_SWAP] = {"MADV_PAGEOUT", trial_change_swap, 1},
        [UFFDWP_TRIAL_MREMAP] = {"mremap", trial_change_mremap, 1},
};

/* Why a trial makes no sense here, or NULL. */
static const char *trial_untried_because(const struct trial_bench *bench, enum uffdwp_trial trial)
{
	if (trial_modes(bench) && !(bench->features & UFFD_FEATURE_SIGBUS))
		return "no UFFD_FEATURE_SIGBUS: a trial could hang";
	if (trial == UFFDWP_TRIAL_PUNCH && bench->memory == UFFDWP_MEMORY_ANON)
		return "this memory has no file";
	if (trial == UFFDWP_TRIAL_SWAP && bench->memory == UFFDWP_MEMORY_HUGETLB)
		return "huge pages are never swapped out";
	if (trial == UFFDWP_TRIAL_SWAP && bench->swap_on <= 0)
		return "no swap is on: nothing can be swapped out until swapon(8)";
	if (trial == UFFDWP_TRIAL_MREMAP && !(bench->features & UFFD_FEATURE_EVENT_REMAP))
		return "no UFFD_FEATURE_EVENT_REMAP: mremap takes the registration along without a report";
	return NULL;
}

static enum uffdwp_answer trial_run_on(struct trial_bench *bench, const struct trial_plan *plan,
                                       struct trial_scratch *scratch, unsigned round)
{
	const struct trial_method *method = &trial_methods[bench->mechanism];
	int error = plan->populate ? bench->k->try_write(scratch->address) : 0;

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "no memory for the page", error);
	error = trial_register_scratch(bench, scratch);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "UFFDIO_REGISTER", error);
	error = method->arm(bench, scratch);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "arming", error);
	error = plan->change(bench, scratch);
	if (error > 0)
		return trial_say(bench, UFFDWP_ANSWER_UNTRIED, "the kernel left the page where it was", 0);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, plan->name, error);
	return method->look(bench, scratch, round);
}

static enum uffdwp_answer trial_run_round(struct trial_bench *bench, const struct trial_plan *plan, unsigned round)
{
	struct trial_scratch scratch;
	enum uffdwp_answer answer;
	int error = trial_scratch_map(bench, 0, &scratch);

	if (error == -ENOMEM && bench->memory == UFFDWP_MEMORY_HUGETLB && scratch.fd >= 0)
		return trial_say(bench, UFFDWP_ANSWER_UNTRIED,
		                 "no huge page is free: write 8 to /proc/sys/vm/nr_hugepages", 0);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "no scratch memory", error);
	answer = trial_run_on(bench, plan, &scratch, round);
	trial_scratch_free(bench, &scratch);
	return answer;
}

enum uffdwp_answer trial_run(struct trial_bench *bench, enum uffdwp_trial trial)
{
	const char *because = trial_untried_because(bench, trial);
	enum uffdwp_answer answer;

	bench->emptied = 0;
	bench->reason[0] = '\0';
	if (because)
		return trial_say(bench, UFFDWP_ANSWER_UNTRIED, because, 0);
	answer = trial_run_round(bench, &plans[trial], 0);
	for (unsigned round = 1; round < trial_methods[bench->mechanism].rounds; round++)
		if (answer == UFFDWP_ANSWER_KEPT && bench->emptied)
			answer = trial_run_round(bench, &plans[trial], round);
	return answer;
}

/* ---------------------------------------------------------------------------------------------------- witnesses -- */

static int trial_armed_scratch_shows(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	uint64_t pages;
	int error = bench->k->try_write(scratch->address);

	if (error == 0)
		error = trial_register_scratch(bench, scratch);
	if (error == 0)
		error = trial_scratch_protect(bench, scratch, UFFDIO_WRITEPROTECT_MODE_WP);
	if (error == 0)
		error = pagemap_armed(bench->k, (uintptr_t)scratch->address, bench->page_bytes, &pages);
	return error ? error : pages != 0;
}

int trial_bit57(const struct trial_bench *bench)
{
	struct trial_scratch scratch;
	int result = trial_scratch_map(bench, 0, &scratch);

	if (result)
		return result;
	result = trial_armed_scratch_shows(bench, &scratch);
	trial_scratch_free(bench, &scratch);
	return result;
}

int trial_scan(const struct kernel_ops *k)
{
	struct trial_bench bench = {.k = k, .memory = UFFDWP_MEMORY_ANON, .uffd = -1};
	struct trial_scratch scratch;
	uint64_t pages;
	int error = trial_scratch_page_bytes(k, bench.memory, &bench.page_bytes);

	if (!error)
		error = trial_scratch_map(&bench, 0, &scratch);
	if (error)
		return error;
	error = pagemap_written(k, (uintptr_t)scratch.address, bench.page_bytes, &pages);
	trial_scratch_free(&bench, &scratch);
	return error;
}

/* Memory that was never touched, so large that some of it has no page table. */
#define HOLE_BYTES (1ull << 30)

int trial_scan_holes(const struct trial_bench *bench)
{
	struct trial_scratch scratch;
	struct trial_bench wide = *bench;
	uint64_t pages;
	int error;

	wide.page_bytes = HOLE_BYTES;
	error = trial_scratch_map(&wide, MAP_NORESERVE, &scratch);
	if (error)
		return error;
	error = trial_register_scratch(&wide, &scratch);
	if (error == 0)
		error = pagemap_written(bench->k, (uintptr_t)scratch.address, wide.page_bytes, &pages);
	trial_scratch_free(&wide, &scratch);
	return error ? error : pages != 0;
}
