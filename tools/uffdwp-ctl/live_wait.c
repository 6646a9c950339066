/* SPDX-License-Identifier: MIT */
/* See live_wait.h. */
#include "live_wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

#include "stops.h"

static struct stops stops;
static volatile sig_atomic_t resized;
static volatile sig_atomic_t paused;
static sigset_t waiting; /* the mask while this program waits */
static int catching;

int64_t live_wait_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void live_wait_take(int number)
{
	if (number == SIGWINCH)
		resized = 1;
	else if (number == SIGTSTP)
		paused = 1;
	else
		stops_take(&stops, live_wait_now_ms());
}

void live_wait_catch(int screen)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP};
	struct sigaction action = {.sa_handler = live_wait_take};
	sigset_t blocked;

	(void)sigemptyset(&blocked);
	(void)sigfillset(&action.sa_mask);
	for (unsigned i = 0; i < (screen ? 5u : 3u); i++) {
		struct sigaction before;

		/* What was ignored by the program that started this one (nohup) stays so. */
		if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN)
			continue;
		(void)sigaction(numbers[i], &action, NULL);
		(void)sigaddset(&blocked, numbers[i]);
	}
	(void)sigprocmask(SIG_BLOCK, &blocked, &waiting);
	catching = 1;
}

int live_wait_stops(void)
{
	return stops.count;
}

int live_wait_resized(void)
{
	int was = resized;

	resized = 0;
	return was;
}

int live_wait_paused(void)
{
	int was = paused;

	paused = 0;
	return was;
}

void live_wait_pause(void)
{
	(void)raise(SIGSTOP);
}

int live_wait(int fd, int events, int64_t until_ms)
{
	struct pollfd poll = {.fd = fd, .events = (short)events};
	int64_t left_ms = until_ms - live_wait_now_ms();
	int64_t wait_ms = left_ms > 0 ? left_ms : 0;
	struct timespec wait = {.tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000) * 1000000};
	int ready = ppoll(&poll, fd >= 0, &wait, catching ? &waiting : NULL);

	if (ready < 0)
		return -EINTR;
	return ready;
}
