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
#include <sys/mman.h>

#include "base/signals.h"
#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/trial_private.h"

#define PAGEOUT_TRIES 3
#define EVENT_WAIT_MS 5
#define EVENT_ROUNDS 1000

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

	if (!anonymous && fd < 0)
		return fd;
	out->fd = fd;
	out->address = bench->k->mmap(NULL, bench->page_bytes, PROT_READ | PROT_WRITE, flags, fd, 0, &error);
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
	void *zeros = bench->k->mmap(NULL, bench->page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
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

/* A page that was never touched has nothing to lose but its mark: a zap of the file's range must leave that. (Of
 * anonymous memory a zap takes every mark, and an event tells.) */
int trial_change_untouched(struct trial_bench *bench, struct trial_scratch *scratch)
{
	if (bench->memory == UFFDWP_MEMORY_ANON)
		return 0;
	(void)trial_change_dontneed(bench, scratch); /* of huge pages refused before 5.18 */
	return trial_change_punch(bench, scratch);
}

int trial_change_swap(struct trial_bench *bench, struct trial_scratch *scratch)
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
	sigset_t before;
	int error;

	signals_block(&before);
	error = pthread_create(thread, NULL, run, argument);
	signals_restore(&before);
	return -error;
}

int trial_change_mremap(struct trial_bench *bench, struct trial_scratch *scratch)
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
