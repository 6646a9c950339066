/* SPDX-License-Identifier: MIT */
/* See pace.h. Threads: one of its own, while it measures. */
#include "pace.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

#define MARGIN 10
#define MEASURED "UFFDWP_TEST_PACE" /* in the environment of what a program starts */
#define SLOWNESS_MOST 1000.0
#define WAKE_UPS 200
#define TOUCHES 2000
#define QUIET_NS 6000000.0 /* what the pieces of work take on a quiet virtual machine of today */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static double slowness;

/* Two pipes: [0] to the thread, [1] back. */
static int ends[2][2];

static void *pace_answer(void *argument)
{
	char byte = 0;
	while (read(ends[0][0], &byte, 1) == 1 && write(ends[1][1], &byte, 1) == 1) {
	}
	return argument;
}

static void pace_wake_up(void)
{
	char byte = 0;
	must(pipe(ends[0]) == 0 && pipe(ends[1]) == 0);
	pthread_t thread = thread_start(pace_answer, NULL);
	for (unsigned i = 0; i < WAKE_UPS; i++) {
		must(write(ends[0][1], &byte, 1) == 1 && read(ends[1][0], &byte, 1) == 1);
	}
	close(ends[0][1]);
	thread_join(thread);
	close(ends[0][0]);
	close(ends[1][0]);
	close(ends[1][1]);
}

static void pace_touch(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, TOUCHES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	for (size_t i = 0; i < TOUCHES; i++) {
		((volatile uint8_t *)memory)[i * page] = 1;
	}
	must(munmap(memory, TOUCHES * page) == 0);
}

static double pace_bounded(double measured)
{
	return measured < 1 ? 1 : measured > SLOWNESS_MOST ? SLOWNESS_MOST : measured;
}

static void pace_measure(void)
{
	const char *measured = getenv(MEASURED);
	if (measured != NULL) {
		slowness = pace_bounded(strtod(measured, NULL));
		return;
	}
	struct timespec begin;
	struct timespec end;
	must(clock_gettime(CLOCK_MONOTONIC, &begin) == 0);
	pace_touch();
	pace_wake_up();
	must(clock_gettime(CLOCK_MONOTONIC, &end) == 0);
	double ns = (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
	slowness = pace_bounded(ns / QUIET_NS);
}

double pace_slowness(void)
{
	must(pthread_once(&once, pace_measure) == 0);
	return slowness;
}

unsigned pace_seconds(unsigned quiet_seconds)
{
	return (unsigned)((double)quiet_seconds * MARGIN * pace_slowness());
}

void pace_alarm(unsigned quiet_seconds)
{
	alarm(quiet_seconds == 0 ? 0 : pace_seconds(quiet_seconds));
}

void pace_check(void)
{
	char text[32];
	(void)snprintf(text, sizeof(text), "%.1f", MARGIN * pace_slowness());
	must(setenv("CK_TIMEOUT_MULTIPLIER", text, 0) == 0);
	(void)snprintf(text, sizeof(text), "%.1f", pace_slowness());
	must(setenv(MEASURED, text, 0) == 0);
}
