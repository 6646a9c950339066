/* SPDX-License-Identifier: MIT */
/*
 * A view: a read-only mapping that keeps showing the memory of one instant, in the same process, while writers go on.
 *
 * The memory is a bank's accounts. A thread moves money between them, each move under a lock; so the sum is the same at
 * each instant between two moves. The view's cut is made with the lock taken; to read it needs none.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <uffdwp.h>

#define LENGTH_BYTES ((size_t)16 << 20)
#define ACCOUNTS (LENGTH_BYTES / sizeof(uint64_t))
#define START 1000u
#define READS 5

struct bank {
	pthread_mutex_t lock;
	uint64_t *accounts; /* the region's memory */
	atomic_ullong moves;
	atomic_int stop;
};

static int view_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static void *view_writer(void *argument)
{
	struct bank *bank = argument;
	uint64_t chance = 1;

	while (!atomic_load(&bank->stop)) {
		uint64_t *from, *to;

		chance = chance * 6364136223846793005u + 1442695040888963407u;
		from = &bank->accounts[(chance >> 20) % ACCOUNTS];
		to = &bank->accounts[(chance >> 42) % ACCOUNTS];
		pthread_mutex_lock(&bank->lock);
		if (*from > 0) {
			--*from;
			++*to;
			atomic_fetch_add(&bank->moves, 1);
		}
		pthread_mutex_unlock(&bank->lock);
	}
	return NULL;
}

static int view_enter(void *user)
{
	struct bank *bank = user;

	pthread_mutex_lock(&bank->lock);
	return 0;
}

static void view_leave(void *user)
{
	struct bank *bank = user;

	pthread_mutex_unlock(&bank->lock);
}

/* Reads the view READS times, with at least 1000 moves between two reads. */
static int view_read(const struct uffdwp_view *view, struct bank *bank)
{
	const uint64_t *accounts = uffdwp_view_base(view);
	uint64_t hash_first = 0;

	for (int read = 0; read < READS; read++) {
		unsigned long long goal = atomic_load(&bank->moves) + 1000;
		uint64_t sum = 0, hash = 0;

		for (size_t at = 0; at < ACCOUNTS; at++) {
			sum += accounts[at];
			hash = (hash ^ accounts[at]) * 0x100000001b3;
		}
		hash_first = read == 0 ? hash : hash_first;
		if (sum != START * ACCOUNTS || hash != hash_first) {
			fprintf(stderr, "read %d: the view has changed, or is of no instant\n", read);
			return 1;
		}
		while (atomic_load(&bank->moves) < goal)
			sched_yield();
	}
	return 0;
}

static int view_run(struct uffdwp_region *region, struct bank *bank)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view_info info = UFFDWP_INIT(struct uffdwp_view_info);
	struct uffdwp_view *view;
	unsigned long long moves;
	int result;
	int error;

	options.cut_enter = view_enter;
	options.cut_leave = view_leave;
	options.cut_user = bank;
	error = uffdwp_view_open(region, &options, &view);
	if (error != 0)
		return view_failed("uffdwp_view_open", error);
	moves = atomic_load(&bank->moves);
	result = view_read(view, bank);
	error = uffdwp_view_info(view, &info);
	if (error == 0 && result == 0)
		printf("the view gave one sum %d times while %llu moves were made; it took %llu KiB of its own\n",
		       READS, atomic_load(&bank->moves) - moves, (unsigned long long)info.private_bytes >> 10);
	uffdwp_view_close(view);
	return error != 0 ? view_failed("uffdwp_view_info", error) : result;
}

int main(void)
{
	struct bank bank = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	pthread_t writer;
	int result = 1;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return view_failed("uffdwp_open", error);
	error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region);
	if (error != 0) {
		result = view_failed("uffdwp_region_create", error);
	} else {
		bank.accounts = uffdwp_region_base(region);
		for (size_t at = 0; at < ACCOUNTS; at++)
			bank.accounts[at] = START;
		if (pthread_create(&writer, NULL, view_writer, &bank) == 0) {
			result = view_run(region, &bank);
			atomic_store(&bank.stop, 1);
			pthread_join(writer, NULL);
		}
		uffdwp_region_close(region);
	}
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
