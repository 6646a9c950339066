/* SPDX-License-Identifier: MIT */
/*
 * What each mechanism does with the page under trial: how it is armed, and how it is seen that no write passes.
 *
 * marker: the mark alone must stop the write, also where a read came before it and filled an empty entry.
 *
 * rearm: where the entry is empty, reads must be stopped as well as writes. A page that was then filled with the mark
 * on (first round) may be read and not yet written; one that was filled plainly (second round) may be written. Content
 * is mapped by UFFDIO_CONTINUE; a hole is filled by UFFDIO_COPY with the mark on, by UFFDIO_ZEROPAGE plainly. The
 * latter refuses an entry of anonymous memory that carries a mark, hence UFFD_FEATURE_WP_UNPOPULATED is not asked for.
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
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/trial_private.h"

enum { ROUND_MARKED = 0, ROUND_PLAIN = 1 };

static int read_passes(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	char byte;

	return bench->k->read_self(&byte, scratch->address, 1) == 1;
}

static enum uffdwp_answer expect_stopped(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = bench->k->try_write(scratch->address);

	if (error == 0)
		return UFFDWP_ANSWER_LOST;
	return error == -EFAULT ? UFFDWP_ANSWER_KEPT : trial_say(bench, UFFDWP_ANSWER_FAILED, "the write", error);
}

static enum uffdwp_answer expect_writable(struct trial_bench *bench, const struct trial_scratch *scratch,
                                          const char *otherwise)
{
	int error = bench->k->try_write(scratch->address);

	return error ? trial_say(bench, UFFDWP_ANSWER_FAILED, otherwise, error) : UFFDWP_ANSWER_KEPT;
}

/* ------------------------------------------------------------------------------------------------------- marker -- */

static int arm_mark(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return trial_scratch_protect(bench, scratch, UFFDIO_WRITEPROTECT_MODE_WP);
}

static enum uffdwp_answer let_go(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = trial_scratch_protect(bench, scratch, 0);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "disarming", error);
	return expect_writable(bench, scratch, "the page cannot be written when disarmed");
}

static enum uffdwp_answer look_marker(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	enum uffdwp_answer answer;

	(void)round;
	(void)read_passes(bench, scratch);
	answer = expect_stopped(bench, scratch);
	return answer == UFFDWP_ANSWER_KEPT ? let_go(bench, scratch) : answer;
}

/* -------------------------------------------------------------------------------------------------------- rearm -- */

/* Maps the content that there is, if any. 0, -EFAULT: there is none, -EINVAL: no such mode, or -errno. */
static int map_content(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode)
{
	int64_t mapped;

	if (!(trial_modes(bench) & UFFDIO_REGISTER_MODE_MINOR))
		return -EFAULT;
	mapped = bench->k->uffd_continue(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, mode);
	return mapped < 0 ? (int)mapped : 0;
}

/* Fills the entry with the mark on. *fill: UFFDWP_FILL_*, the way that did it; 0: this kernel cannot map content with
 * the mark on, and nothing was filled. */
static int fill_marked(const struct trial_bench *bench, const struct trial_scratch *scratch, uint32_t *fill)
{
	int error = map_content(bench, scratch, UFFDIO_CONTINUE_MODE_WP);
	int unknown_mode = error == -EINVAL;

	*fill = UFFDWP_FILL_CONTINUE_WP;
	if (error == -EINVAL || error == -EFAULT) {
		*fill = UFFDWP_FILL_COPY_WP;
		error = trial_scratch_copy(bench, scratch, UFFDIO_COPY_MODE_WP);
	}
	if (error == -EEXIST && unknown_mode) {
		*fill = 0;
		return 0;
	}
	return error;
}

static int fill_hole(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	if (bench->memory == UFFDWP_MEMORY_HUGETLB)
		return trial_scratch_copy(bench, scratch, 0);
	return bench->k->uffd_zeropage(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, 0);
}

static int fill_plain(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = map_content(bench, scratch, 0);

	return error == -EFAULT ? fill_hole(bench, scratch) : error;
}

static enum uffdwp_answer look_plain(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = fill_plain(bench, scratch);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "filling the empty entry", error);
	return let_go(bench, scratch);
}

static enum uffdwp_answer look_marked(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	enum uffdwp_answer answer;
	uint32_t fill;
	int error = fill_marked(bench, scratch, &fill);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "filling the empty entry with the mark on", error);
	if (!fill)
		return look_plain(bench, scratch);
	if (!read_passes(bench, scratch))
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "the page cannot be read when filled", 0);
	answer = expect_stopped(bench, scratch);
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	bench->fills |= fill;
	return let_go(bench, scratch);
}

static enum uffdwp_answer look_rearm(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	int filled = read_passes(bench, scratch);
	enum uffdwp_answer answer = expect_stopped(bench, scratch);

	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	if (filled)
		return let_go(bench, scratch);
	bench->emptied = 1;
	return round == ROUND_MARKED ? look_marked(bench, scratch) : look_plain(bench, scratch);
}

/* -------------------------------------------------------------------------------------------------------- minor -- */

static enum uffdwp_answer look_minor(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	enum uffdwp_answer answer;
	int error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);

	(void)round;
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "emptying the entry by MADV_DONTNEED", error);
	if (read_passes(bench, scratch))
		return UFFDWP_ANSWER_LOST;
	answer = expect_stopped(bench, scratch);
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	error = fill_plain(bench, scratch);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "filling the empty entry", error);
	return expect_writable(bench, scratch, "the page cannot be written when filled");
}

/* ----------------------------------------------------------------------------------------------------- mprotect -- */

static int arm_mprotect(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return bench->k->mprotect(scratch->address, bench->page_bytes, PROT_READ);
}

static enum uffdwp_answer look_mprotect(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	enum uffdwp_answer answer = expect_stopped(bench, scratch);
	int error;

	(void)round;
	if (answer != UFFDWP_ANSWER_KEPT)
		return answer;
	error = bench->k->mprotect(scratch->address, bench->page_bytes, PROT_READ | PROT_WRITE);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "disarming", error);
	return expect_writable(bench, scratch, "the page cannot be written when disarmed");
}

/* -------------------------------------------------------------------------------------------------------- async -- */

/* Pages of the scratch that were written since they were armed; arms them again. */
static int64_t collect_scratch(const struct trial_bench *bench, const struct trial_scratch *scratch)
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
	int fd = bench->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	int64_t count = bench->k->pagemap_scan(fd, &arg);

	bench->k->close(fd);
	return count;
}

/* Written, and its entry emptied: of shared memory that is still a write. */
static enum uffdwp_answer look_zapped(struct trial_bench *bench, const struct trial_scratch *scratch)
{
	int error = bench->k->try_write(scratch->address);

	if (!error)
		error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "a write and MADV_DONTNEED", error);
	return collect_scratch(bench, scratch) > 0 ? UFFDWP_ANSWER_KEPT : UFFDWP_ANSWER_LOST;
}

static enum uffdwp_answer look_async(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	(void)round;
	for (int time = 0; time < 2; time++) {
		int error = bench->k->try_write(scratch->address);

		if (error)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "the write", error);
		int64_t found = collect_scratch(bench, scratch);

		if (found < 0)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "PAGEMAP_SCAN", (int)found);
		if (found == 0)
			return UFFDWP_ANSWER_LOST;
		if (collect_scratch(bench, scratch) != 0)
			return trial_say(bench, UFFDWP_ANSWER_FAILED, "PAGEMAP_SCAN does not arm again", 0);
	}
	return look_zapped(bench, scratch);
}

/* --------------------------------------------------------------------------------------------------- soft-dirty -- */

static enum uffdwp_answer look_soft_dirty(struct trial_bench *bench, struct trial_scratch *scratch, unsigned round)
{
	uint64_t index = (uintptr_t)scratch->address / (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t entry = 0;
	int fd = bench->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);

	(void)round;
	if (fd < 0)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "/proc/self/pagemap", fd);
	ssize_t got = bench->k->pread(fd, &entry, sizeof entry, index * sizeof entry);

	bench->k->close(fd);
	if (got != (ssize_t)sizeof entry)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "/proc/self/pagemap", got < 0 ? (int)got : -EIO);
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

const struct trial_way trial_ways[UFFDWP_MECHANISM_COUNT] = {
        [UFFDWP_MECHANISM_MARKER] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP,
                                               [UFFDWP_MEMORY_HUGETLB] = MODE_WP,
                                               [UFFDWP_MEMORY_ANON] = MODE_WP},
                                     .features = FEATURES_WP | UFFD_FEATURE_WP_UNPOPULATED,
                                     .rounds = 1,
                                     .arm = arm_mark,
                                     .look = look_marker},
        [UFFDWP_MECHANISM_REARM] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP | MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_WP | MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_ANON] = MODE_WP | MODE_MISSING},
                                    .features = FEATURES_WP | FEATURES_EMPTY,
                                    .rounds = 2,
                                    .arm = arm_mark,
                                    .look = look_rearm},
        [UFFDWP_MECHANISM_MINOR] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_MISSING | MODE_MINOR,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_MISSING | MODE_MINOR},
                                    .features = FEATURES_EMPTY,
                                    .rounds = 1,
                                    .arm = trial_change_nothing,
                                    .look = look_minor},
        [UFFDWP_MECHANISM_MPROTECT] = {.rounds = 1, .arm = arm_mprotect, .look = look_mprotect},
        [UFFDWP_MECHANISM_ASYNC] = {.modes = {[UFFDWP_MEMORY_SHMEM] = MODE_WP,
                                              [UFFDWP_MEMORY_HUGETLB] = MODE_WP,
                                              [UFFDWP_MEMORY_ANON] = MODE_WP},
                                    .features = FEATURES_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC,
                                    .rounds = 1,
                                    .arm = arm_mark,
                                    .look = look_async},
        [UFFDWP_MECHANISM_SOFT_DIRTY] = {.rounds = 1, .arm = trial_change_nothing, .look = look_soft_dirty},
};
