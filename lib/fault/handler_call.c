/* SPDX-License-Identifier: MIT */
/* See handler.h: its callers. They leave a command under the handler's lock, kick its eventfd, and sleep until it is
 * done. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/thread.h"
#include "fault/handler_private.h"
#include "kernel/own.h"
#include "region/mapper.h"

#define STACK_BYTES (1u << 20)
#define MPOL_PREFERRED_NODE 1 /* MPOL_PREFERRED of linux/mempolicy.h */

/* Without the kick: epoll_wait(2) is a cancellation point. */
static void handler_end_locked(struct handler *handler)
{
	if (!handler->dead && !handler->leaving)
		pthread_cancel(handler->shift->thread);
	handler->leaving = 1;
	while (!handler->dead)
		lock_wait(&handler->lock, &handler->served);
}

static int handler_command_locked(struct handler *handler, struct command *command)
{
	int lost = handler_find_lost(handler);

	if (lost)
		handler_end_locked(handler);
	if (handler->dead)
		return lost ? lost : -EOWNERDEAD;
	command->next = handler->commands;
	handler->commands = command;
	if (own_kick(handler->k, handler->kick, handler->tag))
		handler_end_locked(handler); /* it answers all commands at its end */
	while (!command->done)
		lock_wait(&handler->lock, &handler->served);
	return command->result;
}

static int handler_command(struct handler *handler, struct command *command)
{
	lock_take(&handler->lock);
	int result = handler_command_locked(handler, command);

	lock_give(&handler->lock);
	return result;
}

int handler_check(struct handler *handler)
{
	lock_take(&handler->lock);
	int lost = handler_find_lost(handler);

	if (lost)
		handler_end_locked(handler);
	lock_give(&handler->lock);
	return lost;
}

int handler_add(struct handler *handler, struct uffdwp_region *region)
{
	return handler_command(handler, &(struct command){.kind = COMMAND_ADD, .region = region});
}

int handler_join(struct handler *handler, struct mapper *mapper)
{
	struct command command = {.kind = COMMAND_JOIN, .region = mapper->region, .mapper = mapper};

	return handler_command(handler, &command);
}

void handler_part(struct handler *handler, struct mapper *mapper)
{
	struct command command = {.kind = COMMAND_PART, .region = mapper->region, .mapper = mapper};

	(void)handler_command(handler, &command);
}

void handler_remove(struct handler *handler, struct uffdwp_region *region)
{
	handler_command(handler, &(struct command){.kind = COMMAND_REMOVE, .region = region});
}

void handler_sync(struct handler *handler)
{
	handler_command(handler, &(struct command){.kind = COMMAND_SYNC, .region = NULL});
}

void handler_settle(const struct uffdwp_region *region)
{
	if (atomic_load(&region->events_in_hand))
		handler_sync(region->handler);
}

uint32_t handler_thread(struct handler *handler)
{
	lock_take(&handler->lock);
	int id = atomic_load(&handler->shift->id);

	lock_give(&handler->lock);
	return (uint32_t)id;
}

unsigned handler_load(const struct handler *handler)
{
	return atomic_load(&handler->dead) ? UINT_MAX : atomic_load(&handler->count);
}

static void handler_free(struct handler *handler)
{
	const struct kernel_ops *k = handler->k;

	for (struct shift *shift = handler->shift; shift;) {
		struct shift *former = shift->former;

		shift_free(k, shift);
		shift = former;
	}
	own_close(k, handler->kick, handler->tag);
	pages_free(k, handler->stack, STACK_BYTES);
	pthread_cond_destroy(&handler->served);
	lock_fini(&handler->lock);
	pages_free(k, handler, sizeof(*handler));
}

/* A stack of fresh memory, where the node matters: the C library's may have lain elsewhere before. The lowest page is a
 * guard. */
static int handler_open_stack(struct handler *handler)
{
	if (handler->node < 0)
		return 0;
	handler->stack = pages_new(handler->k, STACK_BYTES);
	if (!handler->stack)
		return -ENOMEM;
	if (handler->node < 64)
		handler->k->mbind(handler->stack, STACK_BYTES, MPOL_PREFERRED_NODE,
		                  1ull << handler->node); /* best effort, errors ignored */
	return handler->k->mprotect(handler->stack, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE);
}

int shift_new(const struct kernel_ops *k, struct shift **out)
{
	struct shift *shift = pages_new(k, sizeof(*shift));

	if (!shift)
		return -ENOMEM;
	atomic_store(&shift->turn, 1); /* at work */
	/* epoll: a request of io_uring would keep a uffd that the program has closed, and with it the registrations. */
	int error = loop_new(k, HANDLER_DESCRIPTORS, 1, &shift->loop);

	if (error) {
		pages_free(k, shift, sizeof(*shift));
		return error;
	}
	*out = shift;
	return 0;
}

void shift_free(const struct kernel_ops *k, struct shift *shift)
{
	loop_free(shift->loop);
	pages_free(k, shift, sizeof(*shift));
}

static void *handler_main(void *argument)
{
	handler_serve(argument);
	return NULL;
}

static int handler_begin(struct handler *handler, const struct handler_place *place)
{
	int error = shift_new(handler->k, &handler->shift);
	const struct thread_place of_thread = {place->cpus, handler->stack, STACK_BYTES};

	if (error)
		return error;
	handler->shift->handler = handler;
	error = loop_add(handler->shift->loop, handler->kick, HANDLER_KICK);
	return error ? error : thread_spawn(&handler->shift->thread, &of_thread, handler_main, handler->shift);
}

int handler_start(const struct kernel_ops *k, const struct handler_place *place, struct handler **out)
{
	struct handler *handler = pages_new(k, sizeof(*handler));

	if (!handler)
		return -ENOMEM;
	handler->k = k;
	handler->node = place->node;
	handler->has_cpus = place->cpus != NULL;
	if (place->cpus)
		handler->cpus = *place->cpus;
	lock_init(&handler->lock);
	pthread_cond_init(&handler->served, NULL);
	handler->tag = own_new();
	handler->kick = own_eventfd(k, handler->tag);
	int error = handler->kick < 0 ? handler->kick : 0;

	if (!error)
		error = handler_open_stack(handler);
	if (!error)
		error = handler_begin(handler, place);
	if (error) {
		handler_free(handler);
		return error;
	}
	*out = handler;
	return 0;
}

/* A thread that lost its place, and has not come back from where it hangs, is waited for: it runs code of ours. */
void handler_stop(struct handler *handler)
{
	handler_command(handler, &(struct command){.kind = COMMAND_STOP, .region = NULL});
	for (struct shift *shift = handler->shift; shift; shift = shift->former) {
		if (shift != handler->shift)
			pthread_cancel(shift->thread); /* where it sleeps in its loop; another has read its kick */
		pthread_join(shift->thread, NULL);
	}
	handler_free(handler);
}

void handler_provoke(struct handler *handler, enum handler_provocation what)
{
	atomic_store(&handler->captive, what == HANDLER_SLEEPS || what == HANDLER_SPINS);
	atomic_store(&handler->provoked, (int)what);
	own_kick(handler->k, handler->kick, handler->tag);
}
