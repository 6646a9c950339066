/* SPDX-License-Identifier: MIT */
/* See handler.h. Callers leave a command under the handler's lock, kick its eventfd, and sleep until it is done. */
#include "fault/handler.h"

#include <errno.h>
#include <limits.h>
#include <numa.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/signals.h"
#include "fault/events.h"
#include "fault/fault.h"
#include "fault/inline.h"
#include "fault/loop.h"
#include "kernel/abi.h"

#define HANDLER_BATCH 64
#define HANDLER_FAILURES_MAX 8 /* of read(2) in a row of one uffd, for other reasons than that it is empty */
#define STACK_BYTES (1u << 20)
#define SLICE_NS 100000       /* a writer waits: no other thread on this CPU may finish its milliseconds first */
#define MPOL_PREFERRED_NODE 1 /* MPOL_PREFERRED of linux/mempolicy.h */
#define HANDLER_KICK 0        /* token of the eventfd; all others are regions */

enum command_kind { COMMAND_ADD, COMMAND_REMOVE, COMMAND_SYNC, COMMAND_STOP };

struct command {
	enum command_kind kind;
	struct uffdwp_region *region;
	int result;
	int done;
	struct command *next;
};

struct handler {
	const struct kernel_ops *k;
	struct loop *loop;
	pthread_t thread;
	int kick;
	int node;
	void *stack; /* NULL: the C library's */
	int stopping;

	pthread_mutex_t lock; /* commands, dead */
	pthread_cond_t served;
	struct command *commands;
	_Atomic int dead;

	/* The thread's own; `count` is read by others as a hint. */
	struct uffdwp_region *regions[HANDLER_REGIONS_MAX];
	_Atomic unsigned count;
	int starving; /* some region waits for pool memory: deadlines are to be watched */
};

static uint64_t starving_left_ns(struct uffdwp_region *region)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct preserve *preserve = atomic_load(&region->preserve);
	uint64_t since = atomic_load(&region->starved_since_ns);
	uint64_t left = UINT64_MAX;

	if (preserve && since && atomic_load(&region->starved) && !atomic_load(&preserve->error)) {
		uint64_t waited = kernel_now_ns() - since;

		if (waited < preserve->wait_ns)
			left = preserve->wait_ns - waited;
		else
			fault_fail(region, preserve, -ETIME, atomic_load(&region->starved_page));
	}
	epoch_leave(ticket);
	return left;
}

/* When to look again although nothing happens: the bound of policy `wait`. */
static uint64_t handler_timeout(struct handler *handler)
{
	uint64_t least = UINT64_MAX;

	if (!handler->starving)
		return UINT64_MAX;
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		uint64_t left = starving_left_ns(handler->regions[i]);

		least = left < least ? left : least;
	}
	handler->starving = least != UINT64_MAX;
	return least;
}

static enum fault_verdict resolve(const struct fault *told)
{
	struct fault fault = *told; /* resolving may change what it is */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	enum fault_verdict verdict = fault_resolve(&fault);

	epoch_leave(ticket);
	fault_brake(fault.region->k, fault.brake_ns);
	return verdict;
}

/* Leaves the writer asleep: flag up first, then a last look (INV-WAKE). Partners: the exchanges in fault_wake_held()
 * and fault_wake_starved(). Of two exchanges of one flag the later sees what came before the earlier. */
static enum fault_verdict leave_asleep(const struct fault *fault, _Atomic uint32_t *flag)
{
	struct uffdwp_region *region = fault->region;

	if (atomic_exchange(flag, 1) == 0 && flag == &region->starved) {
		atomic_store(&region->starved_since_ns, kernel_now_ns());
		atomic_store(&region->starved_page, fault->page);
	}
	return resolve(fault);
}

static void count_starved(struct handler *handler, struct uffdwp_region *region)
{
	handler->starving = 1;
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve)
		atomic_fetch_add_explicit(&preserve->waits, 1, memory_order_relaxed);
	epoch_leave(ticket);
}

static enum fault_access access_of(uint64_t flags)
{
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		return FAULT_WRITE;
	return flags & UFFD_PAGEFAULT_FLAG_WRITE ? FAULT_WRITE_EMPTY : FAULT_READ_EMPTY;
}

static void take_fault(struct handler *handler, struct uffdwp_region *region, uint64_t address, uint64_t flags)
{
	struct fault fault = {.region = region,
	                      .page = (address - atomic_load_explicit(&region->base, memory_order_relaxed)) >>
	                              region->page_shift,
	                      .limit = region_pages(region),
	                      .by = FAULT_BY_HANDLER,
	                      .access = access_of(flags)};

	if (fault.page >= region->ledger.count) { /* of before a remap: let it fault again, at a place that is gone */
		handler->k->uffd_wake(region->uffd, address & ~(region->page_bytes - 1), region->page_bytes);
		return;
	}
	enum fault_verdict verdict = resolve(&fault);

	if (verdict == FAULT_HELD)
		verdict = leave_asleep(&fault, &region->held);
	if (verdict == FAULT_STARVED)
		verdict = leave_asleep(&fault, &region->starved);
	if (verdict == FAULT_STARVED)
		count_starved(handler, region);
	if (verdict == FAULT_AGAIN)
		sched_yield();
	/* Its claimant will wake him. */
	if (verdict == FAULT_BUSY && fault.access != FAULT_READ_EMPTY)
		fault_count(&region->counters.faults, 1);
}

static void take_message(struct handler *handler, struct uffdwp_region *region, const struct uffd_msg *message)
{
	if (message->event == UFFD_EVENT_PAGEFAULT)
		take_fault(handler, region, message->arg.pagefault.address, message->arg.pagefault.flags);
	else
		events_take(region, message);
}

/* Its uffd cannot be served: writers go on unseen, and whoever asks is told that the region is dead. */
static void give_up(struct uffdwp_region *region)
{
	events_die(region, -EOWNERDEAD, 0);
	fault_seal(region);
	region_unregister(region);
}

static void drain(struct handler *handler, struct uffdwp_region *region)
{
	struct uffd_msg messages[HANDLER_BATCH];
	unsigned failures = 0;
	size_t count;
	ssize_t got;

	atomic_store(&region->events_in_hand, 1);
	do {
		got = handler->k->uffd_read(region->uffd, messages, HANDLER_BATCH);
		count = got > 0 ? (size_t)got / sizeof(messages[0]) : 0;
		failures += got < 0 && got != -EAGAIN;
		for (size_t i = 0; i < count; i++)
			take_message(handler, region, &messages[i]);
	} while (count == HANDLER_BATCH || (got < 0 && got != -EAGAIN && failures < HANDLER_FAILURES_MAX));
	atomic_store(&region->events_in_hand, 0);
	if (failures == HANDLER_FAILURES_MAX)
		give_up(region);
	/* Everything was read, also the event that kept pages from being disarmed: its owner runs on, then they can be.
	 */
	if (atomic_exchange(&region->again, 0)) {
		sched_yield();
		fault_wake_region(region);
	}
	losses_tell(region);
}

/* Under inline delivery only events come; see inline.h for why they are announced. */
static void serve_region(struct handler *handler, struct uffdwp_region *region)
{
	if (region->delivery != UFFDWP_DELIVERY_INLINE) {
		drain(handler, region);
		return;
	}
	inline_events_begin();
	drain(handler, region);
	inline_events_end();
}

static int command_add(struct handler *handler, struct uffdwp_region *region)
{
	unsigned count = atomic_load(&handler->count);

	if (count == HANDLER_REGIONS_MAX)
		return -ENFILE;
	int error = loop_add(handler->loop, region->uffd, (uint64_t)(uintptr_t)region);

	if (error)
		return error;
	region->wake_fd = handler->kick;
	handler->regions[count] = region;
	atomic_store(&handler->count, count + 1);
	return 0;
}

static void forget(struct handler *handler, const struct uffdwp_region *region)
{
	unsigned count = atomic_load(&handler->count);

	for (unsigned i = 0; i < count; i++) {
		if (handler->regions[i] != region)
			continue;
		handler->regions[i] = handler->regions[count - 1];
		atomic_store(&handler->count, count - 1);
		return;
	}
}

static int command_run(struct handler *handler, const struct command *command)
{
	switch (command->kind) {
	case COMMAND_ADD:
		return command_add(handler, command->region);
	case COMMAND_REMOVE:
		forget(handler, command->region);
		return loop_remove(handler->loop, command->region->uffd, (uint64_t)(uintptr_t)command->region);
	case COMMAND_SYNC:
		break;
	case COMMAND_STOP:
		handler->stopping = 1;
		break;
	}
	return 0;
}

static void run_commands(struct handler *handler)
{
	uint64_t kicks;

	handler->k->read(handler->kick, &kicks, sizeof(kicks));
	pthread_mutex_lock(&handler->lock);
	for (struct command *command = handler->commands; command;) {
		struct command *next = command->next;

		command->result = command_run(handler, command);
		command->done = 1; /* from here on it is the caller's stack again */
		command = next;
	}
	handler->commands = NULL;
	pthread_cond_broadcast(&handler->served);
	pthread_mutex_unlock(&handler->lock);
	/* A writer that found a loss kicks, too. */
	for (unsigned i = 0; i < atomic_load(&handler->count); i++)
		losses_tell(handler->regions[i]);
}

/* 1: the region is still ours; a command in the same batch may have taken it away. */
static int has_region(const struct handler *handler, const struct uffdwp_region *region)
{
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		if (handler->regions[i] == region)
			return 1;
	}
	return 0;
}

/* The loop gave the uffd up: once more, or nobody would serve its writers. */
static void poll_again(struct handler *handler, struct uffdwp_region *region)
{
	uint64_t token = (uint64_t)(uintptr_t)region;

	loop_remove(handler->loop, region->uffd, token);
	if (loop_add(handler->loop, region->uffd, token) == 0) {
		serve_region(handler, region);
		return;
	}
	give_up(region);
}

static void take_event(struct handler *handler, const struct loop_event *event)
{
	struct uffdwp_region *region = (struct uffdwp_region *)(uintptr_t)event->token;

	if (event->token == HANDLER_KICK)
		run_commands(handler);
	else if (has_region(handler, region) && event->result >= 0)
		serve_region(handler, region);
	else if (has_region(handler, region))
		poll_again(handler, region);
}

static void handler_loop(struct handler *handler)
{
	struct loop_event events[HANDLER_BATCH];

	while (!handler->stopping) {
		int count = loop_wait(handler->loop, events, HANDLER_BATCH, handler_timeout(handler));

		if (count < 0)
			break;
		for (int i = 0; i < count; i++)
			take_event(handler, &events[i]);
	}
}

/* The thread ends, wanted or not: nobody may be left asleep behind it. */
static void handler_die(void *argument)
{
	struct handler *handler = argument;

	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		give_up(handler->regions[i]);
	}
	pthread_mutex_lock(&handler->lock);
	handler->dead = 1;
	for (struct command *command = handler->commands; command; command = command->next) {
		command->result = -EOWNERDEAD;
		command->done = 1;
	}
	handler->commands = NULL;
	pthread_cond_broadcast(&handler->served);
	pthread_mutex_unlock(&handler->lock);
}

static void *handler_main(void *argument)
{
	struct handler *handler = argument;

	pthread_setname_np(pthread_self(), "uffdwp-fault");
	handler->k->sched_slice(SLICE_NS);
	if (handler->node >= 0 && numa_available() >= 0)
		numa_set_preferred(handler->node);
	pthread_cleanup_push(handler_die, handler);
	if (loop_add(handler->loop, handler->kick, HANDLER_KICK) == 0)
		handler_loop(handler);
	pthread_cleanup_pop(1);
	return NULL;
}

/* An eventfd takes a 1 at any time; should it not, nothing better is left than to try again. */
static void kick(const struct handler *handler)
{
	static const uint64_t one = 1;

	while (handler->k->write(handler->kick, &one, sizeof(one)) < 0)
		sched_yield();
}

static int command_locked(struct handler *handler, enum command_kind kind, struct uffdwp_region *region)
{
	struct command command = {.kind = kind, .region = region};

	if (handler->dead)
		return -EOWNERDEAD;
	command.next = handler->commands;
	handler->commands = &command;
	kick(handler);
	while (!command.done)
		pthread_cond_wait(&handler->served, &handler->lock);
	return command.result;
}

/* A signal handler that wrote to a region would wait, with the lock, for the thread that wants it. */
static int handler_command(struct handler *handler, enum command_kind kind, struct uffdwp_region *region)
{
	sigset_t before;

	signals_block(&before);
	pthread_mutex_lock(&handler->lock);
	int result = command_locked(handler, kind, region);

	pthread_mutex_unlock(&handler->lock);
	signals_restore(&before);
	return result;
}

int handler_add(struct handler *handler, struct uffdwp_region *region)
{
	return handler_command(handler, COMMAND_ADD, region);
}

void handler_remove(struct handler *handler, struct uffdwp_region *region)
{
	handler_command(handler, COMMAND_REMOVE, region);
}

void handler_sync(struct handler *handler)
{
	handler_command(handler, COMMAND_SYNC, NULL);
}

unsigned handler_load(const struct handler *handler)
{
	return atomic_load(&handler->dead) ? UINT_MAX : atomic_load(&handler->count);
}

static void handler_free(struct handler *handler)
{
	const struct kernel_ops *k = handler->k;

	if (handler->loop)
		loop_free(handler->loop);
	if (handler->kick >= 0)
		k->close(handler->kick);
	pages_free(k, handler->stack, STACK_BYTES);
	pthread_cond_destroy(&handler->served);
	pthread_mutex_destroy(&handler->lock);
	pages_free(k, handler, sizeof(*handler));
}

/* A stack of fresh memory, where the node matters: the C library's may have lain elsewhere before. The lowest page is a
 * guard. */
static int open_stack(struct handler *handler)
{
	if (handler->node < 0)
		return 0;
	handler->stack = pages_new(handler->k, STACK_BYTES);
	if (!handler->stack)
		return -ENOMEM;
	if (handler->node < 64)
		handler->k->mbind(handler->stack, STACK_BYTES, MPOL_PREFERRED_NODE, 1ull << handler->node); /* a wish */
	return handler->k->mprotect(handler->stack, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE);
}

static int start_thread(struct handler *handler, const struct handler_place *place)
{
	pthread_attr_t attributes;
	sigset_t before;

	pthread_attr_init(&attributes);
	int error = place->cpus ? pthread_attr_setaffinity_np(&attributes, sizeof(*place->cpus), place->cpus) : 0;

	if (!error && handler->stack)
		error = pthread_attr_setstack(&attributes, handler->stack, STACK_BYTES);
	signals_block(&before);
	if (!error)
		error = pthread_create(&handler->thread, &attributes, handler_main, handler);
	signals_restore(&before);
	pthread_attr_destroy(&attributes);
	return -error;
}

int handler_start(const struct kernel_ops *k, const struct handler_place *place, struct handler **out)
{
	struct handler *handler = pages_new(k, sizeof(*handler));

	if (!handler)
		return -ENOMEM;
	handler->k = k;
	handler->node = place->node;
	pthread_mutex_init(&handler->lock, NULL);
	pthread_cond_init(&handler->served, NULL);
	handler->kick = k->eventfd();
	int error = handler->kick < 0 ? handler->kick
	                              : loop_new(k, HANDLER_REGIONS_MAX + 1, place->no_uring, &handler->loop);

	if (!error)
		error = open_stack(handler);
	if (!error)
		error = start_thread(handler, place);
	if (error) {
		handler_free(handler);
		return error;
	}
	*out = handler;
	return 0;
}

void handler_stop(struct handler *handler)
{
	handler_command(handler, COMMAND_STOP, NULL);
	pthread_join(handler->thread, NULL);
	handler_free(handler);
}
