/* SPDX-License-Identifier: MIT */
/* See runtime.h. */
#include "fault/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "fault/fault.h"
#include "fault/inline.h"
#include "fault/trap.h"
#include "kernel/abi.h"
#include "kernel/caller.h"
#include "kernel/nodes.h"
#include "kernel/own.h"
#include "kernel/pagemap.h"
#include "kernel/probe.h"
#include "kernel/process.h"
#include "region/mapper.h"
#include "region/plan.h"
#include "region/registry.h"
#include "region/view.h"

static const char *const memory_names[UFFDWP_MEMORY_COUNT] = {"shmem", "hugetlb", "anonymous"};

/* Reads a number at *at and moves on; -1: there is none below CPU_SETSIZE. */
static long runtime_cpu_number(const char **at)
{
	char *end;

	if (**at < '0' || **at > '9')
		return -1;
	long number = strtol(*at, &end, 10);

	*at = end;
	return number < CPU_SETSIZE ? number : -1;
}

/* "0-3,8" */
static int runtime_cpus_parse(const char *list, cpu_set_t *cpus)
{
	CPU_ZERO(cpus);
	for (const char *at = list;; at++) {
		long first = runtime_cpu_number(&at);
		long last = first;

		if (first >= 0 && *at == '-') {
			at++;
			last = runtime_cpu_number(&at);
		}
		if (first < 0 || last < first || (*at != ',' && *at != '\0'))
			return -EINVAL;
		for (long cpu = first; cpu <= last; cpu++)
			CPU_SET((size_t)cpu, cpus);
		if (*at == '\0')
			return 0;
	}
}

/* Keeps the CPUs of `cpus` (all, where there is no list) that belong to the nodes. */
static int runtime_cpus_of_nodes(uint64_t nodes, int listed, cpu_set_t *cpus)
{
	cpu_set_t found;
	int error = 0;

	if (63 - __builtin_clzll(nodes) > nodes_last())
		return -EINVAL;
	CPU_ZERO(&found);
	for (uint64_t left = nodes; left && !error; left &= left - 1)
		error = nodes_add_cpus(__builtin_ctzll(left), &found);
	if (listed)
		CPU_AND(cpus, cpus, &found);
	else
		*cpus = found;
	return error || !CPU_COUNT(cpus) ? -EINVAL : 0;
}

static int runtime_place_of(const struct uffdwp_options *options, struct text *text, cpu_set_t *cpus,
                            struct handler_place *place)
{
	int listed = options->handler_cpus != NULL;

	CPU_ZERO(cpus);
	if (listed && runtime_cpus_parse(options->handler_cpus, cpus))
		return text_fail(text, -EINVAL, "handler_cpus \"%s\" is not a list of CPUs such as 0-3,8",
		                 options->handler_cpus);
	if (options->numa_nodes && nodes_last() == -EOPNOTSUPP)
		return text_fail(text, -EOPNOTSUPP, NODES_NOT_BUILT ": numa_nodes must be 0");
	if (options->numa_nodes && runtime_cpus_of_nodes(options->numa_nodes, listed, cpus))
		return text_fail(text, -EINVAL, "numa_nodes %#llx have no CPU that may be used; 0 means any",
		                 (unsigned long long)options->numa_nodes);
	place->cpus = listed || options->numa_nodes ? cpus : NULL;
	place->node = options->numa_nodes ? __builtin_ctzll(options->numa_nodes) : -1;
	return 0;
}

static const char *const access_names[] = {"system call", "device", "system call, user mode only", "nothing"};

/* Why there is none, and what to change. */
static void runtime_explain_access(struct uffdwp *runtime, int error, const int errors[KERNEL_ACCESS_COUNT])
{
	char *text = runtime->access_text;
	size_t size = sizeof(runtime->access_text);

	if (runtime->flags & UFFDWP_OPEN_USER_MODE)
		snprintf(text, size, "userfaultfd(UFFD_USER_MODE_ONLY) is refused: %s; see uffdwp-ctl doctor",
		         errno_text(error));
	else if (error == -ENOSYS)
		snprintf(text, size, "this kernel has no userfaultfd (CONFIG_USERFAULTFD)");
	else
		snprintf(text, size,
		         "no userfaultfd: system call: %s; /dev/userfaultfd: %s. Allow one: sysctl "
		         "vm.unprivileged_userfaultfd=1, or read and write permission on /dev/userfaultfd, or a "
		         "seccomp profile that lets userfaultfd(2) pass; see uffdwp-ctl doctor",
		         errno_text(errors[KERNEL_ACCESS_SYSCALL]), errno_text(errors[KERNEL_ACCESS_DEVICE]));
}

/* Without a userfaultfd mprotect(2) is left. Only what may be otherwise a moment later is an error. */
static int runtime_find_access(struct uffdwp *runtime, struct text *text)
{
	int errors[KERNEL_ACCESS_COUNT];
	int uffd =
	        kernel_uffd_open(runtime->k, (runtime->flags & UFFDWP_OPEN_USER_MODE) != 0, &runtime->access, errors);

	if (uffd >= 0) {
		runtime->k->close(uffd);
		return 0;
	}
	runtime_explain_access(runtime, uffd, errors);
	if (uffd == -EMFILE || uffd == -ENFILE || uffd == -ENOMEM)
		return text_fail(text, uffd, "%s", runtime->access_text);
	runtime->access = KERNEL_ACCESS_COUNT;
	text_fail(NULL, uffd, "%s; mechanism mprotect is left", runtime->access_text);
	return 0;
}

/* Trials are answers about one kind of access to a userfaultfd: with another all is tried anew. With the runtime's
 * lock. */
static void runtime_take_access(struct uffdwp *runtime, enum kernel_access access)
{
	runtime->access = access;
	runtime->shows_wp_bits = -1;
	memset(runtime->tried, 0, sizeof(runtime->tried));
	runtime->tried_move = 0;
}

/* A process that gives up rights (setuid, capabilities, a seccomp filter) loses its access to a userfaultfd, and may
 * have another: faults of user code only. With the runtime's lock. */
static int runtime_find_access_again(struct uffdwp *runtime)
{
	int user_mode = (runtime->flags & UFFDWP_OPEN_USER_MODE) != 0;
	int errors[KERNEL_ACCESS_COUNT];
	enum kernel_access access = KERNEL_ACCESS_COUNT;
	int uffd = kernel_uffd_open(runtime->k, user_mode, &access, errors);

	if (kernel_is_passing(uffd))
		return text_fail(NULL, uffd, "no userfaultfd: %s", errno_text(uffd));
	if (uffd >= 0)
		runtime->k->close(uffd);
	if (access == runtime->access)
		return 0;
	runtime_take_access(runtime, access);
	TRACE("runtime %p: uffd by %s from now on", (void *)runtime, access_names[access]);
	if (access == KERNEL_ACCESS_COUNT)
		runtime_explain_access(runtime, uffd, errors);
	else if (access == KERNEL_ACCESS_USER_MODE && !user_mode)
		snprintf(runtime->access_text, sizeof(runtime->access_text),
		         "since this process gave up rights (system call: %s; /dev/userfaultfd: %s) only faults of "
		         "user code are caught: a system call that writes into an armed page fails with EFAULT",
		         errno_text(errors[KERNEL_ACCESS_SYSCALL]), errno_text(errors[KERNEL_ACCESS_DEVICE]));
	else
		runtime->access_text[0] = '\0';
	if (*runtime->access_text)
		text_fail(NULL, 0, "%s", runtime->access_text);
	return 0;
}

int runtime_check_access(struct uffdwp *runtime)
{
	int error = 0;

	lock_take(&runtime->lock);
	int uffd = runtime->access == KERNEL_ACCESS_COUNT ? -EPERM : kernel_uffd_open_by(runtime->k, runtime->access);

	if (uffd >= 0)
		runtime->k->close(uffd);
	else if (kernel_is_passing(uffd))
		error = text_fail(NULL, uffd, "no userfaultfd: %s", errno_text(uffd));
	else
		error = runtime_find_access_again(runtime);
	lock_give(&runtime->lock);
	return error;
}

int runtime_check_own(struct uffdwp *runtime, const struct uffdwp_region *region)
{
	int error = 0;

	for (unsigned i = 0; i < runtime->handler_count && !error && (!region || region->uffd >= 0); i++)
		error = handler_check(runtime->handlers[i]);
	if (!error && region && region->uffd >= 0)
		error = own_check(region->k, region->uffd, region->tag);
	if (!error && region)
		error = region_check_file(region);
	return error ? text_fail(NULL, error,
	                         "the program has closed descriptors of the library%s: one that closes what it did "
	                         "not open has to do so before uffdwp_open()",
	                         error == -ESTALE ? ", and opened others by their numbers" : "")
	             : 0;
}

int runtime_check_own_all(struct uffdwp *runtime, struct uffdwp_region *const *regions, size_t count)
{
	int error = 0;

	for (size_t i = 0; i < count && !error; i++)
		error = runtime_check_own(runtime, regions[i]);
	return error;
}

/* A region whose writers wait for a thread has one that looks after that one. Where none can be started, all is as well
 * until the handler's thread ends: then the region dies. */
static void runtime_guard(struct uffdwp_region *region)
{
	struct uffdwp *runtime = region->runtime;

	if (region->delivery == UFFDWP_DELIVERY_INLINE || region->uffd < 0)
		return;
	guard_renew(&runtime->guard, runtime->k, runtime->handlers, runtime->handler_count);
	atomic_store(&region->bell, &runtime->guard.bell);
}

/* Ours is the handler in front, or becomes it. */
static int runtime_trap(const struct uffdwp_region *region)
{
	const char *name = region->uffd < 0 ? "SIGSEGV" : "SIGBUS";
	int put = region->delivery == UFFDWP_DELIVERY_INLINE ? inline_install(region) : 0;

	if (put > 0)
		TRACE("%s: the library's handler is in front of that of the program", name);
	if (put == -EMLINK)
		return text_fail(NULL, put,
		                 "too many handlers of %s were installed over the library's, one after the other (%d): "
		                 "install them before the first region, and pass on what is not theirs",
		                 name, TRAP_LAYERS);
	return put < 0 ? text_fail(NULL, put, "the handler of %s could not be installed: %s", name, errno_text(put))
	               : 0;
}

/* 1: the thread runs on a stack in some region: a write there while signals are blocked, or faults stalled, is its end.
 */
static int runtime_is_on_region(void)
{
	return registry_locate(caller_stack()) != NULL;
}

static int runtime_refuse_caller(uintptr_t start, uint64_t length, int waits)
{
	const char *what = caller_in(start, start + length, waits);

	if (!what && runtime_is_on_region())
		what = "the stack of the calling thread";
	return what ? text_fail(NULL, -EDEADLK,
	                        "%s lies in a region: it would wait for itself, or the kernel would not get to write "
	                        "there. Give the thread other memory, or call from another thread",
	                        what)
	            : 0;
}

/* For memory that is to be attached. */
static int runtime_check_caller(const struct region_plan *plan)
{
	return runtime_refuse_caller((uintptr_t)plan->address, plan->length_bytes, plan_lets_syscalls_wait(plan));
}

int runtime_check_faults(struct uffdwp_region *region)
{
	int error = runtime_refuse_caller(atomic_load(&region->base), region->capacity_bytes, region->syscalls_wait);

	if (!error)
		runtime_guard(region);
	return error ? error : runtime_trap(region);
}

int runtime_check_faults_all(struct uffdwp_region *const *regions, size_t count)
{
	int error = 0;

	for (size_t i = 0; i < count && !error; i++)
		error = runtime_check_faults(regions[i]);
	return error;
}

static void runtime_stop_handlers(struct uffdwp *runtime)
{
	guard_stop(&runtime->guard);
	while (runtime->handler_count > 0)
		handler_stop(runtime->handlers[--runtime->handler_count]);
}

/* As was measured: bench/README.md. */
static unsigned runtime_default_handlers(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
}

static int runtime_start_handlers(struct uffdwp *runtime, const struct uffdwp_options *options, struct text *text)
{
	unsigned wanted = options->handler_threads ? options->handler_threads : runtime_default_handlers();
	struct handler_place place;
	cpu_set_t cpus;
	int error = runtime_place_of(options, text, &cpus, &place);

	while (!error && runtime->handler_count < wanted) {
		error = handler_start(runtime->k, &place, &runtime->handlers[runtime->handler_count]);
		if (error)
			return text_fail(text, error, "a handler thread could not be started: %s%s", errno_text(error),
			                 error == -EINVAL ? " (are all CPUs in handler_cpus there?)" : "");
		runtime->handler_count++;
	}
	return error;
}

int runtime_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct text *text,
                 struct uffdwp **out)
{
	if (process_begin() || !registry_init() || registry_watch_forks())
		return text_fail(text, -ENOMEM, "no memory for a runtime");
	if (process_is_guest())
		return text_fail(
		        text, -ECHILD,
		        "this process shares the memory of another one (vfork(), CLONE_VM): only the other can "
		        "open a runtime");
	struct uffdwp *runtime = pages_new(k, sizeof(*runtime));

	if (!runtime)
		return text_fail(text, -ENOMEM, "no memory for a runtime");
	runtime->k = k;
	runtime->flags = options->flags;
	runtime->process = getpid();
	runtime->process_number = process_number();
	runtime->shows_wp_bits = -1;
	runtime->opened_ns = kernel_now_ns();
	runtime->tag = own_new();
	runtime->pagemap = pagemap_open(k);
	if (runtime->pagemap >= 0 && own_take(k, runtime->pagemap, runtime->tag))
		runtime->pagemap = -1;
	runtime->proc = k->open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (runtime->proc >= 0 && own_take(k, runtime->proc, runtime->tag))
		runtime->proc = -1;
	lock_init(&runtime->lock);
	int error = runtime_find_access(runtime, text);

	if (!error)
		error = runtime_start_handlers(runtime, options, text);
	if (error) {
		runtime_close(runtime);
		return error;
	}
	TRACE("runtime %p: uffd by %s, %u handler threads", (void *)runtime, access_names[runtime->access],
	      runtime->handler_count);
	*out = runtime;
	return 0;
}

int runtime_pagemap(const struct uffdwp *runtime)
{
	int fd = pagemap_open(runtime->k);

	if (fd >= 0 && own_take(runtime->k, fd, runtime->tag))
		return -ENOMEM;
	if ((fd == -EACCES || fd == -EPERM || fd == -ENOENT) && runtime->pagemap >= 0 &&
	    !own_check(runtime->k, runtime->pagemap, runtime->tag))
		return runtime->k->dup(runtime->pagemap, 0);
	return fd;
}

int runtime_close(struct uffdwp *runtime)
{
	lock_take(&runtime->lock);
	unsigned regions = runtime->regions;
	unsigned tracks = runtime->tracks;
	lock_give(&runtime->lock);

	if (regions || tracks)
		return text_fail(NULL, -EBUSY,
		                 "%u region%s and %u track%s of the runtime are open: close the regions, stop the "
		                 "tracks (which may hold regions of their own)",
		                 regions, regions == 1 ? "" : "s", tracks, tracks == 1 ? "" : "s");
	roster_remove(runtime->k, &runtime->roster);
	runtime_stop_handlers(runtime);
	own_close(runtime->k, runtime->pagemap, runtime->tag);
	own_close(runtime->k, runtime->proc, runtime->tag);
	lock_fini(&runtime->lock);
	pages_free(runtime->k, runtime, sizeof(*runtime));
	return 0;
}

/* 1: some rung of the ladder could not be tried at that moment. */
static int runtime_is_incomplete(const struct probe_memory *trial)
{
	for (unsigned id = 0; id < UFFDWP_MECHANISM_COUNT; id++) {
		if (trial->rungs[id].error)
			return 1;
	}
	return 0;
}

/* A trial that had all that it needed is kept; another is made again: huge pages, rights or descriptors may come. */
void runtime_try(struct uffdwp *runtime, uint32_t memory, struct probe_memory *trial)
{
	lock_take(&runtime->lock);
	struct probe_memory *kept = &runtime->trials[memory];

	if (!runtime->tried[memory]) {
		memset(kept, 0, sizeof(*kept));
		int error = probe_memory(runtime->k, runtime->access, (runtime->flags & UFFDWP_OPEN_USER_MODE) != 0,
		                         (enum uffdwp_memory)memory, kept);

		runtime->tried[memory] =
		        !error && kept->mechanism != UFFDWP_MECHANISM_AUTO && !runtime_is_incomplete(kept) &&
		        (kept->registered || kept->answers[UFFDWP_TRIAL_POPULATED] == UFFDWP_ANSWER_KEPT);
	}
	*trial = *kept;
	lock_give(&runtime->lock);
}

void runtime_try_move(struct uffdwp *runtime, uint32_t memory, struct probe_arming *move)
{
	if (memory != UFFDWP_MEMORY_SHMEM) { /* refused without a trial */
		(void)probe_move(runtime->k, runtime->access, (enum uffdwp_memory)memory, move);
		return;
	}
	lock_take(&runtime->lock);
	if (!runtime->tried_move) {
		(void)probe_move(runtime->k, runtime->access, UFFDWP_MEMORY_SHMEM, &runtime->move);
		runtime->tried_move = !runtime->move.error;
	}
	*move = runtime->move;
	lock_give(&runtime->lock);
}

void runtime_try_child(struct uffdwp *runtime, struct probe_arming *child)
{
	int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0); /* changes with the user, and with what may be traced */

	lock_take(&runtime->lock);
	if (!runtime->tried_child || runtime->dumpable != dumpable) {
		probe_child(runtime->k, &runtime->child);
		runtime->tried_child = !runtime->child.error;
		runtime->dumpable = dumpable;
	}
	*child = runtime->child;
	lock_give(&runtime->lock);
}

/* THREAD, INLINE, or AUTO: neither is possible. */
static uint32_t runtime_delivery_of(const struct probe_rung *rung, uint32_t asked)
{
	if (rung->thread_works && asked != UFFDWP_DELIVERY_INLINE)
		return UFFDWP_DELIVERY_THREAD;
	if (rung->inline_works && asked != UFFDWP_DELIVERY_THREAD)
		return UFFDWP_DELIVERY_INLINE;
	return UFFDWP_DELIVERY_AUTO;
}

/* Why this rung cannot be taken for this plan; NULL: it can. */
static const char *runtime_rung_refusal(const struct probe_rung *rung, const struct mechanism *mechanism,
                                        const struct region_plan *plan)
{
	if (!rung->works)
		return rung->reason;
	if (mechanism->owns_empty && plan->memory != UFFDWP_MEMORY_ANON && plan->address && plan->options.fd < 0)
		return "it needs the file of the mapping: attach with its fd";
	if (runtime_delivery_of(rung, plan->options.delivery) != UFFDWP_DELIVERY_AUTO)
		return NULL;
	return rung->inline_works ? "it needs inline delivery, where system calls that write into armed pages fail "
	                            "with EFAULT: ask for UFFDWP_DELIVERY_INLINE or _AUTO"
	                          : "it cannot be delivered inline here: ask for UFFDWP_DELIVERY_THREAD or _AUTO";
}

static int runtime_take_rung(struct region_plan *plan, const struct mechanism *mechanism,
                             const struct probe_memory *trial)
{
	INVARIANT(TRIED, trial->rungs[mechanism->id].works);
	plan->mechanism = mechanism;
	plan->fills = trial->fills;
	plan->options.delivery = runtime_delivery_of(&trial->rungs[mechanism->id], plan->options.delivery);
	return 0;
}

/* What may help against it. */
static const char *runtime_passing_advice(int error)
{
	if (error == -EMFILE)
		return "; raise the limit of open files (ulimit -n)";
	if (error == -EAGAIN)
		return "; after mlockall(MCL_FUTURE) raise the limit of locked memory (ulimit -l)";
	return "";
}

static int runtime_choose(struct uffdwp *runtime, struct region_plan *plan)
{
	uint32_t asked = plan->options.mechanism;
	const char *memory = memory_names[plan->memory];
	struct probe_memory trial;
	const char *why = "";
	const char *which_mechanism = "";

	if (asked >= UFFDWP_MECHANISM_REGION_COUNT)
		return text_fail(NULL, -EOPNOTSUPP, "%s only reports what was written: uffdwp_track_start()",
		                 asked == UFFDWP_MECHANISM_ASYNC ? "async" : "soft-dirty");
	runtime_try(runtime, plan->memory, &trial);
	for (uint32_t id = UFFDWP_MECHANISM_AUTO + 1; id < UFFDWP_MECHANISM_REGION_COUNT; id++) {
		const struct mechanism *mechanism = mechanism_by_id(id);
		const char *refusal;

		if (asked != UFFDWP_MECHANISM_AUTO && asked != id)
			continue;
		/* A lesser mechanism is not kept because of a passing want of the better one. */
		if (trial.rungs[id].error)
			return text_fail(NULL, trial.rungs[id].error, "%s memory could not be tried by %s: %s%s",
			                 memory, mechanism->name, errno_text(trial.rungs[id].error),
			                 runtime_passing_advice(trial.rungs[id].error));
		refusal = runtime_rung_refusal(&trial.rungs[id], mechanism, plan);
		if (!refusal)
			return runtime_take_rung(plan, mechanism, &trial);
		/* The text names the lowest rung that works, else the topmost. */
		if (!*why || trial.rungs[id].works) {
			why = refusal;
			which_mechanism = mechanism->name;
		}
	}
	return text_fail(NULL, -EOPNOTSUPP, "%s memory cannot be watched by %s: %s%s%s", memory, which_mechanism, why,
	                 *runtime->access_text ? "; " : "", runtime->access_text);
}

int runtime_plan(struct uffdwp *runtime, struct region_plan *plan)
{
	int error = runtime_check_own(runtime, NULL);

	if (!error)
		error = runtime_check_access(runtime);
	plan->access = runtime->access;
	if (!error)
		error = runtime_choose(runtime, plan);
	if (!error && plan->address)
		error = plan_check_file(plan);
	return error || !plan->address ? error : runtime_check_caller(plan);
}

/* What this process may do with userfaultfds of its own does not matter; only what the kernel fills in one step. */
int runtime_plan_adopted(struct uffdwp *runtime, struct region_plan *plan)
{
	struct probe_memory trial = {.fills = 0};
	int error = runtime_check_own(runtime, NULL);

	if (error)
		return error;
	int is_private = (plan->options.flags & UFFDWP_REGION_ADOPT_PRIVATE) != 0;

	if (!is_private) /* that is filled by the oldest calls */
		runtime_try(runtime, plan->memory, &trial);
	uint64_t features = 0;

	/* Where this process may not have a userfaultfd it is not known, and lazy restores are refused. */
	if (runtime->access != KERNEL_ACCESS_COUNT)
		(void)kernel_uffd_features(runtime->k, runtime->access, &features);
	plan->can_poison = (features & UFFD_FEATURE_POISON) != 0;
	plan->access = KERNEL_ACCESS_SYSCALL; /* of the mapper's: what meets its pages waits there, or fails there */
	int keeps = trial.rungs[UFFDWP_MECHANISM_MARKER].works || !trial.rungs[UFFDWP_MECHANISM_REARM].works;
	uint32_t best = keeps && !is_private ? UFFDWP_MECHANISM_MARKER : UFFDWP_MECHANISM_REARM;

	plan->mechanism = mechanism_by_id(plan->options.mechanism ? plan->options.mechanism : best);
	plan->fills = trial.fills;
	plan->options.delivery = UFFDWP_DELIVERY_THREAD;
	return 0;
}

int runtime_shows_wp_bits(struct uffdwp *runtime)
{
	lock_take(&runtime->lock);
	if (runtime->shows_wp_bits < 0)
		runtime->shows_wp_bits = probe_bit57(runtime->k, runtime->access);
	int shows = runtime->shows_wp_bits;

	lock_give(&runtime->lock);
	return shows;
}

static struct handler *runtime_least_loaded(const struct uffdwp *runtime)
{
	struct handler *best = runtime->handlers[0];

	for (unsigned i = 1; i < runtime->handler_count; i++) {
		if (handler_load(runtime->handlers[i]) < handler_load(best))
			best = runtime->handlers[i];
	}
	return best;
}

static void runtime_count_region(struct uffdwp *runtime, int by)
{
	lock_take(&runtime->lock);
	runtime->regions += (unsigned)by;
	lock_give(&runtime->lock);
}

void runtime_count_track(struct uffdwp *runtime, int by)
{
	lock_take(&runtime->lock);
	runtime->tracks += (unsigned)by;
	lock_give(&runtime->lock);
}

static int runtime_join_handler(struct uffdwp *runtime, struct uffdwp_region *region)
{
	struct handler *handler = runtime_least_loaded(runtime);
	int error = handler_add(handler, region);

	if (error)
		return text_fail(NULL, error, "the handler thread did not take the region: %s",
		                 error == -ENFILE ? "each serves at most 1024, ask for more handler_threads"
		                                  : errno_text(error));
	region->handler = handler;
	return 0;
}

static int runtime_join(struct uffdwp *runtime, struct uffdwp_region *region)
{
	int error = runtime_trap(region);

	if (error)
		return error;
	error = registry_add(region, atomic_load(&region->base), region->capacity_bytes);
	if (error)
		return text_fail(NULL, error,
		                 error == -EBUSY ? "the range overlaps a region that is open" : "too many regions (%d)",
		                 REGISTRY_MAX);
	error = region->uffd >= 0 ? runtime_join_handler(runtime, region) : 0;
	if (!error)
		runtime_guard(region);
	if (error) {
		registry_remove(region);
		return error;
	}
	runtime_count_region(runtime, 1);
	TRACE("region %p: %llu bytes at %p, %s, mechanism %s, delivery %s", (void *)region,
	      (unsigned long long)atomic_load(&region->length_bytes), (void *)atomic_load(&region->base),
	      memory_names[region->memory], region->mechanism->name,
	      region->delivery == UFFDWP_DELIVERY_INLINE ? "inline" : "thread");
	return 0;
}

/* Snapshots of such a region would make these trials first of all: theirs is the call that shall be short. */
static void runtime_foresee(struct uffdwp *runtime, const struct uffdwp_region *region)
{
	struct probe_arming ignored;

	if (region_has_wp_bits(region))
		(void)runtime_shows_wp_bits(runtime);
	if (region->fd >= 0 && region_can_own_empty(region))
		runtime_try_move(runtime, region->memory, &ignored);
}

int runtime_start(struct uffdwp *runtime, const struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp_region *region = NULL;
	int error = region_open(plan, &region);

	/* Files of a disk are refused by the registration itself: only it knows which the kernel can watch. */
	if (error == -EINVAL && plan->address && plan->memory == UFFDWP_MEMORY_SHMEM)
		return plan_refuse_medium(plan);
	if (error)
		return error;
	error = runtime_join(runtime, region);
	if (error) {
		region_unregister(region);
		region_free(region);
		return error;
	}
	runtime_foresee(runtime, region);
	*out = region;
	return 0;
}

int runtime_check_users(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	int cut_comes = region->cut_comes;
	int restore_open = region->restore_open;

	lock_give(&region->lock);
	if (restore_open)
		return text_fail(region->text, -EBUSY,
		                 "a restore of this region has not been freed: uffdwp_restore_free()");
	if (atomic_load(&region->tracked))
		return text_fail(region->text, -EBUSY,
		                 "a track watches this region: uffdwp_track_remove() or uffdwp_track_stop()");
	if (atomic_load(&region->view_count) > atomic_load(&region->child_count))
		return text_fail(region->text, -EBUSY, "a view of this region is open: uffdwp_view_close()");
	if (cut_comes)
		return text_fail(region->text, -EBUSY, "a snapshot, view or child of this region is just being made");
	return 0;
}

static int runtime_check_snapshot(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	int snapshot_open = region->snapshot_open;

	lock_give(&region->lock);
	return snapshot_open ? text_fail(region->text, -EBUSY,
	                                 "a snapshot of this region has not been freed: uffdwp_snapshot_free()")
	                     : 0;
}

int runtime_end(struct uffdwp *runtime, struct uffdwp_region *region)
{
	int error = runtime_check_users(region);

	if (!error)
		error = runtime_check_snapshot(region);
	if (error)
		return error;
	roster_remove(region->k, &region->roster);
	atomic_store(&region->closing, 1); /* partner: the pins of a thread that makes a child of all regions */
	view_children_leave(region);
	if (region->mappers) /* it stays in use there: what could not be fetched shall never be zeros */
		fault_seal(region);
	if (!atomic_load(&region->unmapped))
		region_unregister(region);
	if (region->handler)
		handler_remove(region->handler, region);
	registry_remove(region);
	runtime_count_region(runtime, -1);
	TRACE("region %p: closed", (void *)region);
	region_free(region);
	return 0;
}
