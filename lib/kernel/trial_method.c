/* SPDX-License-Identifier: MIT */
/*
 * What each mechanism does with the page under trial: how it is armed, and how it is seen that no write passes.
 *
 * marker: the wp bit alone must stop the write, also where a read came before it and filled an empty entry.
 *
 * rearm: where the entry is empty, reads must be stopped as well as writes. A page that was then filled with the wp bit
 * set (first round) may be read and not yet written; one that was filled plainly (second round) may be written. Content
 * is mapped by UFFDIO_CONTINUE; a hole is filled by UFFDIO_COPY with the wp bit set, by UFFDIO_ZEROPAGE plainly. The
 * latter refuses an entry of anonymous memory that carries a wp bit, hence UFFD_FEATURE_WP_UNPOPULATED is not asked
 * for.
 *
 * minor: an empty entry is all the protection there is. It is emptied after the change, not before: what is not mapped
 * is not swapped out.
 *
 * mprotect: a read-only mapping.
 *
 * async: no write is stopped; PAGEMAP_SCAN must report it, arm the page again in the same call, and report the next
 * one.
 *
 * soft-dirty: a page of a new mapping must show the bit when written. That clearing takes it away is not tried here: it
 * would clear the bits of the whole process.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/trial_private.h"

enum { ROUND_WP = 0, ROUND_PLAIN = 1 };

static int trial_method_read_passes(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	char byte;

	return bench->k->read_self(&byte, scratch->address, 1) == 1;
}

static enum uffdwp_answer trial_method_expect_stopped(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = bench->k->try_write(scratch->address);

	if (error == 0)
		return UFFDWP_ANSWER_LOST;
	return error == -EFAULT ? UFFDWP_ANSWER_KEPT : trial_say(bench, UFFDWP_ANSWER_FAILED, "the write", error);
}

static enum uffdwp_answer trial_method_expect_writable(struct trial_bench *bench, const struct trial_scratch *scratch,
                                                       const char *otherwise)
{
	int error = bench->k->try_write(scratch->address);

	return error ? trial_say(bench, UFFDWP_ANSWER_FAILED, otherwise, error) : UFFDWP_ANSWER_KEPT;
}

/* ------------------------------------------------------------------------------------------------------- marker -- */

static int trial_method_arm_wp(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return trial_scratch_protect(bench, scratch, UFFDIO_WRITEPROTECT_MODE_WP);
}

static enum uffdwp_answer trial_method_disarm(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = trial_scratch_protect(bench, scratch, 0);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "disarming", error);
	return trial_method_expect_writable(bench, scratch, "the page cannot be written when disarmed");
}

static enum uffdwp_answer trial_method_look_marker(struct trial_bench *bench, struct trial_scratch *scratch,
                                                   unsigned round)
{
	enum uffdwp_answer answer;

	(void)round;
	(void)trial_method_read_passes(bench, scratch);
	answer = trial_method_expect_stopped(bench, scratch);
	return answer == UFFDWP_ANSWER_KEPT ? trial_method_disarm(bench, scratch) : answer;
}

/* -------------------------------------------------------------------------------------------------------- rearm -- */

/* Maps the content that there is, if any. 0, -EFAULT: there is none, -EINVAL: no such mode, or -errno. */
static int trial_method_map_content(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode)
{
	int64_t mapped;

	if (!(trial_modes(bench) & UFFDIO_REGISTER_MODE_MINOR))
		return -EFAULT;
	mapped = bench->k->uffd_continue(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, mode);
	return mapped < 0 ? (int)mapped : 0;
}

/* Fills the entry with the wp bit set. *fill: UFFDWP_PROBE_FILL_*, the call that did it; 0: this kernel cannot map
 * content with the wp bit set, and nothing was filled. */
static int trial_method_fill_protected(const struct trial_bench *bench, const struct trial_scratch *scratch,
                                       uint32_t *fill)
{
	int error = trial_method_map_content(bench, scratch, UFFDIO_CONTINUE_MODE_WP);
	int unknown_mode = error == -EINVAL;

	*fill = UFFDWP_PROBE_FILL_CONTINUE_WP;
	if (error == -EINVAL || error == -EFAULT) {
		*fill = UFFDWP_PROBE_FILL_COPY_WP;
		error = trial_scratch_copy(bench, scratch, UFFDIO_COPY_MODE_WP);
	}
	if (error == -EEXIST && unknown_mode) {
		*fill = 0;
		return 0;
	}
	return error;
}

static int trial_method_fill_hole(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	if (bench->memory == UFFDWP_MEMORY_HUGETLB)
		return trial_scratch_copy(bench, scratch, 0);
	return bench->k->uffd_zeropage(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, 0);
}

static int trial_method_fill_plain(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = trial_method_map_content(bench, scratch, 0);

	return error == -EFAULT ? trial_method_fill_hole(bench, scratch) : error;
}

/* Huge pages that a fill did not get are none that come by waiting: that is an answer. */
static enum uffdwp_answer trial_method_fill_failed(struct trial_bench *bench, const char *what, int error)
{
	int passing = bench->passing;
	enum uffdwp_answer answer = trial_say(bench, UFFDWP_ANSWER_FAILED, what, error);

	if (bench->memory == UFFDWP_MEMORY_HUGETLB && error == -ENOMEM)
		bench->passing = passing;
	return answer;
}

static enum uffdwp_answer trial_method_look_plain(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = trial_method_fill_plain(bench, scratch);

	if (error)
		return trial_method_fill_failed(bench, "filling the empty entry", error);
	return trial_method_disarm(bench, scratch);
}

static enum uffdwp_answer trial_method_look_protected(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	enum uffdwp_answer answer;
	uint32_t fill;
	int error = trial_method_fill_protected(bench, scratch, &fill);

	if (error)
		return trial_method_fill_failed(bench, "filling the empty entry with the wp bit set", error);
	if (!fill)
		return trial_method_look_plain(bench, scratch);
	if (!trial_method_read_passes(bench, scratch))
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "the page cannot be read when filled", 0);
	answer = trial_method_expect_stopped(bench, scratch);
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	bench->fills |= fill;
	return trial_method_disarm(bench, scratch);
}

static enum uffdwp_answer trial_method_look_rearm(struct trial_bench *bench, struct trial_scratch *scratch,
                                                  unsigned round)
{
	int filled = trial_method_read_passes(bench, scratch);
	enum uffdwp_answer answer = trial_method_expect_stopped(bench, scratch);

	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	if (filled)
		return trial_method_disarm(bench, scratch);
	bench->emptied = 1;
	return round == ROUND_WP ? trial_method_look_protected(bench, scratch)
	                         : trial_method_look_plain(bench, scratch);
}

/* -------------------------------------------------------------------------------------------------------- minor -- */

static enum uffdwp_answer trial_method_look_minor(struct trial_bench *bench, struct trial_scratch *scratch,
                                                  unsigned round)
{
	enum uffdwp_answer answer;
	int error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);

	(void)round;
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "emptying the entry by MADV_DONTNEED", error);
	if (trial_method_read_passes(bench, scratch))
		return UFFDWP_ANSWER_LOST;
	answer = trial_method_expect_stopped(bench, scratch);
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	error = trial_method_fill_plain(bench, scratch);
	if (error)
		return trial_method_fill_failed(bench, "filling the empty entry", error);
	return trial_method_expect_writable(bench, scratch, "the page cannot be written when filled");
}

/* ----------------------------------------------------------------------------------------------------- mprotect -- */

static int trial_method_arm_mprotect(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return bench->k->mprotect(scratch->address, bench->page_bytes, PROT_READ);
}

static enum uffdwp_answer trial_method_look_mprotect(struct trial_bench *bench, struct trial_scratch *scratch,
                                                     unsigned round)
{
	enum uffdwp_answer answer = trial_method_expect_stopped(bench, scratch);
	int error;

	(void)round;
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	error = bench->k->mprotect(scratch->address, bench->page_bytes, PROT_READ | PROT_WRITE);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "disarming", error);
	return trial_method_expect_writable(bench, scratch, "the page cannot be written when disarmed");
}

/* -------------------------------------------------------------------------------------------------------- async -- */

/* Pages of the scratch that were written since they were armed; arms them again. */
static int64_t trial_method_collect_scratch(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	struct page_region found[2];
	struct pm_scan_arg arg = {.size = sizeof arg,
	                          .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
	                          .start = (uintptr_t)scratch->address,
	                          .end = (uintptr_t)scratch->address + bench->page_bytes,
	                          .vec = (uintptr_t)found,
	                          .vec_len = 2,
	                          .category_mask = PAGE_IS_WRITTEN,
	                          .return_mask = PAGE_IS_WRITTEN};
	int fd = pagemap_open(bench->k);

	if (fd < 0)
		return fd;
	int64_t count = bench->k->pagemap_scan(fd, &arg);

	bench->k->close(fd);
	return count;
}

/* Written, and its entry emptied: for shared memory that is still a write. */
static enum uffdwp_answer trial_method_look_zapped(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = bench->k->try_write(scratch->address);

	if (!error)
		error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "a write and MADV_DONTNEED", error);
	return trial_method_collect_scratch(bench, scratch) > 0 ? UFFDWP_ANSWER_KEPT : UFFDWP_ANSWER_LOST;
}

static enum uffdwp_answer trial_method_look_async(struct trial_bench *bench, struct trial_scratch *scratch,
                                                  unsigned round)
{
	(void)round;
	for (int time = 0; time < 2; time++) {
		int error = bench->k->try_write(scratch->address);

		if (error)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "the write", error);
		int64_t found = trial_method_collect_scratch(bench, scratch);

		if (found < 0)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "PAGEMAP_SCAN", (int)found);
		if (found == 0)
			return UFFDWP_ANSWER_LOST;
		if (trial_method_collect_scratch(bench, scratch) != 0)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "PAGEMAP_SCAN does not arm again", 0);
	}
	return trial_method_look_zapped(bench, scratch);
}

/* --------------------------------------------------------------------------------------------------- soft-dirty -- */

static enum uffdwp_answer trial_method_look_soft_dirty(struct trial_bench *bench, struct trial_scratch *scratch,
                                                       unsigned round)
{
	uint64_t entry = 0;
	int fd = pagemap_open(bench->k);

	(void)round;
	if (fd < 0)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "/proc/self/pagemap", fd);
	int error = pagemap_read(bench->k, fd, (uintptr_t)scratch->address, 1, &entry);

	bench->k->close(fd);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "/proc/self/pagemap", error);
	return entry & PAGEMAP_SOFT_DIRTY ? UFFDWP_ANSWER_KEPT : UFFDWP_ANSWER_LOST;
}

/* -------------------------------------------------------------------------------------------------------- table -- */

#define MODE_WP UFFDIO_REGISTER_MODE_WP
#define MODE_MISSING UFFDIO_REGISTER_MODE_MISSING
#define MODE_MINOR UFFDIO_REGISTER_MODE_MINOR

#define FEATURES_WP (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
#define FEATURES_EMPTY                                                                                                 \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM |                      \
	 UFFD_FEATURE_MINOR_HUGETLBFS)

const struct trial_method trial_methods[UFFDWP_MECHANISM_COUNT] = {
        [UFFDWP_MECHANISM_MARKER] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP,
                                               [UFFDWP_MEMORY_HUGETLB] = MODE_WP,
                                               [UFFDWP_MEMORY_ANON] = MODE_WP},
                                     .features = FEATURES_WP | UFFD_FEATURE_WP_UNPOPULATED,
                                     .rounds = 1,
                                     .arm = trial_method_arm_wp,
                                     .look = trial_method_look_marker},
        [UFFDWP_MECHANISM_REARM] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP | MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_WP | MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_ANON] = MODE_WP | MODE_MISSING},
                                    .features = FEATURES_WP | FEATURES_EMPTY,
                                    .rounds = 2,
                                    .arm = trial_method_arm_wp,
                                    .look = trial_method_look_rearm},
        [UFFDWP_MECHANISM_MINOR] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_MISSING | MODE_MINOR},
                                    .features = FEATURES_EMPTY,
                                    .rounds = 1,
                                    .arm = trial_change_nothing,
                                    .look = trial_method_look_minor},
        [UFFDWP_MECHANISM_MPROTECT] = {.rounds = 1,
                                       .arm = trial_method_arm_mprotect,
                                       .look = trial_method_look_mprotect},
        [UFFDWP_MECHANISM_ASYNC] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_WP,
                                              [UFFDWP_MEMORY_ANON] = MODE_WP},
                                    .features = FEATURES_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC,
                                    .rounds = 1,
                                    .arm = trial_method_arm_wp,
                                    .look = trial_method_look_async},
        [UFFDWP_MECHANISM_SOFT_DIRTY] = {.rounds = 1,
                                         .arm = trial_change_nothing,
                                         .look = trial_method_look_soft_dirty},
};

uint64_t trial_modes(const struct trial_bench *bench)
{
	return trial_methods[bench->mechanism].modes[bench->memory];
}
