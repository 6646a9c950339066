/* SPDX-License-Identifier: MIT */
/*
 * Names. Those that end in _id are part of the --json interface and never change; the others are for people.
 */
#include <errno.h>
#include <string.h>

#include "base/errno_name.h"
#include "doctor.h"

static const char *words_pick(const char *const *names, unsigned count, unsigned index)
{
	return index < count ? names[index] : "unknown";
}

const char *word_memory_id(unsigned memory)
{
	static const char *const names[] = {"shmem", "hugetlb", "anon"};

	return words_pick(names, MEMORIES, memory);
}

const char *word_memory(unsigned memory)
{
	static const char *const names[] = {"shared (memfd)", "huge pages", "private anon"};

	return words_pick(names, MEMORIES, memory);
}

const char *word_trial_id(unsigned trial)
{
	static const char *const names[] = {"populated", "unpopulated", "dontneed", "punch", "swap", "mremap"};

	return words_pick(names, TRIALS, trial);
}

const char *word_trial(unsigned trial)
{
	static const char *const names[] = {"nothing in between", "never touched", "MADV_DONTNEED",
	                                    "hole punch",         "swapped out",   "mremap"};

	return words_pick(names, TRIALS, trial);
}

const char *word_answer(unsigned answer)
{
	static const char *const names[] = {"untried", "kept", "lost", "failed"};

	return words_pick(names, UFFDWP_ANSWER_FAILED + 1, answer);
}

const char *word_mechanism(unsigned mechanism)
{
	static const char *const names[] = {"none", "marker", "rearm", "minor", "mprotect", "async", "soft-dirty"};

	return words_pick(names, MECHANISMS, mechanism);
}

const char *word_mechanism_id(unsigned mechanism)
{
	return mechanism == UFFDWP_MECHANISM_SOFT_DIRTY ? "soft_dirty" : word_mechanism(mechanism);
}

const char *word_fill_id(unsigned bit)
{
	static const char *const names[] = {"copy", "continue"};

	return words_pick(names, FILLS, bit);
}

const char *word_access_id(unsigned access)
{
	static const char *const names[] = {"syscall", "device", "user_mode"};

	return words_pick(names, ACCESSES, access);
}

const char *word_access(unsigned access)
{
	static const char *const names[] = {"system call", "/dev/userfaultfd", "user mode only"};

	return words_pick(names, ACCESSES, access);
}

const char *word_level(enum advice_level level)
{
	static const char *const names[] = {"required", "limit", "optional"};

	return words_pick(names, ADVICE_OPTIONAL + 1, level);
}

const char *word_verdict(enum exit_code verdict)
{
	switch (verdict) {
	case EXIT_ALL:
		return "all";
	case EXIT_LIMITS:
		return "limits";
	default:
		return "nothing";
	}
}

/* Seccomp: of /proc/PID/status, see proc_pid_status(5). */
const char *word_seccomp(int seccomp)
{
	static const char *const names[] = {"off", "strict", "filter"};

	return seccomp < 0 ? "not known" : words_pick(names, 3, (unsigned)seccomp);
}

const char *word_errno(int error)
{
	const char *name = errno_name(error);

	return name ? name : "unknown";
}

/* include/uapi/linux/userfaultfd.h; the releases are those of mainline. */
const struct feature feature_table[] = {
        {0, "PAGEFAULT_FLAG_WP", "5.7"},
        {1, "EVENT_FORK", "4.11"},
        {2, "EVENT_REMAP", "4.11"},
        {3, "EVENT_REMOVE", "4.11"},
        {4, "MISSING_HUGETLBFS", "4.11"},
        {5, "MISSING_SHMEM", "4.11"},
        {6, "EVENT_UNMAP", "4.11"},
        {7, "SIGBUS", "4.14"},
        {8, "THREAD_ID", "4.14"},
        {9, "MINOR_HUGETLBFS", "5.13"},
        {10, "MINOR_SHMEM", "5.14"},
        {11, "EXACT_ADDRESS", "5.18"},
        {12, "WP_HUGETLBFS_SHMEM", "5.19"},
        {13, "WP_UNPOPULATED", "6.4"},
        {14, "POISON", "6.6"},
        {15, "WP_ASYNC", "6.7"},
        {16, "MOVE", "6.8"},
        {17, "RWP", "7.3"},
        {18, "RWP_ASYNC", "7.3"},
};
const unsigned feature_count = sizeof feature_table / sizeof feature_table[0];

const struct part part_table[] = {
        {UFFDWP_BUILT_URING, "io_uring"}, {UFFDWP_BUILT_ZSTD, "zstd"},       {UFFDWP_BUILT_NUMA, "numa"},
        {UFFDWP_BUILT_NBD, "nbd"},        {UFFDWP_BUILT_CONTROL, "control"},
};
const unsigned part_count = sizeof part_table / sizeof part_table[0];
