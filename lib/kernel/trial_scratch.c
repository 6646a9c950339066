/* SPDX-License-Identifier: MIT */
/*
 * The page under trial: how it is made, filled, changed and given back. See trial.c.
 *
 * Threads: mremap() of registered memory sleeps until its event was read, so that one change needs a thread for some
 * microseconds, with all signals blocked. Never: touch the page by a load or a store.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/errno_name.h"
#include "base/thread.h"
#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/trial_private.h"

#define PAGEOUT_TRIES 3
#define EVENT_WAIT_MS 5
#define EVENT_ROUNDS 1000

void trial_close(struct trial_bench *bench)
{
	if (bench->uffd >= 0)
		bench->k->close(bench->uffd);
	bench->uffd = -1;
}

enum uffdwp_answer trial_say(struct trial_bench *bench, enum uffdwp_answer answer, const char *what, int error)
{
	const char *name = error ? errno_name(error) : "";

	if (kernel_is_passing(error) && !bench->passing)
		bench->passing = error;
	(void)snprintf(bench->reason, sizeof bench->reason, "%s%s%s", what, error ? ": " : "",
	               name ? name : "an unknown error");
	return answer;
}

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

int trial_scratch_map(const struct trial_bench *bench, int extra, struct trial_scratch *out)
{
	int anonymous = bench->memory == UFFDWP_MEMORY_ANON;
	int flags = extra | (anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	int fd = anonymous ? -1 : scratch_file(bench);
	int error = 0;

	out->fd = fd;
	if (!anonymous && fd < 0)
		return fd;
	out->address = bench->k->mmap_unlocked(bench->page_bytes, PROT_READ | PROT_WRITE, flags, fd, 0, &error);
	if (!out->address && fd >= 0)
		bench->k->close(fd);
	return out->address ? 0 : error;
}

void trial_scratch_free(const struct trial_bench *bench, const struct trial_scratch *scratch)
{
	bench->k->munmap(scratch->address, bench->page_bytes);
	if (scratch->fd >= 0)
		bench->k->close(scratch->fd);
}

int trial_scratch_protect(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode)
{
	return bench->k->uffd_writeprotect(bench->uffd, (uintptr_t)scratch->address, bench->page_bytes, mode);
}

/* Pages that were never written are the zeros to copy from, huge pages' worth of them too. */
int trial_scratch_copy(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t mode)
{
	int error = 0;
	void *zeros = bench->k->mmap_unlocked(bench->page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	                                      -1, 0, &error);

	if (!zeros)
		return error;
	error = bench->k->uffd_copy(bench->uffd, (uintptr_t)scratch->address, zeros, bench->page_bytes, mode);
	bench->k->munmap(zeros, bench->page_bytes);
	return error;
}

/* ------------------------------------------------------------------------------------------------------ changes -- */

int trial_change_nothing(struct trial_bench *bench, struct trial_scratch *scratch)
{
	(void)bench;
	(void)scratch;
	return 0;
}

int trial_change_dontneed(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return bench->k->madvise(scratch->address, bench->page_bytes, MADV_DONTNEED);
}

int trial_change_punch(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return bench->k->fallocate(scratch->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bench->page_bytes);
}

/* A page that was never touched has nothing to lose but its wp bit: a zap of the file's range must leave that. (A zap
 * of anonymous memory clears every wp bit, and an event reports it.) */
int trial_change_untouched(struct trial_bench *bench, struct trial_scratch *scratch)
{
	if (bench->memory == UFFDWP_MEMORY_ANON)
		return 0;
	(void)trial_change_dontneed(bench, scratch); /* of huge pages refused before 5.18 */
	return trial_change_punch(bench, scratch);
}

/* Is the page in memory? A process that may not look into its pagemap (after setuid(2), without /proc) asks mincore(2),
 * which takes the swap cache for memory: then the trial is not made. */
static int scratch_present(const struct trial_bench *bench, const struct trial_scratch *scratch, uint64_t *present)
{
	int error = pagemap_present(bench->k, (uintptr_t)scratch->address, bench->page_bytes, present);
	unsigned char in_memory;

	if (error != -EACCES && error != -EPERM && error != -ENOENT)
		return error;
	error = bench->k->mincore(scratch->address, bench->page_bytes, &in_memory);
	*present = in_memory & 1;
	return error;
}

int trial_change_swap(struct trial_bench *bench, struct trial_scratch *scratch)
{
	uint64_t present = 1;
	int error = 0;

	for (int i = 0; i < PAGEOUT_TRIES && present && !error; i++) {
		error = bench->k->madvise(scratch->address, bench->page_bytes, MADV_PAGEOUT);
		if (error == 0)
			error = scratch_present(bench, scratch, &present);
	}
	if (error)
		return error;
	return present != 0;
}

/* A free place of a length that is a power of two, aligned to it. */
static char *trial_scratch_reserve_place(const struct trial_bench *bench, size_t length, int *error)
{
	char *wide = bench->k->mmap_unlocked(2 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
	                                     error);
	size_t head = wide ? (size_t)(-(uintptr_t)wide & (length - 1)) : 0;

	if (!wide)
		return NULL;
	if (head)
		bench->k->munmap(wide, head);
	bench->k->munmap(wide + head + length, length - head);
	return wide + head;
}

struct move {
	const struct trial_bench *bench;
	char *from;
	char *to;
	size_t length;
	int flags;   /* beside MREMAP_MAYMOVE and MREMAP_FIXED */
	char *moved; /* NULL: see error */
	int error;
	_Atomic int done;
	int is_begun; /* the caller's */
};

static void *trial_scratch_move_main(void *argument)
{
	struct move *move = argument;

	move->moved = move->bench->k->mremap(move->from, move->length, move->length,
	                                     MREMAP_MAYMOVE | MREMAP_FIXED | move->flags, move->to, &move->error);
	atomic_store(&move->done, 1);
	return NULL;
}

/* Resumes mremap(), which sleeps until its event was read. Ends at the event, or when it returned without one. 0, or
 * -ETIMEDOUT: the event is there and cannot be read. */
static int trial_scratch_read_event(struct move *move)
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

int trial_scratch_move(struct trial_bench *bench, const struct trial_scratch *scratch, size_t length, int flags,
                       char **target)
{
	struct move move = {.bench = bench, .from = scratch->address, .length = length, .flags = flags};
	pthread_t thread;
	int error = 0;

	move.to = trial_scratch_reserve_place(bench, length, &error);
	if (!move.to)
		return error;
	error = thread_spawn(&thread, NULL, trial_scratch_move_main, &move);
	if (error == 0) {
		move.is_begun = 1;
		/* A descriptor that is closed resumes all threads that wait for it. */
		if (trial_scratch_read_event(&move) != 0)
			trial_close(bench);
		pthread_join(thread, NULL);
		error = move.moved ? 0 : move.error;
	}
	if (error == 0)
		*target = move.moved;
	else if (!move.is_begun) /* else the kernel has unmapped it, and it may be another thread's by now */
		bench->k->munmap(move.to, length);
	return error;
}

int trial_change_mremap(struct trial_bench *bench, struct trial_scratch *scratch)
{
	return trial_scratch_move(bench, scratch, bench->page_bytes, 0, &scratch->address);
}
