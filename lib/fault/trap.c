/* SPDX-License-Identifier: MIT */
/* See trap.h. A layer is written before the kernel can call it, and not changed after, so that signals read it freely.
 */
#include "fault/trap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "base/cancel.h"
#include "base/signals.h"
#include "kernel/kernel.h"
#include "kernel/process.h"

/* The kernel fills 48 bytes of a siginfo_t and clears the rest, for each signal anew: also where a handler left the
 * last one by siglongjmp(3). */
#define TRAP_TAG_AT (sizeof(siginfo_t) - sizeof(struct trap_tag))
#define TRAP_TAG_MAGIC 0x7566666477703a29ull

/* How often a handler that another thread installs at the same moment is given its place back. */
#define TRAP_TRIES 8

struct trap_tag {
	uint64_t magic;
	uint64_t met; /* bit n: layer n */
};

_Static_assert(sizeof(siginfo_t) == 128 && TRAP_LAYERS <= 64, "the tag lies after what the kernel fills");

struct trap_layer {
	struct sigaction previous;
	_Atomic int spent; /* SA_RESETHAND: it was called, and is the default since */
};

struct trap {
	int number;
	unsigned count;                   /* the installer's */
	_Atomic(trap_resolve_fn) resolve; /* written again and again, with the same: signals may read it meanwhile */
	struct trap_layer layers[TRAP_LAYERS];
};

static _Atomic uint32_t trap_installer; /* the process that installs: a child of fork() does not wait for its parent */
static struct trap trap_bus = {.number = SIGBUS};
static struct trap trap_segv = {.number = SIGSEGV};

static struct trap *trap_of(int number)
{
	return number == SIGBUS ? &trap_bus : &trap_segv;
}

/* ---- a signal ---- */

/* The layers that this signal met before this one. */
static uint64_t trap_meet(siginfo_t *info, unsigned index)
{
	struct trap_tag tag;
	unsigned char *place = (unsigned char *)info + TRAP_TAG_AT;

	memcpy(&tag, place, sizeof(tag));
	uint64_t met = tag.magic == TRAP_TAG_MAGIC ? tag.met : 0;

	tag.magic = TRAP_TAG_MAGIC;
	tag.met = met | 1ull << index;
	memcpy(place, &tag, sizeof(tag));
	return met;
}

/* The signals that would be blocked if the kernel had called the previous handler itself. */
static void trap_mask(const struct trap *trap, const struct sigaction *previous, const ucontext_t *context,
                      sigset_t *before)
{
	sigset_t mask = context->uc_sigmask;

	for (int number = 1; number < NSIG; number++) {
		if (sigismember(&previous->sa_mask, number) == 1)
			sigaddset(&mask, number);
	}
	if (!(previous->sa_flags & SA_NODEFER))
		sigaddset(&mask, trap->number);
	pthread_sigmask(SIG_SETMASK, &mask, before);
}

static void trap_call(const struct trap *trap, const struct sigaction *previous, siginfo_t *info, void *context)
{
	sigset_t before;

	trap_mask(trap, previous, context, &before);
	if (previous->sa_flags & SA_SIGINFO)
		previous->sa_sigaction(trap->number, info, context);
	else
		previous->sa_handler(trap->number);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Sent by a process, or a report of damaged memory that was not touched: no access is repeated. */
static int trap_is_sent(const struct trap *trap, const siginfo_t *info)
{
	return info->si_code <= 0 || (trap->number == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

/* The access is repeated without us and ends the process; what was sent is sent again. */
static void trap_default(const struct trap *trap, const siginfo_t *info)
{
	struct sigaction standard = {.sa_handler = SIG_DFL};

	sigaction(trap->number, &standard, NULL);
	if (trap_is_sent(trap, info))
		raise(trap->number);
}

/* To the handler that was there before this layer. */
static void trap_chain(struct trap *trap, unsigned index, siginfo_t *info, void *context)
{
	struct trap_layer *layer = &trap->layers[index];
	const struct sigaction *previous = &layer->previous;
	int has_handler =
	        previous->sa_flags & SA_SIGINFO || (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN);

	if (!has_handler && previous->sa_handler == SIG_IGN && trap_is_sent(trap, info))
		return; /* a fault cannot be ignored */
	if (!has_handler || (previous->sa_flags & (int)SA_RESETHAND && atomic_exchange(&layer->spent, 1)))
		trap_default(trap, info);
	else
		trap_call(trap, previous, info, context);
}

static void trap_enter(int number, unsigned index, siginfo_t *info, void *context)
{
	struct trap *trap = trap_of(number);
	int saved = errno;
	int cancel_state = cancel_disable(); /* inside the epoch an eventfd may be written to */
	uint64_t met = trap_meet(info, index);
	int ours = !met && atomic_load(&trap->resolve)(number, info, context);

	cancel_restore(&cancel_state);
	errno = saved;
	if (ours)
		return;
	if (!(met >> index & 1))
		trap_chain(trap, index, info, context);
	else
		trap_default(trap, info); /* a circle: all that are in it have passed it on */
}

/* clang-format off */
#define TRAP_ENTRY(index)                                                                                              \
	static void trap_entry_##index(int number, siginfo_t *info, void *context)                                     \
	{                                                                                                              \
		trap_enter(number, index, info, context);                                                              \
	}
/* clang-format on */
TRAP_ENTRY(0)
TRAP_ENTRY(1)
TRAP_ENTRY(2)
TRAP_ENTRY(3)
TRAP_ENTRY(4)
TRAP_ENTRY(5)
TRAP_ENTRY(6)
TRAP_ENTRY(7)

static void (*const trap_entries[TRAP_LAYERS])(int number, siginfo_t *info, void *context) = {
        trap_entry_0, trap_entry_1, trap_entry_2, trap_entry_3, trap_entry_4, trap_entry_5, trap_entry_6, trap_entry_7};

/* ---- installing ---- */

static int trap_is_ours(const struct sigaction *action)
{
	for (unsigned i = 0; i < TRAP_LAYERS; i++) {
		if (action->sa_flags & SA_SIGINFO && action->sa_sigaction == trap_entries[i])
			return 1;
	}
	return 0;
}

static int trap_is_same(const struct sigaction *a, const struct sigaction *b)
{
	if (a->sa_flags != b->sa_flags || a->sa_sigaction != b->sa_sigaction)
		return 0;
	for (int number = 1; number < NSIG; number++) {
		if (sigismember(&a->sa_mask, number) != sigismember(&b->sa_mask, number))
			return 0;
	}
	return 1;
}

/* The layer that goes to this handler, TRAP_LAYERS where no more can be. */
static unsigned trap_layer_for(struct trap *trap, const struct sigaction *found)
{
	unsigned index = 0;

	while (index < trap->count &&
	       (!trap_is_same(&trap->layers[index].previous, found) || atomic_load(&trap->layers[index].spent)))
		index++;
	if (index == trap->count && index < TRAP_LAYERS) {
		trap->layers[index].previous = *found; /* before the kernel can call it */
		trap->count++;
	}
	return index;
}

/* 1: done; 0: another thread has installed one meanwhile, once more; or -errno. */
static int trap_put(struct trap *trap, const struct sigaction *found)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	struct sigaction before;
	unsigned index = trap_layer_for(trap, found);

	if (index == TRAP_LAYERS)
		return -EMLINK;
	action.sa_sigaction = trap_entries[index];
	sigfillset(&action.sa_mask);
	if (sigaction(trap->number, &action, &before))
		return -errno;
	if (trap_is_same(&before, found))
		return 1;
	sigaction(trap->number, &before, NULL);
	return 0;
}

static int trap_look(struct trap *trap)
{
	struct sigaction found;

	for (unsigned tries = 0; tries < TRAP_TRIES; tries++) {
		if (sigaction(trap->number, NULL, &found))
			return -errno;
		int put = trap_is_ours(&found) ? 0 : trap_put(trap, &found);

		if (put || trap_is_ours(&found))
			return put;
	}
	return -EBUSY;
}

static void trap_lock(void)
{
	uint32_t process = process_number();
	uint32_t holder = 0;

	while (!atomic_compare_exchange_weak(&trap_installer, &holder, process)) {
		if (holder == process)
			kernel_sleep(&kernel_real, 50000);
		holder = holder == process ? 0 : holder;
	}
}

int trap_install(int number, trap_resolve_fn resolve)
{
	struct trap *trap = trap_of(number);
	sigset_t before;

	signals_block_but_faults(&before); /* a handler of the program may wait for a thread that waits here */
	trap_lock();
	atomic_store(&trap->resolve, resolve);
	int result = trap_look(trap);

	atomic_store(&trap_installer, 0);
	signals_restore(&before);
	return result;
}
