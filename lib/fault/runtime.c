/* SPDX-License-Identifier: MIT */
/* See runtime.h. */
#include "fault/runtime.h"

#include <errno.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/trace.h"
#include "fault/inline.h"
#include "kernel/probe.h"
#include "region/registry.h"

static const char *const memory_names[UFFDWP_MEMORY_COUNT] = {"shmem", "hugetlb", "anonymous"};

/* Reads a number at *at and moves on; -1: there is none below CPU_SETSIZE. */
static long cpu_number(const char **at)
{
	char *end;

	if (**at < '0' || **at > '9')
		return -1;
	long number = strtol(*at, &end, 10);

	*at = end;
	return number < CPU_SETSIZE ? number : -1;
}

/* "0-3,8" */
static int cpus_parse(const char *list, cpu_set_t *cpus)
{
	CPU_ZERO(cpus);
	for (const char *at = list;; at++) {
		long first = cpu_number(&at);
		long last = first;

		if (first >= 0 && *at == '-') {
			at++;
			last = cpu_number(&at);
		}
		if (first < 0 || last < first || (*at != ',' && *at != '\0'))
			return -EINVAL;
		for (long cpu = first; cpu <= last; cpu++)
			CPU_SET((size_t)cpu, cpus);
		if (*at == '\0')
			return 0;
	}
}

/* Keeps the CPUs of `cpus` (all, where there is no list) that belong to the node. */
static int cpus_of_node(int node, int listed, cpu_set_t *cpus)
{
	if (numa_available() < 0 || node > numa_max_node())
		return -EINVAL;
	struct bitmask *mask = numa_allocate_cpumask();

	if (!mask || numa_node_to_cpus(node, mask)) {
		numa_free_cpumask(mask);
		return -EINVAL;
	}
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		int of_node = cpu < mask->size && numa_bitmask_isbitset(mask, (unsigned)cpu);

		if (!of_node)
			CPU_CLR(cpu, cpus);
		else if (!listed)
			CPU_SET(cpu, cpus);
	}
	numa_free_cpumask(mask);
	return CPU_COUNT(cpus) ? 0 : -EINVAL;
}

static int place_of(const struct uffdwp_options *options, struct text *text, cpu_set_t *cpus,
                    struct handler_place *place)
{
	int listed = options->handler_cpus != NULL;

	CPU_ZERO(cpus);
	if (listed && cpus_parse(options->handler_cpus, cpus))
		return text_fail(text, -EINVAL, "handler_cpus \"%s\" is not a list of CPUs such as 0-3,8",
		                 options->handler_cpus);
	if (options->numa_node >= 0 && cpus_of_node(options->numa_node, listed, cpus))
		return text_fail(text, -EINVAL, "numa_node %d has no CPU that may be used; -1 means any",
		                 (int)options->numa_node);
	place->cpus = listed || options->numa_node >= 0 ? cpus : NULL;
	place->node = options->numa_node;
	place->no_uring = (options->flags & UFFDWP_OPEN_NO_URING) != 0;
	return 0;
}

/* Why there is none, and what to change. */
static void explain_access(struct uffdwp *runtime, int error, const int errors[KERNEL_ACCESS_COUNT])
{
	char *text = runtime->access_text;
	size_t size = sizeof(runtime->access_text);

	if (runtime->flags & UFFDWP_OPEN_USER_MODE)
		snprintf(text, size, "userfaultfd(UFFD_USER_MODE_ONLY) is refused: %s; see uffdwp-ctl doctor",
		         strerror(-error));
	else if (error == -ENOSYS)
		snprintf(text, size, "this kernel has no userfaultfd (CONFIG_USERFAULTFD)");
	else
		snprintf(text, size,
		         "no userfaultfd: system call: %s; /dev/userfaultfd: %s. Allow one: sysctl "
		         "vm.unprivileged_userfaultfd=1, or read and write permission on /dev/userfaultfd, or a "
		         "seccomp profile that lets userfaultfd(2) pass; see uffdwp-ctl doctor",
		         strerror(-errors[KERNEL_ACCESS_SYSCALL]), strerror(-errors[KERNEL_ACCESS_DEVICE]));
}

/* Without a userfaultfd mprotect(2) is left. Only what may be otherwise a moment later is an error. */
static int find_access(struct uffdwp *runtime, struct text *text)
{
	int errors[KERNEL_ACCESS_COUNT];
	int uffd =
	        kernel_uffd_open(runtime->k, (runtime->flags & UFFDWP_OPEN_USER_MODE) != 0, &runtime->access, errors);

	if (uffd >= 0) {
		runtime->k->close(uffd);
		return 0;
	}
	explain_access(runtime, uffd, errors);
	if (uffd == -EMFILE || uffd == -ENFILE || uffd == -ENOMEM)
		return text_fail(text, uffd, "%s", runtime->access_text);
	runtime->access = KERNEL_ACCESS_COUNT;
	text_fail(&runtime->text, uffd, "%s; mechanism mprotect is left", runtime->access_text);
	return 0;
}

static void stop_handlers(struct uffdwp *runtime)
{
	while (runtime->handler_count > 0)
		handler_stop(runtime->handlers[--runtime->handler_count]);
}

/* As was measured: bench/README.md. */
static unsigned default_handlers(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
}

static int start_handlers(struct uffdwp *runtime, const struct uffdwp_options *options, struct text *text)
{
	unsigned wanted = options->handler_threads ? options->handler_threads : default_handlers();
	struct handler_place place;
	cpu_set_t cpus;
	int error = place_of(options, text, &cpus, &place);

	while (!error && runtime->handler_count < wanted) {
		error = handler_start(runtime->k, &place, &runtime->handlers[runtime->handler_count]);
		if (error)
			return text_fail(text, error, "a handler thread could not be started: %s%s", strerror(-error),
			                 error == -EINVAL ? " (are all CPUs in handler_cpus there?)" : "");
		runtime->handler_count++;
	}
	return error;
}

static const char *const access_names[] = {"system call", "device", "system call, user mode only", "nothing"};

int runtime_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct text *text,
                 struct uffdwp **out)
{
	struct uffdwp *runtime = pages_new(k, sizeof(*runtime));

	if (!runtime)
		return text_fail(text, -ENOMEM, "no memory for a runtime");
	registry_init();
	runtime->k = k;
	runtime->flags = options->flags;
	runtime->process = getpid();
	runtime->shows_marks = -1;
	pthread_mutex_init(&runtime->lock, NULL);
	text_init(&runtime->text);
	int error = find_access(runtime, text);

	if (!error)
		error = start_handlers(runtime, options, text);
	if (error) {
		runtime_close(runtime);
		return error;
	}
	TRACE("runtime %p: uffd by %s, %u handler threads", (void *)runtime, access_names[runtime->access],
	      runtime->handler_count);
	*out = runtime;
	return 0;
}

int runtime_close(struct uffdwp *runtime)
{
	pthread_mutex_lock(&runtime->lock);
	unsigned regions = runtime->regions;
	unsigned tracks = runtime->tracks;
	pthread_mutex_unlock(&runtime->lock);

	if (regions)
		return text_fail(&runtime->text, -EBUSY, "%u regions are still open: close them first", regions);
	if (tracks)
		return text_fail(&runtime->text, -EBUSY, "%u tracks are still running: stop them first", tracks);
	stop_handlers(runtime);
	text_fini(&runtime->text);
	pthread_mutex_destroy(&runtime->lock);
	pages_free(runtime->k, runtime, sizeof(*runtime));
	return 0;
}

/* A trial that had all that it needed is kept; another is made again: huge pages or rights may come. */
void runtime_try(struct uffdwp *runtime, uint32_t memory, struct uffdwp_probe_memory *trial)
{
	pthread_mutex_lock(&runtime->lock);
	struct uffdwp_probe_memory *kept = &runtime->trials[memory];

	if (!runtime->tried[memory]) {
		memset(kept, 0, sizeof(*kept));
		int error = probe_memory(runtime->k, runtime->access, (enum uffdwp_memory)memory, kept);

		runtime->tried[memory] =
		        !error && kept->mechanism != UFFDWP_MECHANISM_AUTO &&
		        (kept->registered || kept->answers[UFFDWP_TRIAL_POPULATED] == UFFDWP_ANSWER_KEPT);
	}
	*trial = *kept;
	pthread_mutex_unlock(&runtime->lock);
}

/* THREAD, INLINE, or AUTO: neither is possible. */
static uint32_t delivery_of(const struct uffdwp_probe_rung *rung, uint32_t asked)
{
	if (rung->thread_works && asked != UFFDWP_DELIVERY_INLINE)
		return UFFDWP_DELIVERY_THREAD;
	if (rung->inline_works && asked != UFFDWP_DELIVERY_THREAD)
		return UFFDWP_DELIVERY_INLINE;
	return UFFDWP_DELIVERY_AUTO;
}

/* Why this rung cannot be taken for this plan; NULL: it can. */
static const char *rung_refusal(const struct uffdwp_probe_rung *rung, const struct mechanism *mechanism,
                                const struct region_plan *plan)
{
	if (!rung->works)
		return rung->reason;
	if (mechanism->owns_empty && plan->memory != UFFDWP_MEMORY_ANON && plan->address && plan->options.fd < 0)
		return "it needs the file behind the mapping: attach with its fd";
	if (delivery_of(rung, plan->options.delivery) != UFFDWP_DELIVERY_AUTO)
		return NULL;
	return rung->inline_works ? "it needs inline delivery, where system calls that write into armed pages fail "
	                            "with EFAULT: ask for UFFDWP_DELIVERY_INLINE or _AUTO"
	                          : "it cannot be delivered inline here: ask for UFFDWP_DELIVERY_THREAD or _AUTO";
}

static int take_rung(struct region_plan *plan, const struct mechanism *mechanism,
                     const struct uffdwp_probe_memory *trial)
{
	plan->mechanism = mechanism;
	plan->fills = trial->fills;
	plan->options.delivery = delivery_of(&trial->rungs[mechanism->id], plan->options.delivery);
	return 0;
}

int runtime_choose(struct uffdwp *runtime, struct region_plan *plan)
{
	uint32_t asked = plan->options.mechanism;
	const char *memory = memory_names[plan->memory];
	struct uffdwp_probe_memory trial;
	const char *why = "";
	const char *whose = "";

	if (asked >= UFFDWP_MECHANISM_REGION_COUNT)
		return text_fail(&runtime->text, -EOPNOTSUPP, "%s only tells what was written: uffdwp_track_start()",
		                 asked == UFFDWP_MECHANISM_ASYNC ? "async" : "soft-dirty");
	runtime_try(runtime, plan->memory, &trial);
	if (trial.registered == -EMFILE || trial.registered == -ENFILE || trial.registered == -ENOMEM)
		return text_fail(&runtime->text, trial.registered, "%s memory could not be tried: %s", memory,
		                 strerror(-trial.registered));
	for (uint32_t id = UFFDWP_MECHANISM_AUTO + 1; id < UFFDWP_MECHANISM_REGION_COUNT; id++) {
		const struct mechanism *mechanism = mechanism_by_id(id);
		const char *refusal;

		if (asked != UFFDWP_MECHANISM_AUTO && asked != id)
			continue;
		refusal = rung_refusal(&trial.rungs[id], mechanism, plan);
		if (!refusal)
			return take_rung(plan, mechanism, &trial);
		/* Of the whole ladder the lowest rung that works is the one to talk about, else the topmost. */
		if (!*why || trial.rungs[id].works) {
			why = refusal;
			whose = mechanism->name;
		}
	}
	return text_fail(&runtime->text, -EOPNOTSUPP, "%s memory cannot be watched by %s: %s%s%s", memory, whose, why,
	                 *runtime->access_text ? "; " : "", runtime->access_text);
}

int runtime_shows_marks(struct uffdwp *runtime)
{
	pthread_mutex_lock(&runtime->lock);
	if (runtime->shows_marks < 0)
		runtime->shows_marks = probe_bit57(runtime->k, runtime->access);
	int shows = runtime->shows_marks;

	pthread_mutex_unlock(&runtime->lock);
	return shows;
}

static struct handler *least_loaded(const struct uffdwp *runtime)
{
	struct handler *best = runtime->handlers[0];

	for (unsigned i = 1; i < runtime->handler_count; i++) {
		if (handler_load(runtime->handlers[i]) < handler_load(best))
			best = runtime->handlers[i];
	}
	return best;
}

static void count_region(struct uffdwp *runtime, int by)
{
	pthread_mutex_lock(&runtime->lock);
	runtime->regions += (unsigned)by;
	pthread_mutex_unlock(&runtime->lock);
}

void runtime_count_track(struct uffdwp *runtime, int by)
{
	pthread_mutex_lock(&runtime->lock);
	runtime->tracks += (unsigned)by;
	pthread_mutex_unlock(&runtime->lock);
}

static int join_handler(struct uffdwp *runtime, struct uffdwp_region *region)
{
	struct handler *handler = least_loaded(runtime);
	int error = handler_add(handler, region);

	if (error)
		return text_fail(&runtime->text, error, "the handler thread did not take the region: %s",
		                 error == -ENFILE ? "each serves at most 1024, ask for more handler_threads"
		                                  : strerror(-error));
	region->handler = handler;
	return 0;
}

int runtime_join(struct uffdwp *runtime, struct uffdwp_region *region)
{
	int error = region->delivery == UFFDWP_DELIVERY_INLINE ? inline_install(region) : 0;

	if (error)
		return text_fail(&runtime->text, error, "the signal handler could not be installed: %s",
		                 strerror(-error));
	error = registry_add(region, atomic_load(&region->base), region->capacity_bytes);
	if (error)
		return text_fail(&runtime->text, error,
		                 error == -EBUSY ? "the range overlaps a region that is open" : "too many regions (%d)",
		                 REGISTRY_MAX);
	error = region->uffd >= 0 ? join_handler(runtime, region) : 0;
	if (error) {
		registry_remove(region);
		return error;
	}
	count_region(runtime, 1);
	TRACE("region %p: %llu bytes at %p, %s, mechanism %s, delivery %s", (void *)region,
	      (unsigned long long)atomic_load(&region->length_bytes), (void *)atomic_load(&region->base),
	      memory_names[region->memory], region->mechanism->name,
	      region->delivery == UFFDWP_DELIVERY_INLINE ? "inline" : "thread");
	return 0;
}

void runtime_leave(struct uffdwp *runtime, struct uffdwp_region *region)
{
	if (region->handler)
		handler_remove(region->handler, region);
	registry_remove(region);
	count_region(runtime, -1);
	TRACE("region %p: closed", (void *)region);
}
