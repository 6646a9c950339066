/* SPDX-License-Identifier: MIT */
/*
 * Trials: what this kernel does with an armed page, seen rather than deduced from its version.
 *
 * Idea: map a page of the type in question, arm it, let something happen to it, and have a SYSTEM CALL write to it. On
 * a userfaultfd with UFFD_FEATURE_SIGBUS a system call that meets an armed page answers EFAULT: the mark was kept;
 * success means that the write passed unseen: lost. To be sure that EFAULT came from the mark, the page is disarmed
 * afterwards and must then be writable.
 *
 * Words: bench: the userfaultfd and what it may do; scratch: the page under trial; change: what happens to it.
 *
 * Threads: trials run inside foreign processes, also beside other threads: no signal handler is touched and the
 * environment stays as it is. One trial needs a thread for some microseconds, with all signals blocked: mremap() sleeps
 * until somebody has read its event.
 *
 * Never: touch scratch memory by a load or a store (a huge page that is not to be had would be a SIGBUS), hang, or
 * leave memory, descriptors or threads behind.
 */
#include "kernel/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/procfs.h"

#define FEATURES                                                                                                       \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMAP |                             \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED)

#define PAGEOUT_TRIES 3
#define EVENT_WAIT_MS 5
#define EVENT_ROUNDS 1000

struct scratch {
	char *address;
	int fd; /* -1: anonymous */
};

static const char *error_name(int error)
{
	const char *name = strerrorname_np(-error);

	return name ? name : "an unknown error";
}

static uint64_t scratch_page_bytes(const struct kernel_ops *k, enum uffdwp_memory memory)
{
	uint64_t system_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t huge_kib;

	if (memory != UFFDWP_MEMORY_HUGETLB)
		return system_bytes;
	return procfs_number(k, "/proc/meminfo", "Hugepagesize:", &huge_kib) == 0 ? huge_kib * 1024 : system_bytes;
}

int trial_open(const struct kernel_ops *k, enum kernel_access access, enum uffdwp_memory memory, int swap_on,
               struct trial_bench *bench)
{
	uint64_t features;
	int uffd = kernel_uffd_new(k, access, FEATURES, &features);

	if (uffd < 0)
		return uffd;
	*bench = (struct trial_bench){.k = k,
	                              .memory = memory,
	                              .page_bytes = scratch_page_bytes(k, memory),
	                              .features = features,
	                              .uffd = uffd,
	                              .swap_on = swap_on};
	return 0;
}

void trial_close(struct trial_bench *bench)
{
	if (bench->uffd >= 0)
		bench->k->close(bench->uffd);
	bench->uffd = -1;
}

/* ------------------------------------------------------------------------------------------------------ scratch -- */

static int scratch_file(const struct trial_bench *bench)
{
	unsigned flags = MFD_CLOEXEC | (bench->memory == UFFDWP_MEMORY_HUGETLB ? MFD_HUGETLB : 0);
	int fd = bench->k->memfd_create("uffdwp-trial", flags);
	int error;

	if (fd < 0)
		return fd;
	error = bench->k->ftruncate(fd, bench->page_bytes);
	if (error == 0)
		return fd;
	bench->k->close(fd);
	return error;
}

/* extra: MAP_NORESERVE, or 0: then a huge page that is mapped can also be had. */
static int scratch_map(const struct trial_bench *bench, int extra, struct scratch *out)
{
	int anonymous = bench->memory == UFFDWP_MEMORY_ANON;
	int flags = extra | (anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	int fd = anonymous ? -1 : scratch_file(bench);
	int error = 0;

	if (!anonymous && fd < 0)
		return fd;
	out->fd = fd;
	out->address = bench->k->mmap(NULL, bench->page_bytes, PROT_READ | PROT_WRITE, flags, fd, 0, &error);
	if (!out->address && fd >= 0)
		bench->k->close(fd);
	return out->address ? 0 : error;
}

static void scratch_free(const struct trial_bench *bench, const struct scratch *scratch)
{
	bench->k->munmap(scratch->address, bench->page_bytes);
	if (scratch->fd >= 0)
		bench->k->close(scratch->fd);
}

static int scratch_register(const struct trial_bench *bench, const struct scratch *scratch)
{
	return bench->k->uffd_register(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes,
	                               UFFDIO_REGISTER_MODE_WP);
}

static int scratch_protect(const struct trial_bench *bench, const struct scratch *scratch, uint64_t mode)
{
	return bench->k->uffd_writeprotect(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, mode);
}

int trial_register(const struct trial_bench *bench)
{
	struct scratch scratch;
	int error = scratch_map(bench, MAP_NORESERVE, &scratch);

	if (error)
		return error;
	error = scratch_register(bench, &scratch);
	scratch_free(bench, &scratch);
	return error;
}

/* ------------------------------------------------------------------------------------------------------ changes -- */

/* A change answers 0: done, 1: the kernel did not do it though it did not refuse, or -errno. */

static int change_nothing(struct trial_bench *bench, struct scratch *scratch)
{
	(void)bench;
	(void)scratch;
	return 0;
}

static int change_dontneed(struct trial_bench *bench, struct scratch *scratch)
{
	return bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);
}

static int change_punch(struct trial_bench *bench, struct scratch *scratch)
{
	return bench->k->fallocate(scratch->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bench->page_bytes);
}

static int change_swap(struct trial_bench *bench, struct scratch *scratch)
{
	uint64_t present = 1;
	int error = 0;

	for (int i = 0; i < PAGEOUT_TRIES && present && !error; i++) {
		error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_PAGEOUT);
		if (error == 0)
			error = pagemap_present(bench->k, (uintptr_t)scratch->address, bench->page_bytes, &present);
	}
	if (error)
		return error;
	return present != 0;
}

/* A free place for one page, aligned to its size. */
static char *reserve_place(const struct trial_bench *bench, int *error)
{
	size_t page_bytes = bench->page_bytes;
	char *wide = bench->k->mmap(NULL, 2 * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
	                            error);
	size_t head = wide ? (size_t)(-(uintptr_t)wide & (page_bytes - 1)) : 0;

	if (!wide)
		return NULL;
	if (head)
		bench->k->munmap(wide, head);
	bench->k->munmap(wide + head + page_bytes, page_bytes - head);
	return wide + head;
}

struct move {
	const struct trial_bench *bench;
	char *from;
	char *to;
	char *moved; /* NULL: see error */
	int error;
	_Atomic int done;
};

static void *move_main(void *argument)
{
	struct move *move = argument;
	size_t length = move->bench->page_bytes;

	move->moved = move->bench->k->mremap(move->from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, move->to,
	                                     &move->error);
	atomic_store(&move->done, 1);
	return NULL;
}

/* Lets mremap() go on: it sleeps until its event was read. Ends at the event, or when it returned without one. 0, or
 * -ETIMEDOUT: the event is there and cannot be read. */
static int read_event(struct move *move)
{
	const struct trial_bench *bench = move->bench;
	struct uffd_msg message;

	for (int round = 0; round < EVENT_ROUNDS; round++) {
		if (atomic_load(&move->done))
			return 0;
		if (bench->k->poll(bench->uffd, POLLIN, EVENT_WAIT_MS) <= 0)
			continue;
		if (bench->k->uffd_read(bench->uffd, &message, 1) > 0 && message.event == UFFD_EVENT_REMAP)
			return 0;
	}
	return -ETIMEDOUT;
}

static int start_silent_thread(pthread_t *thread, void *(*run)(void *), void *argument)
{
	sigset_t all;
	sigset_t before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread, NULL, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

static int change_mremap(struct trial_bench *bench, struct scratch *scratch)
{
	struct move move = {.bench = bench, .from = scratch->address};
	pthread_t thread;
	int error = 0;

	move.to = reserve_place(bench, &error);
	if (!move.to)
		return error;
	error = start_silent_thread(&thread, move_main, &move);
	if (error == 0) {
		/* A descriptor that is closed lets everybody go who waits for it. */
		if (read_event(&move) != 0)
			trial_close(bench);
		pthread_join(thread, NULL);
		error = move.moved ? 0 : move.error;
	}
	if (error == 0)
		scratch->address = move.moved;
	else
		bench->k->munmap(move.to, bench->page_bytes);
	return error;
}

/* ------------------------------------------------------------------------------------------------------- trials -- */

struct trial_plan {
	const char *name;
	int (*change)(struct trial_bench *bench, struct scratch *scratch);
	int populate; /* the page is written before it is armed */
};

static const struct trial_plan plans[UFFDWP_TRIAL_COUNT] = {
        [UFFDWP_TRIAL_POPULATED] = {"nothing", change_nothing, 1},
        [UFFDWP_TRIAL_UNPOPULATED] = {"nothing", change_nothing, 0},
        [UFFDWP_TRIAL_DONTNEED] = {"MADV_DONTNEED", change_dontneed, 1},
        [UFFDWP_TRIAL_PUNCH] = {"FALLOC_FL_PUNCH_HOLE", change_punch, 1},
        [UFFDWP_TRIAL_SWAP] = {"MADV_PAGEOUT", change_swap, 1},
        [UFFDWP_TRIAL_MREMAP] = {"mremap", change_mremap, 1},
};

/* Why a trial makes no sense here, or NULL. */
static const char *untried_because(const struct trial_bench *bench, enum uffdwp_trial trial)
{
	if (!(bench->features & UFFD_FEATURE_SIGBUS))
		return "no UFFD_FEATURE_SIGBUS: a trial could hang";
	if (trial == UFFDWP_TRIAL_PUNCH && bench->memory == UFFDWP_MEMORY_ANON)
		return "there is no file behind this memory";
	if (trial == UFFDWP_TRIAL_SWAP && bench->memory == UFFDWP_MEMORY_HUGETLB)
		return "huge pages are never swapped out";
	if (trial == UFFDWP_TRIAL_SWAP && !bench->swap_on)
		return "no swap is on: nothing can be swapped out until swapon(8)";
	if (trial == UFFDWP_TRIAL_MREMAP && !(bench->features & UFFD_FEATURE_EVENT_REMAP))
		return "no UFFD_FEATURE_EVENT_REMAP: mremap takes the registration along with nobody told";
	return NULL;
}

static enum uffdwp_answer say(enum uffdwp_answer answer, char *reason, size_t size, const char *what, int error)
{
	if (error)
		(void)snprintf(reason, size, "%s: %s", what, error_name(error));
	else
		(void)snprintf(reason, size, "%s", what);
	return answer;
}

/* Does the mark hold? The read before the write is part of the trial: it fills an empty entry, mark or no mark. */
static enum uffdwp_answer look(const struct trial_bench *bench, const struct scratch *scratch, char *reason,
                               size_t size)
{
	char byte;
	int error;

	(void)bench->k->read_self(&byte, scratch->address, 1);
	error = bench->k->try_write(scratch->address);
	if (error == 0)
		return UFFDWP_ANSWER_LOST;
	if (error != -EFAULT)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "the write", error);
	error = scratch_protect(bench, scratch, 0);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "disarming", error);
	error = bench->k->try_write(scratch->address);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "the page cannot be written when disarmed", error);
	return UFFDWP_ANSWER_KEPT;
}

static enum uffdwp_answer run_on(struct trial_bench *bench, const struct trial_plan *plan, struct scratch *scratch,
                                 char *reason, size_t size)
{
	int error = plan->populate ? bench->k->try_write(scratch->address) : 0;

	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "no memory for the page", error);
	error = scratch_register(bench, scratch);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "UFFDIO_REGISTER", error);
	error = scratch_protect(bench, scratch, UFFDIO_WRITEPROTECT_MODE_WP);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "UFFDIO_WRITEPROTECT", error);
	error = plan->change(bench, scratch);
	if (error > 0)
		return say(UFFDWP_ANSWER_UNTRIED, reason, size, "the kernel left the page where it was", 0);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, plan->name, error);
	return look(bench, scratch, reason, size);
}

enum uffdwp_answer trial_run(struct trial_bench *bench, enum uffdwp_trial trial, char *reason, size_t size)
{
	const char *because = untried_because(bench, trial);
	struct scratch scratch;
	enum uffdwp_answer answer;
	int error;

	reason[0] = '\0';
	if (because)
		return say(UFFDWP_ANSWER_UNTRIED, reason, size, because, 0);
	error = scratch_map(bench, 0, &scratch);
	if (error == -ENOMEM && bench->memory == UFFDWP_MEMORY_HUGETLB)
		return say(UFFDWP_ANSWER_UNTRIED, reason, size,
		           "no huge page is free: write 8 to /proc/sys/vm/nr_hugepages", 0);
	if (error)
		return say(UFFDWP_ANSWER_FAILED, reason, size, "no scratch memory", error);
	answer = run_on(bench, &plans[trial], &scratch, reason, size);
	scratch_free(bench, &scratch);
	return answer;
}

/* ---------------------------------------------------------------------------------------------------- witnesses -- */

static int armed_scratch_shows(const struct trial_bench *bench, const struct scratch *scratch)
{
	uint64_t pages;
	int error = bench->k->try_write(scratch->address);

	if (error == 0)
		error = scratch_register(bench, scratch);
	if (error == 0)
		error = scratch_protect(bench, scratch, UFFDIO_WRITEPROTECT_MODE_WP);
	if (error == 0)
		error = pagemap_armed(bench->k, (uintptr_t)scratch->address, bench->page_bytes, &pages);
	return error ? error : pages != 0;
}

int trial_bit57(const struct trial_bench *bench)
{
	struct scratch scratch;
	int result = scratch_map(bench, 0, &scratch);

	if (result)
		return result;
	result = armed_scratch_shows(bench, &scratch);
	scratch_free(bench, &scratch);
	return result;
}

int trial_scan(const struct kernel_ops *k)
{
	struct trial_bench bench = {.k = k, .memory = UFFDWP_MEMORY_ANON, .uffd = -1};
	struct scratch scratch;
	uint64_t pages;
	int error;

	bench.page_bytes = scratch_page_bytes(k, bench.memory);
	error = scratch_map(&bench, 0, &scratch);
	if (error)
		return error;
	error = pagemap_written(k, (uintptr_t)scratch.address, bench.page_bytes, &pages);
	scratch_free(&bench, &scratch);
	return error;
}
