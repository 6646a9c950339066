/* SPDX-License-Identifier: MIT */
/* See handler.h: the thread. */
#include "fault/handler.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"
#include "fault/events.h"
#include "fault/fault.h"
#include "fault/handler_private.h"
#include "fault/inline.h"
#include "fault/measure.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"
#include "kernel/nodes.h"
#include "kernel/own.h"
#include "region/mapper.h"

#define HANDLER_BATCH 64       /* a bit of a word for each */
#define HANDLER_FAILURES_MAX 8 /* of read(2) in a row of one uffd, for other reasons than that it is empty */
#define SLICE_NS 100000        /* a writer waits: no other thread on this CPU may finish its milliseconds first */
#define END_TRIES 50           /* looks at whether the memory of a process that has ended is gone, too */

/* When to look again although nothing happens: the bound of policy `wait`. */
static uint64_t handler_timeout(struct handler *handler)
{
	uint64_t least = UINT64_MAX;

	if (!handler->starving)
		return UINT64_MAX;
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		uint64_t left = fault_starving_left_ns(handler->regions[i]);

		least = left < least ? left : least;
	}
	handler->starving = least != UINT64_MAX;
	return least;
}

static enum fault_verdict handler_resolve(struct fault *reported)
{
	struct fault fault = *reported; /* resolving may change what it is */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	enum fault_verdict verdict = fault_resolve(&fault);

	epoch_leave(ticket);
	reported->counted += fault.counted;
	fault_brake(fault.region->k, fault.brake_ns);
	return verdict;
}

/* Leaves the writer asleep: flag up first, then a last look (INV-WAKE). Partners: the exchanges in phase_wake() and
 * fault_wake_starved(). The later of two exchanges of one flag sees what came before the earlier. */
static enum fault_verdict handler_leave_asleep(struct fault *fault, _Atomic uint32_t *flag)
{
	struct uffdwp_region *region = fault->region;

	if (atomic_exchange(flag, 1) == 0 && flag == &region->starved) {
		atomic_store(&region->starved_since_ns, kernel_now_ns());
		atomic_store(&region->starved_page, fault->page);
	}
	return handler_resolve(fault);
}

static void handler_count_starved(struct handler *handler, struct uffdwp_region *region)
{
	handler->starving = 1;
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve)
		atomic_fetch_add_explicit(&preserve->waits, 1, memory_order_relaxed);
	epoch_leave(ticket);
}

static enum fault_access handler_access_of(uint64_t flags)
{
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		return FAULT_WRITE;
	return flags & UFFD_PAGEFAULT_FLAG_WRITE ? FAULT_WRITE_EMPTY : FAULT_READ_EMPTY;
}

/* Whose page tables an event is about: those of this process, or of a mapper's. */
struct source {
	struct uffdwp_region *region;
	struct mapper *mapper; /* NULL: of this process */
	int uffd;
};

static struct source handler_source_of(struct uffdwp_region *region)
{
	return (struct source){region, NULL, region->uffd};
}

/* UINT64_MAX or another number beyond the region's pages: the address is none of the region's. */
static uint64_t handler_page_of(const struct source *source, uint64_t address)
{
	const struct uffdwp_region *region = source->region;

	if (source->mapper)
		return mapper_page_of(source->mapper, address);
	return (address - atomic_load_explicit(&region->base, memory_order_relaxed)) >> region->page_shift;
}

static void handler_take_fault(struct handler *handler, const struct source *source, uint64_t address, uint64_t flags,
                               uint32_t thread)
{
	struct uffdwp_region *region = source->region;
	struct fault fault = {.region = region,
	                      .page = handler_page_of(source, address),
	                      .limit = region_pages(region),
	                      .by = FAULT_BY_HANDLER,
	                      .access = handler_access_of(flags)};

	uint64_t began_ns = handler->measure.read_ns ? measure_begin(&handler->measure, &fault, address, thread) : 0;
	enum fault_verdict verdict = handler_resolve(&fault);

	if (verdict == FAULT_STALLED)
		verdict = handler_leave_asleep(&fault, &region->held);
	if (verdict == FAULT_STARVED)
		verdict = handler_leave_asleep(&fault, &region->starved);
	if (verdict == FAULT_STARVED)
		handler_count_starved(handler, region);
	if (verdict == FAULT_AGAIN) { /* a snapshot that fails has woken already, perhaps before this writer slept */
		atomic_store(&region->again, 1);
		sched_yield();
	}
	/* The claimant will wake the writer. */
	if (verdict == FAULT_BUSY && fault.access != FAULT_READ_EMPTY) {
		fault_count(&region->counters.faults, 1);
		fault.counted++;
	}
	if (began_ns)
		measure_end(&handler->measure, &fault, verdict, began_ns, thread);
}

/* 1: a fault at no address of the region. */
static int handler_is_stray(const struct source *source, const struct uffd_msg *message)
{
	return message->event == UFFD_EVENT_PAGEFAULT &&
	       handler_page_of(source, message->arg.pagefault.address) >= source->region->ledger.count;
}

/* The kernel has more registered than the region: what the owner's mremap(2) has added, or other memory of a mapper's.
 * It is taken out; of what was left at a former place the access comes again, and meets what is there now. */
static void handler_take_stray(struct handler *handler, const struct source *source, uint64_t address)
{
	const struct uffdwp_region *region = source->region;
	uint64_t page = address & ~(region->page_bytes - 1);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int is_known = !source->mapper && registry_find((uintptr_t)address) != NULL;

	epoch_leave(ticket);
	if (!is_known)
		handler->k->uffd_unregister(source->uffd, page, region->page_bytes);
	handler->k->uffd_wake(source->uffd, page, region->page_bytes);
}

static void handler_take_message(struct handler *handler, const struct source *source, const struct uffd_msg *message)
{
	if (message->event != UFFD_EVENT_PAGEFAULT) {
		if (source->mapper)
			events_take_of(source->mapper, message);
		else
			events_take(source->region, message);
		return;
	}
	uint32_t thread = source->region->threads_known ? message->arg.pagefault.feat.ptid : 0;

	handler_take_fault(handler, source, message->arg.pagefault.address, message->arg.pagefault.flags, thread);
	follow_fault(&handler->follow, thread);
}

/* Its uffd cannot be served: writers go on unseen, and calls report that the region is dead. */
static void handler_give_up(struct uffdwp_region *region)
{
	int lost = region->uffd < 0 ? 0 : own_check(region->k, region->uffd, region->tag);

	events_lose_sight(region, lost ? REGION_CLOSED : REGION_UNSERVED, lost ? lost : -EOWNERDEAD);
	fault_seal(region);
	if (!lost)
		region_unregister(region);
}

/* A thread was refused to resume others, and it was no passing refusal: the kernel resumes all when the uffd is
 * closed. */
static void handler_resume_by_close(struct handler *handler, struct uffdwp_region *region)
{
	if (!atomic_exchange(&region->unwakeable, 0) || !fault_wake_again(region))
		return;
	handler_give_up(region);
	if (region->mappers) /* to close this process's copies would resume no thread */
		return;
	loop_remove(handler->shift->loop, region->uffd, (uint64_t)(uintptr_t)region);
	own_close(region->k, region->uffd, region->tag);
}

static int handler_has_move(const struct uffd_msg *messages, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (messages[i].event == UFFD_EVENT_REMAP)
			return 1;
	}
	return 0;
}

/* Strays last: a move that comes along may say that they are none. */
static void handler_take_batch(struct handler *handler, const struct source *source, const struct uffd_msg *messages,
                               size_t count)
{
	uint64_t strays = 0;

	for (size_t i = 0; i < count; i++) {
		if (handler_is_stray(source, &messages[i]))
			strays |= 1ull << i;
		else
			handler_take_message(handler, source, &messages[i]);
	}
	for (; strays; strays &= strays - 1) {
		const struct uffd_msg *message = &messages[__builtin_ctzll(strays)];

		if (handler_is_stray(source, message))
			handler_take_stray(handler, source, message->arg.pagefault.address);
		else
			handler_take_message(handler, source, message);
	}
}

/* Reads once and acts on what was read: bytes, or what read(2) answered. */
static ssize_t handler_take_messages(struct handler *handler, const struct source *source)
{
	struct uffd_msg messages[HANDLER_BATCH];
	int announces = source->region->delivery == UFFDWP_DELIVERY_INLINE; /* see inline.h */

	if (announces)
		inline_moves_begin();
	ssize_t got = source->mapper ? handler->k->uffd_read_shared(source->uffd, messages, HANDLER_BATCH)
	                             : handler->k->uffd_read(source->uffd, messages, HANDLER_BATCH);
	size_t count = got > 0 ? (size_t)got / sizeof(messages[0]) : 0;

	measure_read(&handler->measure, source->region);
	int moves = announces && handler_has_move(messages, count);

	if (announces && !moves)
		inline_moves_end();
	if (source->region->is_private)
		events_take_discards_of(source->mapper, messages, count);
	handler_take_batch(handler, source, messages, count);
	if (moves)
		inline_moves_end();
	return got;
}

/* An event says that the uffd is open, and no child of fork() holds it (registry.c): the number is still its own. */
static void handler_drain(struct handler *handler, const struct source *source)
{
	struct uffdwp_region *region = source->region;
	const ssize_t full = HANDLER_BATCH * sizeof(struct uffd_msg);
	unsigned failures = 0;
	ssize_t got;

	atomic_store(&region->events_in_hand, 1);
	fault_close_gate(region);
	do {
		got = handler_take_messages(handler, source);
		failures += got < 0 && got != -EAGAIN;
	} while (got == full || (got < 0 && got != -EAGAIN && failures < HANDLER_FAILURES_MAX));
	/* The other process shares the open file, and may have made it block: then it is reported for nothing. */
	if (source->mapper && got == -EAGAIN)
		handler->k->change_flags(source->uffd, O_NONBLOCK, 0);
	atomic_fetch_add(&region->events_turns, 1);
	atomic_store(&region->events_in_hand, 0);
	if (failures == HANDLER_FAILURES_MAX && source->mapper) {
		events_lose_sight(region, REGION_UNSERVED, -EOWNERDEAD);
		mapper_release(source->mapper);
	} else if (failures == HANDLER_FAILURES_MAX) {
		handler_give_up(region);
	}
	/* Everything was read, also the event that kept pages from being disarmed: its owner runs on, then they can be.
	 */
	if (atomic_exchange(&region->again, 0)) {
		unsigned turn = BACKOFF_YIELD + region->again_turns;

		kernel_back_off(region->k, &turn);
		region->again_turns = turn - BACKOFF_YIELD;
		fault_wake_region(region);
	} else {
		region->again_turns = 0;
	}
	handler->news |= losses_have_news(region);
	handler_resume_by_close(handler, region);
}

/* A thread there may wait until an event is read. */
static void handler_remove_mapper(struct handler *handler, struct mapper *mapper)
{
	const struct source source = {mapper->region, mapper, mapper->uffd};
	uint64_t token = (uint64_t)(uintptr_t)mapper;

	handler_drain(handler, &source);
	loop_remove(handler->shift->loop, mapper->uffd, token);
	if (mapper->pidfd >= 0)
		loop_remove(handler->shift->loop, mapper->pidfd, token | HANDLER_PIDFD);
}

static int handler_add_mapper(struct loop *loop, struct mapper *mapper)
{
	uint64_t token = (uint64_t)(uintptr_t)mapper;
	int error = loop_add(loop, mapper->uffd, token);

	if (!error && mapper->pidfd >= 0) {
		error = loop_add(loop, mapper->pidfd, token | HANDLER_PIDFD);
		if (error)
			loop_remove(loop, mapper->uffd, token);
	}
	return error == -EEXIST ? 0 : error; /* added when this thread took the handler's place */
}

static void handler_remove_mappers(struct handler *handler, struct uffdwp_region *region)
{
	for (unsigned i = 0; i < atomic_load(&region->mappers->end); i++) {
		if (atomic_load(&region->mappers->at[i].used))
			handler_remove_mapper(handler, &region->mappers->at[i]);
	}
}

int handler_watch_region(struct loop *loop, struct uffdwp_region *region)
{
	int error = 0;

	if (!region->mappers)
		return loop_add(loop, region->uffd, (uint64_t)(uintptr_t)region);
	for (unsigned i = 0; i < atomic_load(&region->mappers->end) && !error; i++) {
		if (atomic_load(&region->mappers->at[i].used) && !atomic_load(&region->mappers->at[i].gone))
			error = handler_add_mapper(loop, &region->mappers->at[i]);
	}
	return error;
}

static int handler_command_add(struct handler *handler, struct uffdwp_region *region)
{
	unsigned count = atomic_load(&handler->count);

	if (count == HANDLER_REGIONS_MAX)
		return -ENFILE;
	int error = handler_watch_region(handler->shift->loop, region);

	if (error)
		return error;
	region->wake_tag = handler->tag;
	region->wake_fd = handler->kick;
	handler->regions[count] = region;
	atomic_store(&handler->count, count + 1);
	return 0;
}

static void handler_forget(struct handler *handler, const struct uffdwp_region *region)
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

static int handler_command_run(struct handler *handler, const struct command *command)
{
	switch (command->kind) {
	case COMMAND_ADD:
		return handler_command_add(handler, command->region);
	case COMMAND_JOIN:
		return handler_add_mapper(handler->shift->loop, command->mapper);
	case COMMAND_PART:
		handler_remove_mapper(handler, command->mapper);
		break;
	case COMMAND_REMOVE:
		handler_forget(handler, command->region);
		if (command->region->mappers) {
			handler_remove_mappers(handler, command->region);
			break;
		}
		return loop_remove(handler->shift->loop, command->region->uffd, (uint64_t)(uintptr_t)command->region);
	case COMMAND_SYNC:
		break;
	case COMMAND_STOP:
		handler->stopping = 1;
		handler->stopped = 1;
		break;
	}
	return 0;
}

static void handler_run_commands(struct handler *handler)
{
	lock_take(&handler->lock);
	for (struct command *command = handler->commands; command;) {
		struct command *next = command->next;

		command->result = handler_command_run(handler, command);
		command->done = 1; /* from here on it is the caller's stack again */
		command = next;
	}
	handler->commands = NULL;
	pthread_cond_broadcast(&handler->served);
	lock_give(&handler->lock);
	/* A writer that found a loss kicks, too, and a thread that was refused to resume others. */
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		handler->news |= losses_have_news(handler->regions[i]);
		handler_resume_by_close(handler, handler->regions[i]);
	}
}

/* 1: the region is still ours; a command in the same batch may have taken it away. */
static int handler_has_region(const struct handler *handler, const struct uffdwp_region *region)
{
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		if (handler->regions[i] == region)
			return 1;
	}
	return 0;
}

/* The kernel has ended the poll of a descriptor, for want of memory: once more, or no thread would serve it. */
static int handler_poll_again(struct handler *handler, int fd, uint64_t token)
{
	loop_remove(handler->shift->loop, fd, token);
	return loop_add(handler->shift->loop, fd, token);
}

static void handler_take_kick(struct handler *handler, int result)
{
	uint64_t kicks;

	if (result < 0 && handler_poll_again(handler, handler->kick, HANDLER_KICK))
		handler->stopping = 1; /* as if the loop were broken: no command would be heard */
	if (own_check(handler->k, handler->kick, handler->tag) == 0)
		handler->k->read(handler->kick, &kicks, sizeof(kicks));
	handler_run_commands(handler);
}

/* The mapper that a token is of; NULL: none of a region that is still ours. */
static struct mapper *handler_mapper_of(const struct handler *handler, uint64_t token)
{
	uintptr_t wanted = (uintptr_t)(token & ~(uint64_t)HANDLER_PIDFD);

	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		struct mappers *mappers = handler->regions[i]->mappers;

		if (mappers && wanted - (uintptr_t)mappers->at < sizeof(mappers->at))
			return &mappers->at[(wanted - (uintptr_t)mappers->at) / sizeof(mappers->at[0])];
	}
	return NULL;
}

/* 1: its memory is gone with it. A thread that looks at it at this moment keeps it a little longer; a process that
 * shares it (CLONE_VM) keeps it. To unprotect a page harms no more then: the region is dead. */
static int handler_is_memory_gone(struct handler *handler, const struct mapper *mapper)
{
	unsigned turn = BACKOFF_YIELD;
	int error = 0;

	for (int i = 0; i < END_TRIES && error != -ESRCH; i++) {
		error = handler->k->uffd_writeprotect(mapper->uffd, mapper->mappings[0].address,
		                                      mapper->region->page_bytes, 0);
		if (error != -ESRCH)
			kernel_back_off(handler->k, &turn);
	}
	return error == -ESRCH;
}

/* It cannot be served any more: its writers go on, unseen. */
static void handler_release_mapper(struct handler *handler, struct mapper *mapper, int error)
{
	events_lose_sight(mapper->region, error == -ESTALE ? REGION_SHARED : REGION_UNSERVED, error);
	mapper_release(mapper);
	handler_remove_mapper(handler, mapper);
	mapper_note_gone(mapper);
}

/* The mapper's process has ended: it writes no more, or what shares its memory writes unseen from now on. */
static void handler_take_end(struct handler *handler, struct mapper *mapper)
{
	int is_gone = handler_is_memory_gone(handler, mapper);

	if (is_gone) {
		handler_remove_mapper(handler, mapper);
		events_lose_mapper(mapper);
		return;
	}
	handler_release_mapper(handler, mapper, -ESTALE);
}

static void handler_take_event_of(struct handler *handler, struct mapper *mapper, const struct loop_event *event)
{
	const struct source source = {mapper->region, mapper, mapper->uffd};

	if (!atomic_load(&mapper->used))
		return;
	if (event->token & HANDLER_PIDFD)
		handler_take_end(handler, mapper);
	else if (event->result < 0 && handler_poll_again(handler, mapper->uffd, event->token))
		handler_release_mapper(handler, mapper, -EOWNERDEAD);
	else
		handler_drain(handler, &source);
}

static void handler_take_event(struct handler *handler, const struct loop_event *event)
{
	struct mapper *mapper = handler_mapper_of(handler, event->token);
	struct uffdwp_region *region = (struct uffdwp_region *)(uintptr_t)event->token;

	const struct source source =
	        handler_has_region(handler, region) ? handler_source_of(region) : (struct source){NULL, NULL, -1};

	if (event->token == HANDLER_KICK)
		handler_take_kick(handler, event->result);
	else if (mapper)
		handler_take_event_of(handler, mapper, event);
	else if (!source.region)
		return;
	else if (event->result < 0 && handler_poll_again(handler, region->uffd, event->token))
		handler_give_up(region);
	else
		handler_drain(handler, &source);
}

/* ---- turns ---- */

/* From here on the thread touches nothing of the handler's: another may take its place. */
static void handler_leave(struct shift *shift)
{
	atomic_fetch_add(&shift->turn, 1);
}

/* 0: another has taken its place. */
static int handler_return(struct shift *shift)
{
	uint64_t away = atomic_load(&shift->turn) & ~SHIFT_OVER;

	return atomic_compare_exchange_strong(&shift->turn, &away, away + 1);
}

/* A function of the caller's may take long, and may not come back. 0: another thread has taken the place. */
static int handler_report(struct handler *handler, struct shift *shift)
{
	handler->news = 0;
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		struct uffdwp_region *region = handler->regions[i];

		if (!losses_have_news(region))
			continue;
		handler_leave(shift);
		losses_report(region);
		if (!handler_return(shift))
			return 0;
	}
	return 1;
}

/* Tests only: what handler_provoke() asks of one thread. 1: to end. */
static int handler_obey(struct handler *handler)
{
	if (atomic_load_explicit(&handler->provoked, memory_order_relaxed) == HANDLER_SERVES)
		return 0;
	int what = atomic_exchange(&handler->provoked, HANDLER_SERVES);

	while (what != HANDLER_ENDS && atomic_load(&handler->captive)) {
		if (what == HANDLER_SLEEPS)
			kernel_sleep(handler->k, 1000000);
	}
	return what == HANDLER_ENDS;
}

/* What came, -errno, or -EOWNERDEAD: another thread has taken the place. */
static int handler_wait(struct handler *handler, struct shift *shift, struct loop_event *events)
{
	uint64_t timeout_ns = handler_timeout(handler);

	handler_leave(shift);
	int ends = handler_obey(handler);

	/* The only place where the thread may be cancelled: it owns nothing here. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	int count = ends ? -ECANCELED : loop_wait(shift->loop, events, HANDLER_BATCH, timeout_ns);

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return handler_return(shift) ? count : -EOWNERDEAD;
}

static void handler_loop(struct handler *handler, struct shift *shift)
{
	struct loop_event events[HANDLER_BATCH];
	int serves = 1;

	while (serves && !handler->stopping) {
		int count = handler_wait(handler, shift, events);

		if (count < 0)
			break;
		for (int i = 0; i < count; i++)
			handler_take_event(handler, &events[i]);
		serves = !handler->news || handler_report(handler, shift);
	}
}

/* A thread that moves page tables sleeps until its event was read. Partner: tables_move_to(), which looks whether the
 * region is dead after it has raised the flag. */
static void handler_read_move(struct uffdwp_region *region)
{
	struct uffd_msg message;
	unsigned turn = 0;

	while (atomic_load(&region->moving) && !own_check(region->k, region->uffd, region->tag)) {
		region->k->uffd_read(region->uffd, &message, 1);
		kernel_back_off(region->k, &turn);
	}
}

void handler_end(struct handler *handler)
{
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		handler_give_up(handler->regions[i]);
		handler_read_move(handler->regions[i]);
	}
	lock_take(&handler->lock);
	handler->dead = 1;
	for (struct command *command = handler->commands; command; command = command->next) {
		command->result = -EOWNERDEAD;
		command->done = 1;
	}
	handler->commands = NULL;
	pthread_cond_broadcast(&handler->served);
	lock_give(&handler->lock);
}

int handler_find_lost(const struct handler *handler)
{
	int lost = own_check(handler->k, handler->kick, handler->tag);

	return lost ? lost : loop_check(handler->shift->loop);
}

/* 1: another thread takes its place, and serves its regions. */
static int handler_bequeath(struct handler *handler)
{
	lock_take(&handler->lock);
	handler->ended = handler->guarded && !handler->stopped && !handler->leaving && !handler_find_lost(handler);
	int ended = handler->ended;
	struct region_bell *bell = handler->bell;

	lock_give(&handler->lock);
	if (ended)
		region_ring(bell, handler->k);
	return ended;
}

/* The thread ends, wanted or not: no writer may be left asleep after it. */
static void handler_die(void *argument)
{
	struct shift *shift = argument;
	int is_at_work = atomic_load(&shift->turn) & 1;

	if ((is_at_work || handler_return(shift)) && !handler_bequeath(shift->handler))
		handler_end(shift->handler);
	atomic_store(&shift->ended, 1);
}

void handler_serve(struct shift *shift)
{
	struct handler *handler = shift->handler;

	thread_begin("uffdwp-fault");
	atomic_store(&shift->id, (int)syscall(SYS_gettid));
	handler->k->sched_slice(SLICE_NS);
	nodes_prefer(handler->node);
	follow_begin(&handler->follow, handler->k, handler->tag);
	pthread_cleanup_push(handler_die, shift);
	handler_loop(handler, shift);
	pthread_cleanup_pop(1);
}
