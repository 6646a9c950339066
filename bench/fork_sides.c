/* SPDX-License-Identifier: MIT */
/*
 * The sides of the question `fork`, one open at a time.
 *
 * Plain: fork() of private anonymous memory, without transparent huge pages. Library: uffdwp_fork() of a created region
 * of shared memory. Bare: fork_bare.c.
 *
 * Threads: the main thread only.
 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "fork.h"
#include "fork_bare.h"

#define PROBE_BYTES ((size_t)1 << 20)
#define END_NS UINT64_C(10000000000)

/* ------------------------------------------------------------------------------------------------------ fork() -- */

static struct area fork_sides_plain;

static void fork_sides_open_plain(const struct fork_side *side, size_t size_bytes, struct area *area)
{
	(void)side;
	area_map_touched(&fork_sides_plain, UFFDWP_MEMORY_ANON, size_bytes);
	*area = fork_sides_plain;
}

static pid_t fork_sides_fork_plain(void)
{
	pid_t child = fork();

	return child < 0 ? -errno : child;
}

static void fork_sides_no_account(struct uffdwp_child_info *info)
{
	memset(info, 0, sizeof(*info));
}

static void fork_sides_nothing(void)
{
}

static void fork_sides_is_ready(pid_t child)
{
	(void)child;
}

static void fork_sides_close_plain(void)
{
	area_unmap(&fork_sides_plain);
}

/* ------------------------------------------------------------------------------------------------- the library -- */

static struct {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_fork_options options;
	struct uffdwp_child *child;
} library;

static void fork_sides_open_library(const struct fork_side *side, size_t size_bytes, struct area *area)
{
	struct library_setup setup = {
	        .memory = UFFDWP_MEMORY_SHMEM,
	        .delivery = (enum uffdwp_delivery)side->delivery,
	        .length_bytes = size_bytes,
	};

	library.runtime = library_runtime(0, NULL);
	library_region(library.runtime, &setup, &library.region, area);
	library.options = (struct uffdwp_fork_options)UFFDWP_FORK_OPTIONS_INIT;
	library.options.arming = side->arming;
	library.options.regions = &library.region;
	library.options.region_count = 1;
	library.child = NULL;
}

static pid_t fork_sides_fork_library(void)
{
	return uffdwp_fork(library.runtime, &library.options, &library.child);
}

static void fork_sides_account_library(struct uffdwp_child_info *info)
{
	*info = (struct uffdwp_child_info){.sz = sizeof(*info)};
	bench_must(uffdwp_child_info(library.child, info), "uffdwp_child_info");
	if (info->state == UFFDWP_CHILD_STATE_KILLED)
		bench_die("the library has ended the child: %s", strerror(-info->error));
}

static int fork_sides_is_running(void)
{
	struct uffdwp_child_info info;

	fork_sides_account_library(&info);
	return info.state == UFFDWP_CHILD_STATE_RUNNING;
}

/* The next call is made when the library knows that the child has ended. */
static void fork_sides_end_library(void)
{
	struct timespec pause = {0, 1000000};
	uint64_t until_ns = bench_now_ns() + END_NS;

	while (fork_sides_is_running()) {
		if (bench_now_ns() > until_ns)
			bench_die("the library has not noticed for %d s that the child has ended",
			          (int)(END_NS / 1000000000u));
		nanosleep(&pause, NULL);
	}
	bench_must(uffdwp_child_free(library.child), "uffdwp_child_free");
	library.child = NULL;
}

static void fork_sides_close_library(void)
{
	bench_must(uffdwp_region_close(library.region), "uffdwp_region_close");
	bench_must(uffdwp_close(library.runtime), "uffdwp_close");
}

/* ---------------------------------------------------------------------------------------------------- the table -- */

#define LIBRARY                                                                                                        \
	.open = fork_sides_open_library, .fork = fork_sides_fork_library, .ready = fork_sides_is_ready,                \
	.account = fork_sides_account_library, .ended = fork_sides_end_library, .close = fork_sides_close_library

const struct fork_side fork_sides[FORK_SIDES] = {
        [FORK_PLAIN] = {"fork",
                        {"fork()", "#D55E00"},
                        .open = fork_sides_open_plain,
                        .fork = fork_sides_fork_plain,
                        .ready = fork_sides_is_ready,
                        .account = fork_sides_no_account,
                        .ended = fork_sides_nothing,
                        .close = fork_sides_close_plain},
        [FORK_THREAD] = {"thread",
                         {"uffdwp_fork(), thread", "#56B4E9"},
                         .is_library = 1,
                         .delivery = UFFDWP_DELIVERY_THREAD,
                         .arming = UFFDWP_ARMING_MOVE,
                         LIBRARY},
        [FORK_INLINE] = {"inline",
                         {"uffdwp_fork(), inline", "#0072B2"},
                         .is_library = 1,
                         .delivery = UFFDWP_DELIVERY_INLINE,
                         .arming = UFFDWP_ARMING_MOVE,
                         LIBRARY},
        [FORK_INLINE_AUTO] = {"inline_auto",
                              {"uffdwp_fork(), inline, rounds", "#009E73"},
                              .is_library = 1,
                              .delivery = UFFDWP_DELIVERY_INLINE,
                              .arming = UFFDWP_ARMING_AUTO,
                              LIBRARY},
        [FORK_BARE] = {"bare",
                       {"the bare calls", "#000000"},
                       .open = fork_bare_open,
                       .fork = fork_bare_fork,
                       .ready = fork_bare_ready,
                       .account = fork_sides_no_account,
                       .ended = fork_bare_ended,
                       .close = fork_bare_close},
};

/* -------------------------------------------------------------------------------------------- what is available -- */

static int fork_sides_try(const struct fork_side *side)
{
	struct area area;
	pid_t child;
	int status = 0;

	side->open(side, PROBE_BYTES, &area);
	child = side->fork();
	if (child == 0)
		_exit(0);
	if (child > 0)
		side->ready(child);
	if (child > 0 && waitpid(child, &status, 0) != child)
		bench_die("waitpid: %s", strerror(errno));
	if (status)
		bench_die("%s: a child that does nothing has ended with status %d", side->name, status);
	if (child > 0)
		side->ended();
	side->close();
	return child < 0 ? child : 0;
}

const char *fork_side_refuses(const struct fork_side *side)
{
	static char text[512];
	const char *reason = NULL;
	int error;

	if (side->is_library)
		reason = library_refuses(UFFDWP_MEMORY_SHMEM, library_best(UFFDWP_MEMORY_SHMEM),
		                         (enum uffdwp_delivery)side->delivery);
	if (reason)
		return reason;
	error = fork_sides_try(side);
	if (error == 0)
		return NULL;
	if (error != -EOPNOTSUPP && error != -EINVAL)
		bench_die("%s: the call failed: %s", side->name, strerror(-error));
	if (!side->is_library || uffdwp_error_text(text, sizeof(text)) == 0)
		return strerror(-error);
	return text;
}
