/* SPDX-License-Identifier: MIT */
/*
 * A snapshot in an event loop: its descriptor stands in epoll(7) beside the program's other work.
 *
 * The other work is a timer: at each tick the program adds 1 to some counters in the region. After a while it begins a
 * snapshot, without waiting for it, and goes on. The descriptor of uffdwp_snapshot_fd() becomes readable when the
 * snapshot has ended. The thread that writes to the memory also begins the snapshot, so the cut lies between two ticks,
 * and the image's counters add up to what was added until then.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <uffdwp.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)16 << 20)
#define COUNTERS (LENGTH_BYTES / sizeof(uint64_t))
#define TICK_NS 1000000
#define ADDED_AT_TICK 500u
#define BEGIN_AFTER 20u /* ticks */
#define PATH "eventloop.raw"

struct loop {
	int epoll;
	int timer;
	struct uffdwp_region *region;
	struct uffdwp_snapshot *snapshot; /* NULL: none runs */
	uint64_t ticks, ticks_at_cut, ticks_at_end;
};

static int eventloop_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static int eventloop_watch(const struct loop *loop, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int eventloop_begin(struct loop *loop)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	int fd;
	int error;

	options.path = PATH;
	error = uffdwp_snapshot_begin(loop->region, &options, &loop->snapshot);
	if (error != 0)
		return eventloop_failed("uffdwp_snapshot_begin", error);
	loop->ticks_at_cut = loop->ticks;
	fd = uffdwp_snapshot_fd(loop->snapshot);
	return fd < 0 ? eventloop_failed("uffdwp_snapshot_fd", fd) : eventloop_watch(loop, fd);
}

/* The snapshot has ended: well, or with an error. */
static int eventloop_end(struct loop *loop)
{
	char text[512];
	int error = uffdwp_snapshot_wait(loop->snapshot, 0, NULL);

	uffdwp_snapshot_text(loop->snapshot, text, sizeof(text));
	uffdwp_snapshot_free(loop->snapshot); /* its descriptor leaves epoll with it */
	loop->snapshot = NULL;
	loop->ticks_at_end = loop->ticks;
	if (error != 0)
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
	return error != 0;
}

static int eventloop_tick(struct loop *loop)
{
	uint64_t *counters = uffdwp_region_base(loop->region);
	uint64_t expired; /* not in the region: a system call writes to it */

	if (read(loop->timer, &expired, sizeof(expired)) != sizeof(expired))
		return 1;
	for (uint64_t at = 0; at < ADDED_AT_TICK; at++)
		counters[(loop->ticks * ADDED_AT_TICK + at) * 7919 % COUNTERS]++;
	return ++loop->ticks == BEGIN_AFTER ? eventloop_begin(loop) : 0;
}

static int eventloop_loop(struct loop *loop)
{
	const struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
	int result = timerfd_settime(loop->timer, 0, &every, NULL) | eventloop_watch(loop, loop->timer);

	while (result == 0 && (loop->ticks < 2 * BEGIN_AFTER || loop->snapshot != NULL)) {
		struct epoll_event events[2];
		int count = epoll_wait(loop->epoll, events, 2, -1);

		for (int at = 0; at < count && result == 0; at++)
			result = events[at].data.fd == loop->timer ? eventloop_tick(loop) : eventloop_end(loop);
	}
	uffdwp_snapshot_free(loop->snapshot); /* NULL, unless the loop was left early */
	return result;
}

/* Whether the image's counters add up to what was added until the cut. */
static int eventloop_check(const struct loop *loop)
{
	FILE *file = fopen(PATH, "rb");
	uint64_t counter;
	uint64_t sum = 0;

	while (file != NULL && fread(&counter, sizeof(counter), 1, file) == 1)
		sum += counter;
	if (file != NULL)
		fclose(file);
	printf("%llu ticks, %llu of them while the snapshot ran; the image has those before the cut: %llu, found "
	       "%.3f\n",
	       (unsigned long long)loop->ticks, (unsigned long long)(loop->ticks_at_end - loop->ticks_at_cut),
	       (unsigned long long)loop->ticks_at_cut, (double)sum / ADDED_AT_TICK);
	return sum == loop->ticks_at_cut * ADDED_AT_TICK ? 0 : 1;
}

int main(void)
{
	struct loop loop = {0};
	struct uffdwp *runtime;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return eventloop_failed("uffdwp_open", error);
	error = uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &loop.region);
	if (error != 0) {
		result = eventloop_failed("uffdwp_region_create", error);
	} else {
		loop.epoll = epoll_create1(EPOLL_CLOEXEC);
		loop.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
		result = eventloop_loop(&loop);
		result = result != 0 ? result : eventloop_check(&loop);
		uffdwp_region_close(loop.region);
		close(loop.timer);
		close(loop.epoll);
	}
	unlink(PATH);
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
