/* SPDX-License-Identifier: MIT */
/*
 * The rival's method to make an image: fork(), and the child writes out the memory as it was, while copy on write keeps
 * it so. Private anonymous memory, no transparent huge pages; pieces of 1 MiB; through the page cache, or with
 * O_DIRECT. As durable as the library's: written aside, fsync, rename, fsync of the folder.
 *
 * The child of a program with threads calls nothing that is not async-signal-safe, and ends with its parent.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "image.h"
#include "trial.h"

static struct {
	struct area area;
	pid_t child;
	uint64_t pause_ns;
	struct image image;
} forked;

static void open_fork(const struct trial_method *method, const struct trial_setup *setup, struct area *area)
{
	(void)method;
	area_map(&forked.area, UFFDWP_MEMORY_ANON, setup->size_bytes);
	*area = forked.area;
}

/* In the child. The exit status is the errno of what failed. */
static int write_image(const char *path)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	error = image_create(&forked.image);
	if (!error)
		error = image_append(&forked.image, forked.area.base, forked.area.length_bytes);
	if (!error)
		error = image_commit(&forked.image, path);
	return -error;
}

static void begin(const struct trial_method *method, const struct trial_setup *setup, const struct trial_cut *cut)
{
	uint64_t from;

	image_prepare(&forked.image, setup->folder, method->variant);
	from = bench_now_ns();
	forked.child = fork();
	if (forked.child == 0)
		_exit(write_image(cut->path));
	forked.pause_ns = bench_now_ns() - from;
	if (forked.child < 0)
		bench_die("fork: %s", strerror(errno));
}

static void wait_for_child(void)
{
	int status;

	while (waitpid(forked.child, &status, 0) < 0) {
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	}
	image_fini(&forked.image);
	if (WIFSIGNALED(status))
		bench_die("the child of fork() was ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		bench_die("the child of fork() could not write its image: %s", strerror(WEXITSTATUS(status)));
}

static pid_t child(void)
{
	return forked.child;
}

static void result_of(const struct load_result *during, struct trial_result *result)
{
	double copied = (double)during->minor_faults;

	result->values[TRIAL_PAUSE_NS] = (double)forked.pause_ns;
	result->values[TRIAL_BEGIN_NS] = (double)forked.pause_ns;
	result->values[TRIAL_FAULTS] = copied;
	result->values[TRIAL_PAGES_FAULT] = copied;
	result->values[TRIAL_PREIMAGE_PEAK_BYTES] = copied * (double)forked.area.page_bytes;
	result->values[TRIAL_WRITTEN_BYTES] = (double)forked.area.length_bytes;
	result->direct = (uint32_t)forked.image.direct;
}

static void end(void)
{
}

static void close_fork(void)
{
	area_unmap(&forked.area);
}

const struct trial_method trial_fork = {"fork", 0, open_fork, begin, wait_for_child, result_of, end, close_fork, child};
const struct trial_method trial_fork_direct = {"fork_direct", 1,   open_fork,  begin, wait_for_child,
                                               result_of,     end, close_fork, child};
