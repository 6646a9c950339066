/* SPDX-License-Identifier: MIT */
/*
 * The rivals: the bare loops, mprotect() with SIGSEGV, fork() and its copy on write, and memory that was never armed
 * (the floor: what the measurement itself costs). The last two work on private anonymous memory, which is what a
 * program that forks for its snapshots has.
 *
 * These two take turns in one process, so the child of the one must not share (and so slow down) the memory of the
 * other: that is MADV_DONTFORK.
 *
 * Threads: one of each kind at a time; the state of the last three is static.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"

struct forked {
	pid_t child; /* 0: none */
	int pipe[2]; /* the child ends when the parent closes its end */
	struct area area;
};

static struct area protected_area;
static struct area unarmed_area;
static struct forked forked;

static void nothing(void *self)
{
	(void)self;
}

static void set_up(struct contender *contender, const char *name, void *self, const struct area *area)
{
	memset(contender, 0, sizeof(*contender));
	contender->name = name;
	contender->self = self;
	contender->area = *area;
	contender->arm = nothing;
	contender->enter = nothing;
}

static void map_unshared(struct area *area, size_t length_bytes)
{
	area_map(area, UFFDWP_MEMORY_ANON, length_bytes);
	if (madvise(area->base, area->length_bytes, MADV_DONTFORK))
		bench_die("madvise: %s", strerror(errno));
}

static void close_area(void *self)
{
	area_unmap(self);
}

/* ------------------------------------------------------------------------------------------------------- bare -- */

static void arm_bare(void *self)
{
	bare_arm(self);
}

static void enter_bare(void *self)
{
	bare_enter(self);
}

static void close_bare(void *self)
{
	bare_close(self);
}

void contender_bare(struct contender *contender, const char *name, struct bare *bare, const struct library_setup *setup)
{
	bare->delivery = setup->delivery;
	bare->cpu = setup->cpu;
	bare_open(bare, setup->memory, setup->length_bytes);
	set_up(contender, name, bare, &bare->area);
	contender->arm = arm_bare;
	contender->enter = enter_bare;
	contender->close = close_bare;
}

/* --------------------------------------------------------------------------------------------------- mprotect -- */

static void on_segment_violation(int number, siginfo_t *info, void *context)
{
	uintptr_t mask = ~(uintptr_t)(protected_area.page_bytes - 1);
	char *page = (char *)((uintptr_t)info->si_addr & mask);

	(void)context;
	if (mprotect(page, protected_area.page_bytes, PROT_READ | PROT_WRITE))
		signal(number, SIG_DFL);
}

static void arm_mprotect(void *self)
{
	const struct area *area = self;

	if (mprotect(area->base, area->length_bytes, PROT_READ))
		bench_die("mprotect: %s", strerror(errno));
}

static void enter_mprotect(void *self)
{
	struct sigaction action = {.sa_sigaction = on_segment_violation, .sa_flags = SA_SIGINFO};

	(void)self;
	sigaction(SIGSEGV, &action, NULL);
}

static void close_mprotect(void *self)
{
	signal(SIGSEGV, SIG_DFL);
	area_unmap(self);
}

void contender_mprotect(struct contender *contender, const char *name, const struct library_setup *setup)
{
	area_map(&protected_area, setup->memory, setup->length_bytes);
	set_up(contender, name, &protected_area, &protected_area);
	contender->arm = arm_mprotect;
	contender->enter = enter_mprotect;
	contender->close = close_mprotect;
}

/* ------------------------------------------------------------------------------------------------------- fork -- */

static void end_child(struct forked *self)
{
	if (!self->child)
		return;
	close(self->pipe[1]);
	waitpid(self->child, NULL, 0);
	self->child = 0;
}

static _Noreturn void wait_for_parent(const int pipe_ends[2])
{
	char byte;

	close(pipe_ends[1]);
	while (read(pipe_ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

static void arm_fork(void *argument)
{
	struct forked *self = argument;

	end_child(self);
	if (pipe(self->pipe))
		bench_die("pipe: %s", strerror(errno));
	self->child = fork();
	if (self->child < 0)
		bench_die("fork: %s", strerror(errno));
	if (self->child == 0)
		wait_for_parent(self->pipe);
	close(self->pipe[0]);
}

static void close_fork(void *argument)
{
	struct forked *self = argument;

	end_child(self);
	area_unmap(&self->area);
}

void contender_fork(struct contender *contender, size_t length_bytes)
{
	area_map(&forked.area, UFFDWP_MEMORY_ANON, length_bytes);
	set_up(contender, "fork", &forked, &forked.area);
	contender->arm = arm_fork;
	contender->close = close_fork;
}

/* ---------------------------------------------------------------------------------------------------- unarmed -- */

void contender_unarmed(struct contender *contender, size_t length_bytes)
{
	map_unshared(&unarmed_area, length_bytes);
	set_up(contender, "unarmed", &unarmed_area, &unarmed_area);
	contender->close = close_area;
}
