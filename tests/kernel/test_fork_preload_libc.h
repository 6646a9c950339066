/* SPDX-License-Identifier: MIT */
/*
 * Roles of test_fork_preload.h: what the C library itself does in a child of fork(3): it forgets the parent's threads,
 * and its locks and helpers are new.
 */
#ifndef TEST_FORK_PRELOAD_LIBC_H
#define TEST_FORK_PRELOAD_LIBC_H

#include <time.h>

/* A child that hangs is ended by SIGALRM. */
#define LIBC_LIMIT_S 20

/* In each child the library's own thread for it has just been started: setgid(2) asks all threads that are listed. */
static void role_setxid(void)
{
	unsigned char *heap = fill_heap();

	for (unsigned i = 0; i < support_rounds(300, 3000); i++) {
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			(void)alarm(LIBC_LIMIT_S);
			_exit(setgid(getgid()) != 0 || setuid(getuid()) != 0);
		}
		await_right(child);
	}
	free(heap);
}

static int libc_end;

static void libc_say_end(void)
{
	must(write(libc_end, "e", 1) == 1);
}

static void *libc_pause(void *argument)
{
	for (;;)
		(void)pause();
	return argument;
}

/* 1: a child whose last thread ends by pthread_exit(3) ends as by exit(3). */
static int libc_ends_by_last_thread(void)
{
	char byte = 0;
	int ends[2];

	must(pipe(ends) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		(void)alarm(LIBC_LIMIT_S);
		libc_end = ends[1];
		must(atexit(libc_say_end) == 0);
		pthread_exit(NULL);
	}
	close(ends[1]);
	must(read(ends[0], &byte, 1) >= 0);
	close(ends[0]);
	await_right(child);
	return byte == 'e';
}

/* Also where the parent has more threads. */
static void role_mainexit(void)
{
	unsigned char *heap = fill_heap();

	must(libc_ends_by_last_thread());
	(void)thread_start(libc_pause, NULL);
	for (unsigned i = 0; i < 20; i++)
		must(libc_ends_by_last_thread());
	free(heap);
}

static atomic_int libc_ticks;

static void libc_tick(union sigval value)
{
	(void)value;
	atomic_fetch_add(&libc_ticks, 1);
}

/* A timer that calls on a thread of the C library. */
static void libc_use_timer(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = libc_tick};
	struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}};
	timer_t timer;

	atomic_store(&libc_ticks, 0);
	must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	must(timer_settime(timer, 0, &soon, NULL) == 0);
	while (!atomic_load(&libc_ticks))
		(void)usleep(1000);
	must(timer_delete(timer) == 0);
}

static void role_timer(void)
{
	unsigned char *heap = fill_heap();

	libc_use_timer();
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		(void)alarm(LIBC_LIMIT_S);
		libc_use_timer();
		_exit(0);
	}
	await_right(child);
	free(heap);
}

static volatile sig_atomic_t libc_faults;
static unsigned char *libc_page;

static void libc_meet_fault(int signal)
{
	(void)signal;
	libc_faults++;
	must(mprotect(libc_page, page_bytes, PROT_READ | PROT_WRITE) == 0);
}

static void libc_fault(void)
{
	int before = libc_faults;

	must(mprotect(libc_page, page_bytes, PROT_NONE) == 0);
	*(volatile unsigned char *)libc_page = 1;
	must(libc_faults == before + 1);
}

static void *libc_fault_on(void *end)
{
	while (!atomic_load((atomic_int *)end))
		libc_fault();
	return NULL;
}

/* The program's own action for faults, on a stack in the heap, is met by its threads while it forks, and by children.
 * Streams make fork(3) touch the heap in the child. */
static void role_faults(void)
{
	unsigned char *heap = fill_heap();
	stack_t stack = {.ss_sp = malloc(64 * page_bytes), .ss_size = 64 * page_bytes};
	struct sigaction action = {.sa_handler = libc_meet_fault, .sa_flags = SA_ONSTACK};
	FILE *stream = tmpfile();
	atomic_int end = 0;

	libc_page = mmap(NULL, page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(stack.ss_sp && stream && libc_page != MAP_FAILED && sigaltstack(&stack, NULL) == 0);
	must(sigaction(SIGSEGV, &action, NULL) == 0);
	libc_fault();
	pthread_t thread = thread_start(libc_fault_on, &end);

	for (unsigned i = 0; i < 50; i++) {
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			stack_t found;

			libc_fault();
			must(sigaltstack(NULL, &found) == 0 && found.ss_sp == stack.ss_sp && !found.ss_flags);
			_exit(!is_filled(heap, 8 * MIB, 7) || fclose(stream) != 0);
		}
		await_right(child);
	}
	atomic_store(&end, 1);
	thread_join(thread);
	(void)fclose(stream);
	free(heap);
}

#endif
